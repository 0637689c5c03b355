/** Private files that hold JSON of a known shape. */
import * as z from "zod/mini";
import { CliError, EXIT } from "../terminal/errors.ts";
import { draftPrivateFile, readPrivateFile, writePrivateFile } from "./private-file.ts";

/** A file of this command: where it is, what it must look like, what a user can do when it does not. */
export type JsonFile<T> = { readonly path: string; readonly schema: z.ZodMiniType<T>; readonly advice: string };

/**
 * @returns what is in the file, or null when there is no such file
 * @throws CliError `BROKEN_FILE` naming the member that is wrong and never a value, `UNSAFE_PERMISSIONS`
 */
export async function readJsonFile<T>({ path, schema, advice }: JsonFile<T>): Promise<T | null> {
  const text = await readPrivateFile(path);
  if (text === null) return null;
  const value = parseJson(text);
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const member = parsed.error.issues[0]?.path.map(String).join(".") ?? "";
  const what =
    value === undefined ? "is no JSON" : `is not what this command wrote${member === "" ? "" : `: ${member}`}`;
  throw new CliError("BROKEN_FILE", `${path} ${what}`, { exitCode: EXIT.setup, advice });
}

/** Writes a file whole or not at all. @throws CliError `UNWRITABLE`, `UNSAFE_PERMISSIONS` */
export function writeJsonFile(path: string, value: unknown): Promise<void> {
  return writePrivateFile(path, jsonText(value));
}

/**
 * Changes a file by something that cannot be had twice, such as a token that is shown once: the place on the disk is taken
 * first.
 *
 * @param stored what is in the file
 * @param make gives what is to be written, or `stored` to leave the file as it is
 * @returns what `make` gave
 * @throws CliError `UNWRITABLE`, `UNSAFE_PERMISSIONS` before `make` is called, and whatever that throws
 */
export async function changeJsonFile<T>(path: string, stored: T | null, make: () => Promise<T>): Promise<T> {
  const draft = await draftPrivateFile(path);
  try {
    const made = await make();
    if (made !== stored) await draft.commit(jsonText(made));
    return made;
  } finally {
    await draft.discard();
  }
}

const jsonText = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
