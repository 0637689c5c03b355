/** Records with a name and secrets, a file each: the agents and the devices of this machine. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type * as z from "zod/mini";
import type { CliError } from "../terminal/errors.ts";
import { changeJsonFile, type JsonFile, readJsonFile, writeJsonFile } from "./json-file.ts";
import { withLock } from "./lock.ts";
import { ensurePrivateFolder, namesIn } from "./private-file.ts";

const FILE_SUFFIX = ".json";
/** 1 to 64 characters; a record's file has its name. */
export const NAME_PATTERN = /^[A-Za-z0-9._ -]{1,64}$/;

/** @returns whether a record, and so its file, may have this name */
export function isRecordName(name: string): boolean {
  return NAME_PATTERN.test(name) && !name.startsWith(".");
}

/** The records of one kind. */
export type RecordFiles<T extends { readonly name: string }> = {
  /** The names of all records, sorted. */
  names(): Promise<string[]>;
  /** Where a record's file is. */
  path(name: string): string;
  /** The record of this name, or null. @throws CliError `BROKEN_FILE`, `UNSAFE_PERMISSIONS` */
  get(name: string): Promise<T | null>;
  /** The record of this name. @throws CliError as {@link RecordKind.missing} makes it */
  known(name: string): Promise<T>;
  /**
   * Reads, changes and writes a record while no other process does.
   *
   * @param change gets what is stored, null where nothing is; gives what is to be stored, or the same to leave it so. The
   *        place on the disk is taken before it is called.
   * @returns what is stored afterwards
   * @throws CliError `LOCKED`, `UNWRITABLE`, and whatever `change` throws
   */
  change(name: string, change: (stored: T | null) => Promise<T>): Promise<T>;
  /** The same for a record that must be there. @throws CliError as {@link RecordKind.missing} makes it */
  update(name: string, change: (stored: T) => Promise<T>): Promise<T>;
  /** Deletes a record's file, with its secrets, after `before` has succeeded. Nothing happens where there is none. */
  remove(name: string, before?: () => Promise<void>): Promise<void>;
};

/** What kind of records there are in a folder. */
export type RecordKind<T> = {
  /** Of the home folder. */
  readonly folder: string;
  readonly schema: z.ZodMiniType<T>;
  /** What to do about a file that is broken. */
  readonly advice: string;
  /** The failure of asking for a record that is not there. */
  readonly missing: (name: string, names: readonly string[]) => CliError;
};

/** @param home the command's folder */
export function openRecordFiles<T extends { readonly name: string }>(
  home: string,
  kind: RecordKind<T>,
): RecordFiles<T> {
  const folder = join(home, kind.folder);
  const path = (name: string): string => join(folder, name + FILE_SUFFIX);
  const fileOf = (name: string): JsonFile<T> => ({ path: path(name), schema: kind.schema, advice: kind.advice });
  const locked = async <R>(name: string, work: () => Promise<R>): Promise<R> => {
    await ensurePrivateFolder(home);
    return withLock(join(home, "locks", `${kind.folder}.${name}.lock`), work);
  };

  const files: RecordFiles<T> = {
    path,
    async names() {
      const names = (await namesIn(folder)).filter((name) => name.endsWith(FILE_SUFFIX) && !name.startsWith("."));
      return names.map((name) => name.slice(0, -FILE_SUFFIX.length));
    },
    get: async (name) => (isRecordName(name) ? readJsonFile(fileOf(name)) : null),
    async known(name) {
      const record = await files.get(name);
      if (record !== null) return record;
      throw kind.missing(name, await files.names());
    },
    change: (name, change) =>
      locked(name, async () => {
        const stored = await files.get(name);
        return changeJsonFile(path(name), stored, () => change(stored));
      }),
    async update(name, change) {
      // Before a lock file is made for a name that is none.
      await files.known(name);
      return files.change(name, async (stored) => change(stored ?? (await files.known(name))));
    },
    remove: (name, before) =>
      locked(name, async () => {
        await before?.();
        await rm(path(name), { force: true });
      }),
  };
  return files;
}

/** A value under one lock of the home folder, e.g. the settings. */
export type ValueFile<T> = {
  get(): Promise<T | null>;
  /** Reads, changes and writes it while no other process does. @throws CliError `LOCKED`, `UNWRITABLE` */
  change(change: (stored: T | null) => T): Promise<T>;
  /** The same where there is one; nothing happens where there is none. */
  update(change: (stored: T) => T): Promise<void>;
};

/** @param home the command's folder @param name of the file in it */
export function openValueFile<T>(home: string, name: string, schema: z.ZodMiniType<T>, advice: string): ValueFile<T> {
  const file: JsonFile<T> = { path: join(home, name), schema, advice };
  const locked = async <R>(work: () => Promise<R>): Promise<R> => {
    await ensurePrivateFolder(home);
    return withLock(join(home, "locks", `${name}.lock`), work);
  };
  return {
    get: () => readJsonFile(file),
    change: (change) =>
      locked(async () => {
        const changed = change(await readJsonFile(file));
        await writeJsonFile(file.path, changed);
        return changed;
      }),
    async update(change) {
      if ((await readJsonFile(file)) === null) return;
      await locked(async () => {
        const stored = await readJsonFile(file);
        if (stored !== null) await writeJsonFile(file.path, change(stored));
      });
    },
  };
}
