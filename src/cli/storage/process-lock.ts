/**
 * One process at a time, by files that name their holder: for a Node that brings no SQLite along (20), beside the lock of the
 * operating system for all others, so that both keep each other out.
 *
 * Each turn has a number and a file of that number, made by `link`, which succeeds for one process alone; when it is over, the
 * file is renamed to `….free`. The highest number is the lock: no file of it is ever deleted, so no two processes can follow
 * the same holder. A holder that has died is known by its start time, since another process may have got its pid.
 */
import { execFileSync } from "node:child_process";
import { linkSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { hasCode } from "./private-file.ts";

/** Turns whose files stay: more than can pass while another process reads the folder's names. */
const KEPT = 16;
const FREE = ".free";

type Turn = { readonly number: number; readonly isFree: boolean; readonly path: string };

let drafts = 0;

/**
 * @param path the lock's name, in a folder that is there
 * @returns what releases the lock, or null when another holds it
 */
export function tryProcessLock(path: string): (() => void) | null {
  const before = turnsOf(path);
  const last = Math.max(0, ...before.map(({ number }) => number));
  if (before.some((turn) => turn.number === last && !turn.isFree && isHeld(turn.path))) return null;
  const own = `${path}.${last + 1}`;
  if (!take(own)) return null;
  const after = turnsOf(path);
  // Others may have had that turn, and later ones, since the names were read.
  if (after.some((turn) => turn.number > last && turn.path !== own)) {
    rmSync(own, { force: true });
    return null;
  }
  for (const turn of after) if (turn.number <= last - KEPT) rmSync(turn.path, { force: true });
  return () => renameSync(own, own + FREE);
}

function turnsOf(path: string): Turn[] {
  const prefix = `${basename(path)}.`;
  const folder = dirname(path);
  return readdirSync(folder).flatMap((name) => {
    if (!name.startsWith(prefix)) return [];
    const [, digits, free] = /^(\d{1,15})(\.free)?$/.exec(name.slice(prefix.length)) ?? [];
    return digits === undefined
      ? []
      : [{ number: Number(digits), isFree: free !== undefined, path: join(folder, name) }];
  });
}

/** Makes the file of a turn, whole from the beginning; false where it is there. */
function take(own: string): boolean {
  drafts += 1;
  const draft = `${own}.${process.pid}.${drafts}.draft`;
  writeFileSync(draft, JSON.stringify({ pid: process.pid, startedAt: startOf(process.pid) }), { mode: 0o600 });
  try {
    linkSync(draft, own);
    return true;
  } catch (error) {
    if (hasCode(error, "EEXIST")) return false;
    throw error;
  } finally {
    rmSync(draft, { force: true });
  }
}

/** Whether the process that has made a turn's file still runs. */
function isHeld(path: string): boolean {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    // Released meanwhile: whoever asks looks again.
    if (hasCode(error, "ENOENT")) return true;
    throw error;
  }
  const holder = holderIn(text);
  return (
    holder !== null && isRunning(holder.pid) && (holder.startedAt === null || startOf(holder.pid) === holder.startedAt)
  );
}

/** @returns null for a file that is not whole: it was whole when it was linked, so the machine has lost power since, and its holder too */
function holderIn(text: string): { pid: number; startedAt: string | null } | null {
  try {
    return JSON.parse(text) as { pid: number; startedAt: string | null };
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // Another user's process runs as well.
    return !hasCode(error, "ESRCH");
  }
}

/**
 * @returns when a process has started, in the system's own words and different after a restart of the machine; null where
 *          there is no such process, or the system does not say
 */
export function startOf(pid: number): string | null {
  try {
    if (process.platform === "linux") {
      const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
      // proc_pid_stat(5): the name may hold anything, and the 22nd field is the 20th after it.
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      const ticks = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
      return ticks === undefined ? null : `${boot} ${ticks}`;
    }
    if (process.platform === "win32") return null;
    return execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8", stdio: "pipe" }).trim();
  } catch (error) {
    if (error instanceof Error) return null;
    throw error;
  }
}
