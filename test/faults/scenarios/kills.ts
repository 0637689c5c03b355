import { startSocketSenders } from "../socket-senders.ts";
import { startAuthorities } from "../revocation-load.ts";
import { startProgram } from "../../support/program/program.ts";
import { lookAtTasks, startTasks } from "../tasks.ts";
import { settle, sleep, told } from "../participants.ts";
import { settled, startRecipients, startSenders } from "../traffic.ts";
import { accepted, count, deadLettered, repeats, type Scenario } from "./scenario.ts";

/** Retries that wait for seconds would make most of the run waiting. */
export const QUICK_RETRIES = {
  RELAY_RETRY_INITIAL_MS: "100",
  RELAY_RETRY_MAX_MS: "1000",
  RELAY_RETRY_MAX_ATTEMPTS: "1000",
};
/** Most kills take workerd alone, which comes back at once; now and then everything goes. */
const WHOLE_EVERY = 20;
const SETTLED_WITHIN_MS = 90_000;

export const kills: Scenario = {
  name: "kills",
  does: "SIGKILL at random moments, under sends, frames, replays, revocations and task changes",
  needs: ["kills", "accepted", "frames", "resent", "signedAnew", "delivered", "replays", "triedAfterEnd", "tasksMade"],
  async run({ history, random, kills: times, say }) {
    const program = await startProgram({ settings: QUICK_RETRIES });
    try {
      const run = await settle(program, history, random, { pairs: 4 });
      const recipients = startRecipients(run);
      const senders = startSenders(run);
      const socketSenders = startSocketSenders(run);
      const authorities = await startAuthorities(run);
      const tasks = await startTasks(run);
      for (let kill = 1; kill <= times; kill++) {
        // oxlint-disable no-await-in-loop -- one death after the other
        await sleep(random.between(100, 1_600));
        await program.kill(kill % WHOLE_EVERY === 0);
        await program.start();
        history.record({ kind: "boot", atMs: performance.now(), boot: program.boots() });
        // oxlint-enable no-await-in-loop
        if (kill % 20 === 0) say(`${kill} kills, ${accepted(history)} accepted, ${recipients.count()} delivered`);
      }
      await sleep(1_000);
      await Promise.all([senders.stop(), socketSenders.stop(), authorities.stop(), tasks.stop()]);
      await settled(run, SETTLED_WITHIN_MS);
      await lookAtTasks(run);
      recipients.stop();
      say(`answers: ${told(run)}`);
      say(`ended: ${authorities.kinds()}; seen to work before: ${authorities.worked()}`);
      const { written, resent } = socketSenders.done();
      return {
        kills: times,
        accepted: accepted(history),
        frames: written,
        resent,
        signedAnew: senders.signedAnew(),
        delivered: recipients.count(),
        repeats: repeats(history),
        deadLettered: deadLettered(history),
        replays: count(history, "replay"),
        ended: authorities.ended(),
        triedAfterEnd: authorities.tried(),
        tasksMade: tasks.made(),
      };
    } finally {
      await program.stop();
    }
  },
};
