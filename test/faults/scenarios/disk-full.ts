import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, statfsSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startAuthorities } from "../revocation-load.ts";
import { startProgram } from "../../support/program/program.ts";
import { lookAtTasks, startTasks } from "../tasks.ts";
import { hasWorked, post, settle, signMessage, sleep, told } from "../participants.ts";
import { settled, startRecipients, startSenders } from "../traffic.ts";
import { QUICK_RETRIES } from "./kills.ts";
import { accepted, count, type Scenario } from "./scenario.ts";

const DISK = "48m";
const ROUNDS = 4;
const FULL_FOR_MS = 2_500;

export const diskFull: Scenario = {
  name: "disk-full",
  does: "the disk under the state runs full and becomes free again; the program is restarted where it does not come back by itself",
  needs: ["rounds", "accepted", "delivered", "refusedWhileFull", "triedAfterEnd"],
  async run({ history, random, say }) {
    const disk = mkdtempSync(join(tmpdir(), "sallyport-disk-"));
    try {
      execFileSync("mount", ["-t", "tmpfs", "-o", `size=${DISK}`, "none", disk], { stdio: "ignore" });
    } catch {
      rmSync(disk, { recursive: true, force: true });
      return { cannot: "a disk of limited size takes the right to mount one" };
    }
    const program = await startProgram({ settings: QUICK_RETRIES, stateDir: join(disk, "state") });
    try {
      const town = await settle(program, history, random, { pairs: 2 });
      const recipients = startRecipients(town);
      const authorities = await startAuthorities(town);
      const tasks = await startTasks(town);
      let restarts = 0;
      let refusedWhileFull = 0;
      const unserved = (): number =>
        [...town.answers].reduce(
          (sum, [outcome, times]) => (outcome === "unknown" || outcome < 500 ? sum : sum + times),
          0,
        );
      for (let round = 0; round < ROUNDS; round++) {
        const senders = startSenders(town);
        // oxlint-disable no-await-in-loop -- full, free, full again
        await sleep(1_000);
        const [before, unservedBefore] = [accepted(history), unserved()];
        fill(disk);
        await sleep(FULL_FOR_MS);
        refusedWhileFull += unserved() - unservedBefore;
        say(`full: ${accepted(history) - before} accepted meanwhile, ${unserved() - unservedBefore} answered with 5xx`);
        rmSync(join(disk, "ballast"));
        await sleep(1_500);
        // Senders try again until they are answered, so the program has to be there before they can end.
        const [from, to] = [town.senders[0], town.recipients[0]];
        const works = from !== undefined && to !== undefined && hasWorked(await post(town, signMessage(from, to)));
        if (!works || round === ROUNDS - 1) {
          restarts += 1;
          await program.kill();
          await program.start();
          history.record({ kind: "boot", atMs: performance.now(), boot: program.boots() });
        }
        await senders.stop();
        // oxlint-enable no-await-in-loop
      }
      await Promise.all([authorities.stop(), tasks.stop()]);
      await settled(town, 60_000);
      await lookAtTasks(town);
      recipients.stop();
      say(`answers: ${told(town)}`);
      say(`ended: ${authorities.kinds()}; seen to work before: ${authorities.worked()}`);
      return {
        rounds: ROUNDS,
        restarts,
        refusedWhileFull,
        ended: authorities.ended(),
        triedAfterEnd: authorities.tried(),
        tasksMade: tasks.made(),
        accepted: accepted(history),
        delivered: recipients.count(),
        replays: count(history, "replay"),
      };
    } finally {
      await program.stop();
      execFileSync("umount", ["-l", disk]);
      rmSync(disk, { recursive: true, force: true });
    }
  },
};

/** Takes what is left of the disk, to the last block. */
function fill(disk: string): void {
  const file = openSync(join(disk, "ballast"), "w");
  const block = Buffer.alloc(65_536, 1);
  try {
    for (let left = statfsSync(disk).bavail; left > 0; left--) writeSync(file, block);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  } finally {
    closeSync(file);
  }
}
