/** What the command says: words for people, one JSON document (or one a line) for programs, failures on the error stream. */
import { JsonText, writeJson } from "../../wire/json-text.ts";
import { escapeForTerminal } from "../../wire/text.ts";
import { type ExitCode, shownFailure } from "./errors.ts";

/** A line, or several. Whatever stands in it stays on its line: text from elsewhere needs no care of its own. */
export type Words = string | readonly string[];

/** Where a command says what it did. */
export type Output = {
  readonly json: boolean;
  /**
   * The result of a command: `data` for programs, `words` for people. Resolves when it is written out.
   *
   * @throws Error when its reader is gone (`EPIPE`), or it cannot be written
   */
  result(data: unknown, words: Words): Promise<void>;
  /** One of many, as they come: a JSON document a line. Resolves when it is written out. @throws as {@link Output.result} */
  item(data: unknown, words: Words): Promise<void>;
  /** A remark beside the result, for people alone. */
  remark(words: Words): void;
  /** Shows a failure and gives the exit code that belongs to it. */
  failure(error: unknown): ExitCode;
};

/** Standard output and the error stream. */
export type Streams = {
  /** Resolves when the text has left this process, and rejects when it cannot. */
  readonly out: (text: string) => Promise<void>;
  readonly err: (text: string) => void;
};

/** @param json whether programs read the output */
export function createOutput({ out, err }: Streams, json: boolean): Output {
  return {
    json,
    result: (data, words) => out(json ? `${indented(data)}\n` : printed(words)),
    item: (data, words) => out(json ? `${onOneLine(data)}\n` : printed(words)),
    remark(words) {
      if (!json) err(printed(words));
    },
    failure(error) {
      const { exitCode, ...shown } = shownFailure(error);
      if (json) {
        err(`${onOneLine({ error: { ...shown, exitCode } })}\n`);
        return exitCode;
      }
      err(`sallyport: ${oneLine(shown.message)} (${oneLine(shown.code)})\n`);
      if (shown.advice !== null) err(`  ${oneLine(shown.advice)}\n`);
      if (shown.requestId !== null) err(`  request ${oneLine(shown.requestId)}\n`);
      return exitCode;
    },
  };
}

/**
 * Text from elsewhere must not move the cursor, colour the terminal, turn a line around or begin another one: what would is
 * shown, not sent.
 *
 * @returns the text as one line
 */
export function oneLine(text: string): string {
  return escapeForTerminal(text.replaceAll(/[\n\r\t]/g, (char) => JSON.stringify(char).slice(1, -1)));
}

/** @returns lines with columns, each as wide as its widest cell */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const lines = [head, ...rows].map((row) => row.map(oneLine));
  const widths = head.map((_, column) => Math.max(...lines.map((row) => row[column]?.length ?? 0)));
  return lines.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}

/** @returns a time for people, in UTC; what is no time that a calendar has, as it is */
export function timeText(ms: number): string {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return String(ms);
  return date
    .toISOString()
    .replace("T", " ")
    .replace(/\.\d+Z$/, "Z");
}

function printed(words: Words): string {
  return (typeof words === "string" ? [words] : words).map((line) => `${oneLine(line)}\n`).join("");
}

/**
 * JSON on one line. What cannot be seen stands in its strings as `\u…`: the value is the same, and a terminal is safe.
 * {@link JsonText} keeps its numbers and names as they are written; line breaks between its tokens become spaces.
 */
function onOneLine(data: unknown): string {
  return escapeForTerminal(writeJson(withoutBreaks(data)));
}

/** The same with each member of the outer levels on a line of its own. */
function indented(data: unknown, indent = ""): string {
  if (data instanceof JsonText || typeof data !== "object" || data === null) return onOneLine(data);
  const inner = `${indent}  `;
  const [open, close] = Array.isArray(data) ? ["[", "]"] : ["{", "}"];
  const lines = Object.entries(data)
    .filter(([, value]) => value !== undefined || Array.isArray(data))
    .map(([name, value]) => `${inner}${Array.isArray(data) ? "" : `${onOneLine(name)}: `}${indented(value, inner)}`);
  return lines.length === 0 ? open + close : `${open}\n${lines.join(",\n")}\n${indent}${close}`;
}

function withoutBreaks(data: unknown): unknown {
  // Inside a string of valid JSON there are none.
  if (data instanceof JsonText) return new JsonText(data.json.replaceAll(/[\n\r\t]/g, " "));
  if (Array.isArray(data)) return data.map(withoutBreaks);
  if (typeof data !== "object" || data === null) return data;
  return Object.fromEntries(Object.entries(data).map(([name, value]) => [name, withoutBreaks(value)]));
}
