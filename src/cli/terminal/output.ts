/** What the command says: words for people, one JSON document (or one a line) for programs, failures on the error stream. */
import { shownFailure, type ExitCode } from "./errors.ts";

export type Output = {
  readonly json: boolean;
  /** The result of a command: `data` for programs, `words` for people. */
  result(data: unknown, words: string): void;
  /** One of many, as they come: a JSON document a line. */
  item(data: unknown, words: string): void;
  /** A remark beside the result, for people alone. */
  remark(words: string): void;
  /** Shows a failure and gives the exit code that belongs to it. */
  failure(error: unknown): ExitCode;
};

export type Streams = { readonly out: (text: string) => void; readonly err: (text: string) => void };

export function createOutput(streams: Streams, json: boolean): Output {
  return {
    json,
    result(data, words) {
      streams.out(json ? `${JSON.stringify(data, null, 2)}\n` : `${printable(words)}\n`);
    },
    item(data, words) {
      streams.out(json ? `${JSON.stringify(data)}\n` : `${printable(words)}\n`);
    },
    remark(words) {
      if (!json) streams.err(`${printable(words)}\n`);
    },
    failure(error) {
      const { exitCode, ...shown } = shownFailure(error);
      if (json) {
        streams.err(`${JSON.stringify({ error: { ...shown, exitCode } })}\n`);
        return exitCode;
      }
      streams.err(`sallyport: ${printable(shown.message)} (${printable(shown.code)})\n`);
      if (shown.advice !== null) streams.err(`  ${shown.advice}\n`);
      if (shown.requestId !== null) streams.err(`  request ${printable(shown.requestId)}\n`);
      return exitCode;
    },
  };
}

/** Text from elsewhere must not move the cursor or colour the terminal: control characters are shown, not sent. */
export function printable(text: string): string {
  // Line breaks and tabs are this command's own; what others send is put into one line by `oneLine` first.
  return text.replace(/[^\P{Cc}\n\t]/gu, (char) => `\\u${(char.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`);
}

/** @returns foreign text as one line */
export function oneLine(text: string): string {
  return printable(text.replaceAll(/[\n\t]/g, (char) => JSON.stringify(char).slice(1, -1)));
}

/** @returns columns, each as wide as its widest cell */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [head, ...rows].map((row) => row.map(oneLine));
  const widths = head.map((_, column) => Math.max(...lines.map((row) => row[column]?.length ?? 0)));
  return lines
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** @returns a time for people, in UTC */
export function timeText(ms: number): string {
  return new Date(ms)
    .toISOString()
    .replace("T", " ")
    .replace(/\.\d+Z$/, "Z");
}
