import { startProgram } from "../../support/program/program.ts";
import { startGroups } from "../groups.ts";
import { settle, sleep, told } from "../participants.ts";
import { settled, startRecipients } from "../traffic.ts";
import { QUICK_RETRIES } from "./kills.ts";
import { accepted, deadLettered, repeats, type Scenario } from "./scenario.ts";

/** Of the kills that the run asks for. */
const KILLS_SHARE = 0.25;
const SETTLED_WITHIN_MS = 90_000;

export const groups: Scenario = {
  name: "groups",
  does: "SIGKILL at random moments, under sends to all of a group, and while members come, leave and are removed",
  needs: [
    "kills",
    "fannedOut",
    "cutInTheMiddle",
    "delivered",
    "staysEnded",
    "triedAfterEnd",
    "cameToAbsent",
    "deadLettered",
  ],
  async run({ history, random, kills, say }) {
    const program = await startProgram({ settings: QUICK_RETRIES });
    try {
      const run = await settle(program, history, random, { pairs: 4 });
      const recipients = startRecipients(run);
      const traffic = await startGroups(run);
      const times = Math.ceil(kills * KILLS_SHARE);
      for (let kill = 1; kill <= times; kill++) {
        // oxlint-disable no-await-in-loop -- one death after the other
        await sleep(random.between(100, 1_600));
        await program.kill();
        await program.start();
        history.record({ kind: "boot", atMs: performance.now(), boot: program.boots() });
        // oxlint-enable no-await-in-loop
        if (kill % 10 === 0) say(`${kill} kills, ${accepted(history)} accepted, ${traffic.stays().ended} stays`);
      }
      await sleep(1_000);
      await traffic.stop();
      await settled({ ...run, recipients: [...run.recipients, traffic.absent] }, SETTLED_WITHIN_MS);
      recipients.stop();
      say(`answers: ${told(run)}`);
      const { ended, tried, cameToAbsent } = traffic.stays();
      return {
        kills: times,
        accepted: accepted(history),
        fannedOut: traffic.fanned().accepted,
        cutInTheMiddle: traffic.fanned().cut,
        delivered: recipients.count(),
        repeats: repeats(history),
        deadLettered: deadLettered(history),
        staysEnded: ended,
        triedAfterEnd: tried,
        cameToAbsent,
      };
    } finally {
      await program.stop();
    }
  },
};
