/**
 * One process at a time, by a lock of the operating system: SQLite, which Node brings along, takes it on an empty file. The
 * system itself releases it when its process ends, however it ends, so that there is nothing to judge as abandoned: no pid,
 * which other processes get too, and no age, which a sleeping laptop has as well. A Node without SQLite (20) has the lock of
 * process-lock.ts alone, which all others take first.
 */
import { closeSync, openSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { CliError, EXIT } from "../terminal/errors.ts";
import { ensurePrivateFolder, hasCode, unwritable } from "./private-file.ts";
import { tryProcessLock } from "./process-lock.ts";

const ATTEMPT_EVERY_MS = 20;
const WAIT_MAX_MS = 30_000;
/** Result codes of SQLite, https://sqlite.org/rescode.html. */
const SQLITE_BUSY = 5;
const SQLITE_NOTADB = 26;
/** The files that are locked now: one that nothing refers to would be closed by the garbage collector, and be free. */
const held = new Set<DatabaseSync>();

/**
 * Runs `work` while no other process holds the lock, and no other call of this process.
 *
 * @param path the lock file; it is made when it is missing, holds nothing, and is never deleted: a second file of the same
 *        name would be a second lock
 * @param waitMaxMs how long to wait for the holder
 * @returns what `work` gives
 * @throws CliError `LOCKED` when the holder does not release it in time, `UNWRITABLE`, `UNSAFE_PERMISSIONS`
 */
export async function withLock<T>(path: string, work: () => Promise<T>, waitMaxMs: number = WAIT_MAX_MS): Promise<T> {
  await ensurePrivateFolder(dirname(path));
  const deadlineMs = Date.now() + waitMaxMs;
  for (;;) {
    const release = tryLock(path);
    if (release !== null) {
      try {
        return await work();
      } finally {
        release();
      }
    }
    if (Date.now() >= deadlineMs) {
      throw new CliError("LOCKED", `another process of this command holds ${path}`, {
        exitCode: EXIT.unavailable,
        advice: "Wait for it or end it, and run this again: the lock ends with its process.",
      });
    }
    // Spread, so that many that wait do not all ask at once.
    await sleep(ATTEMPT_EVERY_MS * (0.5 + Math.random()));
  }
}

/**
 * Takes a lock for as long as this process runs, or until it is released.
 *
 * @param path the lock file, in a folder that is there; it is made when it is missing
 * @returns what releases the lock, or null when another holds it
 * @throws CliError when the file can hold no lock
 */
export function tryLock(path: string): (() => void) | null {
  const sqlite = loadSqlite();
  const releaseTurn = turnOf(path);
  if (releaseTurn === null || sqlite === null) return releaseTurn;
  let release: (() => void) | null = null;
  try {
    release = trySystemLock(path, sqlite);
  } finally {
    if (release === null) releaseTurn();
  }
  if (release === null) return null;
  return () => {
    release();
    releaseTurn();
  };
}

function turnOf(path: string): (() => void) | null {
  try {
    return tryProcessLock(path);
  } catch (error) {
    if (error instanceof Error && "code" in error) throw unwritable(path, error);
    throw error;
  }
}

/** What Node brings along from 22.13 on. */
function loadSqlite(): typeof import("node:sqlite") | null {
  try {
    return createRequire(import.meta.url)("node:sqlite") as typeof import("node:sqlite");
  } catch (error) {
    if (hasCode(error, "ERR_UNKNOWN_BUILTIN_MODULE") || hasCode(error, "MODULE_NOT_FOUND")) return null;
    throw error;
  }
}

function trySystemLock(path: string, sqlite: typeof import("node:sqlite")): (() => void) | null {
  createEmpty(path);
  let file: DatabaseSync | null = null;
  try {
    file = new sqlite.DatabaseSync(path, { timeout: 0 });
    file.exec("BEGIN EXCLUSIVE");
    const locked = file;
    held.add(locked);
    return () => {
      held.delete(locked);
      locked.close();
    };
  } catch (error) {
    file?.close();
    const code = error instanceof Error && "errcode" in error && typeof error.errcode === "number" ? error.errcode : 0;
    // Extended codes keep the plain one in their lowest byte.
    if ((code & 0xff) === SQLITE_BUSY) return null;
    if ((code & 0xff) === SQLITE_NOTADB) {
      throw new CliError("BROKEN_FILE", `${path} is no lock file: it is not empty`, {
        exitCode: EXIT.setup,
        advice: "Move it away. It is this command's own, and holds nothing.",
        cause: error,
      });
    }
    if (code === 0) throw error;
    throw unwritable(path, error);
  }
}

/** In one turn, since closing a file ends every lock that its process holds on it (POSIX), and no process can hold one on a file that is new. */
function createEmpty(path: string): void {
  try {
    closeSync(openSync(path, "wx", 0o600));
  } catch (error) {
    if (!hasCode(error, "EEXIST")) throw unwritable(path, error);
  }
}
