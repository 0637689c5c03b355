/** One process at a time: a lock file that names its holder, and is taken over when the holder is gone. */
import { randomBytes } from "node:crypto";
import { open, readFile, rename, rm, stat } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { CliError, EXIT } from "../terminal/errors.ts";
import { hasCode } from "./private-file.ts";

const ASK_EVERY_MS = 25;
const WAIT_MAX_MS = 30_000;
/** A lock file without a holder's name is only moments old, unless its maker died between two steps. */
const NAMELESS_MAX_MS = 5_000;

/**
 * Runs `work` while no other process holds the lock.
 *
 * @param path the lock file, in a folder that is there
 * @throws CliError `LOCKED` after 30 seconds
 */
export async function withLock<T>(path: string, work: () => Promise<T>): Promise<T> {
  const deadlineMs = Date.now() + WAIT_MAX_MS;
  while (!(await tryToTake(path))) {
    if (Date.now() > deadlineMs) {
      throw new CliError("LOCKED", `another process holds ${path}`, {
        exitCode: EXIT.unavailable,
        advice: "Wait for it, or end it; if there is none, delete that file.",
      });
    }
    await sleep(ASK_EVERY_MS);
  }
  try {
    return await work();
  } finally {
    await rm(path, { force: true });
  }
}

async function tryToTake(path: string): Promise<boolean> {
  try {
    const file = await open(path, "wx", 0o600);
    try {
      await file.writeFile(String(process.pid));
    } finally {
      await file.close();
    }
    return true;
  } catch (error) {
    if (!hasCode(error, "EEXIST")) throw error;
  }
  if (await isAbandoned(path)) {
    // Of several that find it abandoned, one succeeds in moving it away; the next round decides who takes it.
    const grave = `${path}.${randomBytes(6).toString("hex")}`;
    try {
      await rename(path, grave);
      await rm(grave, { force: true });
    } catch (error) {
      if (!hasCode(error, "ENOENT")) throw error;
    }
  }
  return false;
}

async function isAbandoned(path: string): Promise<boolean> {
  try {
    const holder = await readFile(path, "utf8");
    if (/^\d+$/.test(holder)) return !isRunning(Number(holder));
    return Date.now() - (await stat(path)).mtimeMs > NAMELESS_MAX_MS;
  } catch (error) {
    if (hasCode(error, "ENOENT")) return false;
    throw error;
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it runs, and is somebody else's.
    return !hasCode(error, "ESRCH");
  }
}
