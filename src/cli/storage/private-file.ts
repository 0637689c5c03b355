/** Files that only their owner can read: keys and tokens. Refused when another user could have read them. */
import { randomBytes } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { type FileHandle, lstat, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { CliError, EXIT } from "../terminal/errors.ts";
import { decodeUtf8 } from "./utf8.ts";

const OTHERS = 0o077;
// Windows has no such modes; its home folders are the user's own.
const hasModes = process.platform !== "win32";
/** Room that a draft takes before its text is known: more than any file of this command has. */
const RESERVED_BYTES = 16_384;
const DRAFT_SUFFIX = ".tmp";
/** What the system says of a place where nothing can be written. `ENOENT` and `EEXIST`: of a parent folder. */
const UNWRITABLE_CODES = ["EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "ENOTDIR", "ENOENT", "EEXIST", "EIO"];

/**
 * Makes a folder that only the user can enter, or checks one that is there.
 *
 * @throws CliError `UNSAFE_PERMISSIONS` when others can look into it or it belongs to another user, `UNWRITABLE`
 */
export async function ensurePrivateFolder(path: string): Promise<void> {
  try {
    await makeFolder(path);
  } catch (error) {
    throw unwritable(path, error);
  }
  const stats = await lstat(path);
  if (!stats.isDirectory())
    throw unsafe(path, "is no folder", `Move it away: mv ${quote(path)} ${quote(`${path}.old`)}`);
  refuseUnsafe(path, stats, "700");
}

/**
 * @returns the file's text without a byte order mark, or null when there is no such file
 * @throws CliError `UNSAFE_PERMISSIONS` when others can read it, or it is no plain file of the user's; `BROKEN_FILE` when it
 *         is no UTF-8
 */
export async function readPrivateFile(path: string): Promise<string | null> {
  let file;
  try {
    // A symlink could lead to a file that another user has prepared.
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR")) return null;
    if (hasCode(error, "ELOOP")) throw unsafe(path, "is a symbolic link", "Put the file itself there.", error);
    if (hasCode(error, "EACCES"))
      throw unsafe(path, "cannot be read by this user", `Check whose it is: ls -l ${quote(path)}`, error);
    throw error;
  }
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw unsafe(path, "is no plain file", `Look at it: ls -l ${quote(path)}`);
    refuseUnsafe(path, stats, "600");
    const text = decodeUtf8(await file.readFile());
    if (text !== null) return text;
    throw new CliError("BROKEN_FILE", `${path} is no UTF-8`, {
      exitCode: EXIT.setup,
      advice: "Save it as UTF-8, or restore it from a copy; a key in it may still be good.",
    });
  } finally {
    await file.close();
  }
}

/** A file that will be written: its place on the disk is taken, and the old one stays until then. */
export type Draft = {
  /** Puts the text in the file's place, whole and on disk when it resolves. */
  commit(text: string): Promise<void>;
  /** Gives the place back. Does nothing after {@link commit}. */
  discard(): Promise<void>;
};

/**
 * Takes the place of a file before what it will hold is known: before an effect elsewhere that cannot be had twice. Drafts of it
 * that a process has left which was killed are deleted: there may be secrets in them.
 *
 * @param path where the file will be, whose lock the caller holds; its folder is made, private
 * @throws CliError `UNWRITABLE`, `UNSAFE_PERMISSIONS`
 */
export async function draftPrivateFile(path: string): Promise<Draft> {
  const folder = dirname(path);
  await ensurePrivateFolder(folder);
  const prefix = `.${basename(path)}.`;
  for (const name of await namesIn(folder)) {
    if (name.startsWith(prefix) && name.endsWith(DRAFT_SUFFIX)) await rm(join(folder, name), { force: true });
  }
  const draft = join(folder, prefix + randomBytes(6).toString("hex") + DRAFT_SUFFIX);
  let file: FileHandle | null = null;
  const discard = async (): Promise<void> => {
    await file?.close();
    file = null;
    await rm(draft, { force: true });
  };
  try {
    file = await open(draft, "wx", 0o600);
    await file.write(Buffer.alloc(RESERVED_BYTES, " "), 0, RESERVED_BYTES, 0);
    await file.sync();
  } catch (error) {
    await discard();
    throw unwritable(path, error);
  }
  let isCommitted = false;
  return {
    async discard() {
      if (!isCommitted) await discard();
    },
    async commit(text) {
      try {
        const bytes = Buffer.from(text);
        await file?.write(bytes, 0, bytes.length, 0);
        await file?.truncate(bytes.length);
        await file?.sync();
        await file?.close();
        file = null;
        await rename(draft, path);
        isCommitted = true;
        await syncFolder(folder);
      } catch (error) {
        await discard();
        throw unwritable(path, error);
      }
    },
  };
}

/**
 * Writes a file whole or not at all: a new one beside it, forced to disk, then put in its place.
 *
 * @throws CliError `UNWRITABLE`, `UNSAFE_PERMISSIONS`
 */
export async function writePrivateFile(path: string, text: string): Promise<void> {
  await (await draftPrivateFile(path)).commit(text);
}

/** @returns the names in a folder, sorted; none when there is no such folder */
export async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).toSorted();
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR")) return [];
    throw error;
  }
}

/** @returns whether something failed with this code of the operating system */
export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

/** @returns the failure to write at a path, with what to do; what has nothing to do with the place stays as it is */
export function unwritable(path: string, error: unknown): unknown {
  const isOfThePlace = UNWRITABLE_CODES.some((code) => hasCode(error, code)) || hasCode(error, "ERR_SQLITE_ERROR");
  if (!(error instanceof Error) || !isOfThePlace) return error;
  return new CliError("UNWRITABLE", `${path} cannot be written: ${error.message}`, {
    exitCode: EXIT.setup,
    advice: "Check the disk, and whose folder it is; SALLYPORT_HOME names another one.",
    cause: error,
  });
}

/** Not by `recursive: true`, which never returns in a folder such as `/proc`, where a new folder does not exist after all. */
async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    if (hasCode(error, "EEXIST")) return;
    const parent = dirname(path);
    if (!hasCode(error, "ENOENT") || parent === path || (await isThere(parent))) throw error;
    await makeFolder(parent);
    await makeFolder(path);
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (hasCode(error, "ENOENT")) return false;
    throw error;
  }
}

/** The rename itself is on disk only when the folder is. */
async function syncFolder(folder: string): Promise<void> {
  if (!hasModes) return;
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function refuseUnsafe(path: string, stats: Stats, mode: string): void {
  if (!hasModes) return;
  if (stats.uid !== process.getuid?.()) {
    throw unsafe(path, "belongs to another user", "Use a folder of your own: set SALLYPORT_HOME.");
  }
  if ((stats.mode & OTHERS) !== 0) {
    const advice = `If no other user has read it, make it yours alone: chmod ${mode} ${quote(path)}. Otherwise re-key the agent and change the operator token.`;
    throw unsafe(path, "can be read by other users", advice);
  }
}

function unsafe(path: string, what: string, advice: string, cause?: unknown): CliError {
  return new CliError("UNSAFE_PERMISSIONS", `${path} ${what}`, { exitCode: EXIT.setup, advice, cause });
}

function quote(path: string): string {
  return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", String.raw`'\''`)}'`;
}
