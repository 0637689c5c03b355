import { startAuthorities } from "../authorities.ts";
import { startProgram } from "../program.ts";
import { lookAtTasks, startTasks } from "../tasks.ts";
import { settle, sleep } from "../town.ts";
import { settled, startRecipients, startSenders } from "../traffic.ts";
import { accepted, count, type Scenario } from "./scenario.ts";

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
  does: "SIGKILL at random moments, under sends, replays, revocations and task changes",
  async run({ history, random, kills: times, say }) {
    const program = await startProgram({ settings: QUICK_RETRIES });
    try {
      const town = await settle(program, history, random, { pairs: 4 });
      const recipients = startRecipients(town);
      const senders = startSenders(town);
      const authorities = await startAuthorities(town);
      const tasks = await startTasks(town);
      for (let kill = 1; kill <= times; kill++) {
        // oxlint-disable no-await-in-loop -- one death after the other
        await sleep(random.between(100, 1_200));
        await program.kill(kill % WHOLE_EVERY === 0);
        await program.start();
        history.record({ kind: "boot", atMs: performance.now(), boot: program.boots() });
        // oxlint-enable no-await-in-loop
        if (kill % 20 === 0) say(`${kill} kills, ${accepted(history)} accepted, ${recipients.count()} delivered`);
      }
      await sleep(1_000);
      await Promise.all([senders.stop(), authorities.stop(), tasks.stop()]);
      await settled(town, SETTLED_WITHIN_MS);
      await lookAtTasks(town);
      recipients.stop();
      return {
        kills: times,
        accepted: accepted(history),
        delivered: recipients.count(),
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
