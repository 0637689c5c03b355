import { settle, sleep, told } from "../participants.ts";
import { lookAtInvites, lookAtVerdicts, startFetching, startNewcomers } from "../programs.ts";
import { startProgram } from "../../support/program/program.ts";
import { settled, startRecipients, startSenders } from "../traffic.ts";
import { QUICK_RETRIES } from "./kills.ts";
import { accepted, count, deadLettered, repeats, type Scenario } from "./scenario.ts";

/** Of the kills that the run asks for. */
const KILLS_SHARE = 0.25;
/** Most kills take workerd alone; now and then everything goes. */
const WHOLE_EVERY = 20;
const SETTLED_WITHIN_MS = 150_000;

export const programs: Scenario = {
  name: "programs",
  does: "SIGKILL at random moments, while programs fetch beside open sockets, report what they made of it, and newcomers enroll",
  needs: ["kills", "accepted", "fetched", "verdicts", "overSockets", "enrolled", "invites"],
  async run({ history, random, kills, say }) {
    const program = await startProgram({ settings: QUICK_RETRIES });
    try {
      const run = await settle(program, history, random, { pairs: 4 });
      // Half of the recipients have a socket besides.
      const recipients = startRecipients({ ...run, recipients: run.recipients.slice(0, 2) });
      const fetching = startFetching(run);
      const senders = startSenders(run);
      const newcomers = startNewcomers(run);
      const times = Math.ceil(kills * KILLS_SHARE);
      for (let kill = 1; kill <= times; kill++) {
        // oxlint-disable no-await-in-loop -- one death after the other
        await sleep(random.between(100, 1_600));
        await program.kill(kill % WHOLE_EVERY === 0);
        await program.start();
        history.record({ kind: "boot", atMs: performance.now(), boot: program.boots() });
        // oxlint-enable no-await-in-loop
        if (kill % 10 === 0) say(`${kill} kills, ${accepted(history)} accepted, ${fetching.count().fetched} fetched`);
      }
      await sleep(1_000);
      await Promise.all([senders.stop(), newcomers.stop()]);
      await settled(run, SETTLED_WITHIN_MS);
      await fetching.stop();
      recipients.stop();
      await lookAtVerdicts(run);
      await lookAtInvites(run);
      say(`answers: ${told(run)}`);
      return {
        kills: times,
        accepted: accepted(history),
        fetched: fetching.count().fetched,
        overSockets: recipients.count(),
        repeats: repeats(history),
        deadLettered: deadLettered(history),
        verdicts: count(history, "verdict"),
        invites: newcomers.invites(),
        enrolled: newcomers.enrolled(),
      };
    } finally {
      await program.stop();
    }
  },
};
