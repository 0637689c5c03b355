import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startAuthorities } from "../revocation-load.ts";
import { startProgram } from "../../support/program/program.ts";
import { lookAtTasks, startTasks } from "../tasks.ts";
import { hasWorked, post, settle, signMessage, sleep, told } from "../participants.ts";
import { settled, startRecipients, startSenders } from "../traffic.ts";
import { QUICK_RETRIES } from "./kills.ts";
import { accepted, count, type Scenario } from "./scenario.ts";

/** More than a run writes: what each of its sixty open databases holds in its log (4 MiB at most, SQLite's own bound) included. */
const DISK_BYTES = 512 * 1_048_576;
const ROUNDS = 4;
const FULL_FOR_MS = 2_500;

export const diskFull: Scenario = {
  name: "disk-full",
  does: "the disk under the state runs full and becomes free again; the program is restarted where it does not come back by itself",
  needs: ["rounds", "accepted", "delivered", "refusedWhileFull", "triedAfterEnd"],
  async run({ history, random, say }) {
    const disk = mkdtempSync(join(tmpdir(), "sallyport-disk-"));
    try {
      execFileSync("mount", ["-t", "tmpfs", "-o", `size=${DISK_BYTES}`, "none", disk], { stdio: "ignore" });
    } catch {
      rmSync(disk, { recursive: true, force: true });
      return { cannot: "a disk of limited size takes the right to mount one" };
    }
    const program = await startProgram({ settings: QUICK_RETRIES, stateDir: join(disk, "state") });
    try {
      const run = await settle(program, history, random, { pairs: 2 });
      const recipients = startRecipients(run);
      const authorities = await startAuthorities(run);
      const tasks = await startTasks(run);
      let restarts = 0;
      let refusedWhileFull = 0;
      const unserved = (): number =>
        [...run.answers].reduce(
          (sum, [outcome, times]) => (outcome === "unknown" || outcome < 500 ? sum : sum + times),
          0,
        );
      for (let round = 0; round < ROUNDS; round++) {
        const senders = startSenders(run);
        // oxlint-disable no-await-in-loop -- full, free, full again
        await sleep(1_000);
        const [before, unservedBefore] = [accepted(history), unserved()];
        makeFull(disk);
        await sleep(FULL_FOR_MS);
        refusedWhileFull += unserved() - unservedBefore;
        say(`full: ${accepted(history) - before} accepted meanwhile, ${unserved() - unservedBefore} answered with 5xx`);
        makeRoom(disk);
        await sleep(1_500);
        // Senders try again until they are answered, so the program has to be there before they can end.
        const [from, to] = [run.senders[0], run.recipients[0]];
        const works = from !== undefined && to !== undefined && hasWorked(await post(run, signMessage(from, to)));
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
      await settled(run, 60_000);
      await lookAtTasks(run);
      recipients.stop();
      say(`answers: ${told(run)}`);
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

const resize = (disk: string, bytes: number): void =>
  void execFileSync("mount", ["-o", `remount,size=${bytes}`, disk], { stdio: "ignore" });

/** Makes the disk as large as what is on it. It grows meanwhile: tried until it is so. */
function makeFull(disk: string): void {
  for (let tries = 0; ; tries++) {
    const { blocks, bfree, bsize } = statfsSync(disk);
    try {
      resize(disk, (blocks - bfree) * bsize);
      return;
    } catch (error) {
      // Written to since: it cannot be smaller than what is on it.
      if (tries >= 100) throw error;
    }
  }
}

/** Gives it its room again; whatever waited for some finds it. @throws where there is none all the same */
function makeRoom(disk: string): void {
  resize(disk, DISK_BYTES);
  const { bavail, bsize } = statfsSync(disk);
  if (bavail * bsize < DISK_BYTES / 4) throw new Error("the disk is too small for what this run writes");
}
