/** Files that only their owner can read: keys and tokens. Refused when anybody else could have read them. */
import { randomBytes } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { lstat, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { CliError, EXIT } from "../terminal/errors.ts";

const OTHERS = 0o077;
// Windows has no such modes; its home folders are the user's own.
const hasModes = process.platform !== "win32";

/**
 * Makes a folder that only the user can enter, or checks one that is there.
 *
 * @throws CliError `UNSAFE_PERMISSIONS` when others can look into it or it belongs to somebody else
 */
export async function ensurePrivateFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  const stats = await lstat(path);
  if (!stats.isDirectory())
    throw unsafe(path, "is no folder", `Move it away: mv ${quote(path)} ${quote(`${path}.old`)}`);
  refuseUnsafe(path, stats, "700");
}

/**
 * @returns the file's text, or null when there is no such file
 * @throws CliError `UNSAFE_PERMISSIONS` when others can read it, or it is no plain file of the user's
 */
export async function readPrivateFile(path: string): Promise<string | null> {
  let file;
  try {
    // A symlink could lead to a file that somebody else has prepared.
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if (hasCode(error, "ENOENT")) return null;
    if (hasCode(error, "ELOOP")) throw unsafe(path, "is a symbolic link", "Put the file itself there.", error);
    if (hasCode(error, "EACCES"))
      throw unsafe(path, "cannot be read by this user", `Check whose it is: ls -l ${quote(path)}`, error);
    throw error;
  }
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw unsafe(path, "is no plain file", `Look at it: ls -l ${quote(path)}`);
    refuseUnsafe(path, stats, "600");
    return await file.readFile("utf8");
  } finally {
    await file.close();
  }
}

/** Writes a file whole or not at all: a new one beside it, forced to disk, then put in its place. */
export async function writePrivateFile(path: string, text: string): Promise<void> {
  const folder = dirname(path);
  await ensurePrivateFolder(folder);
  const draft = join(folder, `.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`);
  try {
    const file = await open(draft, "wx", 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
  if (!hasModes) return;
  // The rename itself is on disk only when the folder is.
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** @returns the names in a folder, sorted; none when there is no such folder */
export async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).toSorted();
  } catch (error) {
    if (hasCode(error, "ENOENT")) return [];
    throw error;
  }
}

/** @returns whether something failed with this code of the operating system */
export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

function refuseUnsafe(path: string, stats: Stats, mode: string): void {
  if (!hasModes) return;
  if (stats.uid !== process.getuid?.()) {
    throw unsafe(path, "belongs to another user", "Use a folder of your own: set SALLYPORT_HOME.");
  }
  if ((stats.mode & OTHERS) !== 0) {
    const advice = `If nobody has read it, make it yours alone: chmod ${mode} ${quote(path)}. Otherwise re-key the agent and change the operator token.`;
    throw unsafe(path, "can be read by other users", advice);
  }
}

function unsafe(path: string, what: string, advice: string, cause?: unknown): CliError {
  return new CliError("UNSAFE_PERMISSIONS", `${path} ${what}`, { exitCode: EXIT.setup, advice, cause });
}

function quote(path: string): string {
  return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", String.raw`'\''`)}'`;
}
