/** Private files that hold JSON of a known shape. */
import * as z from "zod/mini";
import { CliError, EXIT } from "../terminal/errors.ts";
import { readPrivateFile, writePrivateFile } from "./private-file.ts";

/**
 * @param cure what the user can do when the file is broken
 * @returns what is in it, or null when there is no such file
 * @throws CliError `BROKEN_FILE`, `UNSAFE_PERMISSIONS`
 */
export async function readJsonFile<T>(file: string, schema: z.ZodMiniType<T>, cure: string): Promise<T | null> {
  const text = await readPrivateFile(file);
  if (text === null) return null;
  const parsed = schema.safeParse(parseJson(text));
  if (parsed.success) return parsed.data;
  throw new CliError("BROKEN_FILE", `${file} is not what this command wrote`, { exitCode: EXIT.setup, advice: cure });
}

export function writeJsonFile(file: string, value: unknown): Promise<void> {
  return writePrivateFile(file, `${JSON.stringify(value, null, 2)}\n`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
