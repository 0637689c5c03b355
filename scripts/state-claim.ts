/** A state folder of the local program, which one process serves at a time. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { tryLock } from "../src/cli/storage/lock.ts";
import { err, ok, type Result } from "../src/wire/result.ts";

/** Who serves a state. `servedByPid`: the process that it has started for that. */
type Claimant = { readonly pid: number; readonly url: string; readonly servedByPid: number | null };

/** A state folder that is this process's own. */
export type StateClaim = {
  /** Writes down which process serves, for those who come later. */
  servedBy(pid: number | null): void;
};

const ASKED_FOR_MS = 2_000;

/**
 * Claims a state folder until this process ends, however it ends: by a lock of the operating system.
 *
 * @param folder is made when it is missing
 * @param url where this process is about to serve
 * @returns the claim, or who has it, in words
 */
export async function claimState(folder: string, url: string): Promise<Result<StateClaim, string>> {
  mkdirSync(folder, { recursive: true });
  const record = join(folder, "served-by.json");
  const release = tryLock(join(folder, "served.lock"));
  const first = claimantIn(record);
  if (release === null) return err(first === null ? "by another process" : nameOf(first));
  // Its own process may have been killed, and have left the one behind that serves.
  if (first !== null && (await isStillServing(first))) {
    release();
    return err(nameOf({ ...first, pid: first.servedByPid ?? first.pid }));
  }
  const write = (servedByPid: number | null): void => {
    const claimant: Claimant = { pid: process.pid, url, servedByPid };
    writeFileSync(record, `${JSON.stringify(claimant)}\n`);
  };
  write(null);
  return ok({ servedBy: write });
}

const nameOf = ({ pid, url }: Claimant): string => `by process ${pid}, on ${url}`;

function claimantIn(record: string): Claimant | null {
  try {
    return JSON.parse(readFileSync(record, "utf8")) as Claimant;
  } catch (error) {
    // Of the first start there is none; one that was cut short names no process.
    if (error instanceof SyntaxError || (error instanceof Error && "code" in error && error.code === "ENOENT"))
      return null;
    throw error;
  }
}

/** A pid alone may be another process's by now, and so may the port: both together are the one that was left. */
async function isStillServing({ servedByPid, url }: Claimant): Promise<boolean> {
  if (servedByPid === null || !isRunning(servedByPid)) return false;
  try {
    return (await fetch(`${url}/health`, { signal: AbortSignal.timeout(ASKED_FOR_MS) })).ok;
  } catch (error) {
    if (error instanceof TypeError || (error instanceof DOMException && error.name === "TimeoutError")) return false;
    throw error;
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}
