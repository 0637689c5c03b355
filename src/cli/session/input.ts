/** What comes into the command besides its arguments: files, standard input, and answers of a person. */
import { readFile } from "node:fs/promises";
import { CliError, EXIT, usage } from "../terminal/errors.ts";
import { oneLine } from "../terminal/output.ts";
import { hasCode } from "../storage/private-file.ts";
import { decodeUtf8 } from "../storage/utf8.ts";
import type { Session } from "./session.ts";

/**
 * @param path `-` for standard input
 * @returns the text, without a byte order mark
 * @throws CliError `USAGE` when it cannot be read, or is no UTF-8: text is never replaced in silence
 */
export async function readInput(session: Session, path: string): Promise<string> {
  const bytes = path === "-" ? await session.standardInput() : await readGiven(path);
  const text = decodeUtf8(bytes);
  if (text === null) throw usage(`${path === "-" ? "standard input" : path} is no UTF-8: save it as UTF-8`);
  return text;
}

async function readGiven(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    if (hasCode(error, "ENOENT")) throw usage(`there is no file ${path}`, error);
    if (hasCode(error, "EISDIR")) throw usage(`${path} is a folder`, error);
    if (hasCode(error, "EACCES")) throw usage(`${path} cannot be read by this user`, error);
    throw error;
  }
}

/**
 * @param text the token alone, or lines of settings with `OPERATOR_TOKEN=…` such as `.dev.vars`
 * @throws CliError when there is none in it
 */
export function operatorTokenIn(content: string): string {
  const setting = /^\s*(?:export\s+)?OPERATOR_TOKEN\s*=\s*(?:"([^"\n]*)"|'([^'\n]*)'|(\S+))\s*$/m.exec(content);
  const token = setting?.[1] ?? setting?.[2] ?? setting?.[3] ?? content.trim();
  if (!/^[\x21-\x7e]{32,512}$/.test(token)) {
    throw usage(
      "there is no operator token in that: it has 32 visible characters or more, in a line of its own or as OPERATOR_TOKEN=…",
    );
  }
  return token;
}

/** Asks for a line; only where a person is there. */
export async function askText(message: string, initialValue: string): Promise<string> {
  const { text } = await prompts();
  return answered(await text({ message, initialValue, output: process.stderr }));
}

/** Asks for a secret, which is not shown. */
export async function askSecret(message: string): Promise<string> {
  const { password } = await prompts();
  return answered(await password({ message, output: process.stderr }));
}

/**
 * Asks before something that cannot be undone.
 *
 * @param yes `--yes` was given
 * @throws CliError when no person is there to be asked and `--yes` was not given, or the answer is no
 */
export async function mustConfirm(session: Session, yes: boolean, message: string): Promise<void> {
  if (yes) return;
  if (!session.interactive) throw usage(`${message} There is no terminal to ask on: give --yes.`);
  const { confirm } = await prompts();
  if (!(await answered(await confirm({ message: oneLine(message), initialValue: false, output: process.stderr }))))
    throw cancelled();
}

/** A whole number within bounds, as an option's parser. */
export function wholeNumber(name: string, min: number, max: number): (value: string) => number {
  return (value) => {
    const parsed = Number(value);
    if (!/^\d{1,15}$/.test(value) || parsed < min || parsed > max)
      throw usage(`${name} must be a whole number from ${min} to ${max}`);
    return parsed;
  };
}

/**
 * A moment, as an option's parser: an ISO 8601 time, or how long ago (`30m`, `12h`, `7d`).
 *
 * @returns milliseconds since 1970
 */
export function moment(name: string): (value: string) => number {
  return (value) => {
    const [, count, unit] = /^(\d{1,6})([mhd])$/.exec(value) ?? [];
    if (count !== undefined)
      return Math.max(
        0,
        Date.now() - Number(count) * { m: 60_000, h: 3_600_000, d: 86_400_000 }[unit as "m" | "h" | "d"],
      );
    const ms = /^\d{4}-\d{2}-\d{2}/.test(value) ? Date.parse(value) : Number.NaN;
    if (Number.isNaN(ms))
      throw usage(`${name} must be a time such as 2026-12-01T09:30:00Z, or how long ago, such as 12h`);
    return ms;
  };
}

async function answered<T>(answer: T): Promise<Exclude<T, symbol>> {
  const { cancel, isCancel } = await prompts();
  if (!isCancel(answer)) return answer as Exclude<T, symbol>;
  cancel("Cancelled.", { output: process.stderr });
  throw cancelled();
}

/** Loaded only when a person is asked: most runs ask nothing. */
function prompts() {
  return import("@clack/prompts");
}

function cancelled(): CliError {
  return new CliError("CANCELLED", "cancelled; nothing was done", { exitCode: EXIT.usage });
}
