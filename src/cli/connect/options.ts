/** The options of a connector, as they are given and as they are passed on to one that the system starts. */
import { resolve } from "node:path";
import { type Command, Option } from "commander";
import { FORMATS } from "../../connect/format/formats.ts";
import { wholeNumber } from "../session/input.ts";
import type { TargetOptions } from "./target.ts";

/** Where the local API listens where nothing else is said. */
export const LISTEN_DEFAULT = 8_790;

/** What `connect` and `connect install` are given. */
export type ConnectOptions = TargetOptions & {
  readonly inbox?: boolean;
  readonly outbox?: boolean;
  readonly listen: number | false;
  readonly metrics?: boolean;
};

/** @returns the command, with the options of a connector */
export function withConnectOptions(command: Command): Command {
  return command
    .option("--forward-to <url>", "POST each message there; http: for this machine alone")
    .option("--header <header>", "sent along, NAME: VALUE; repeatable; for secrets use --header-file", repeated)
    .option("--header-file <file>", "file of such headers, a line each, so that no secret stands in the process list")
    .option(
      "--exec <command>",
      "run it for each message: the payload on its standard input, the rest in its environment",
    )
    .option("--format <name>", `what is posted: ${Object.keys(FORMATS).join(", ")} (the first)`)
    .option(
      "--timeout <seconds>",
      "how long the program may take for one message",
      wholeNumber("--timeout", 1, 3_600),
      30,
    )
    .option("--inbox", "acknowledge messages once they are on this disk: they outlast days of the program being down")
    .option("--outbox", "answer sends once they are on this disk: they go out when the network is back")
    .option(
      "--listen <port>",
      "the local API's port on 127.0.0.1; 0 for any",
      wholeNumber("--listen", 0, 65_535),
      LISTEN_DEFAULT,
    )
    .addOption(new Option("--no-listen", "no local API"))
    .option("--metrics", "serve OpenMetrics at /metrics of the local API");
}

/**
 * @param workingFolder that a file's name begins at
 * @returns the arguments that give the same options again
 */
export function argumentsOf(options: ConnectOptions, workingFolder: string): string[] {
  const { forwardTo, header, headerFile, exec, format, timeout, listen } = options;
  return [
    ...given("--forward-to", forwardTo),
    ...(header ?? []).flatMap((each) => ["--header", each]),
    ...given("--header-file", headerFile === undefined ? undefined : resolve(workingFolder, headerFile)),
    ...given("--exec", exec),
    ...given("--format", format),
    ...given("--timeout", timeout),
    ...flag("--inbox", options.inbox),
    ...flag("--outbox", options.outbox),
    ...(listen === false ? ["--no-listen"] : ["--listen", String(listen)]),
    ...flag("--metrics", options.metrics),
  ];
}

function repeated(value: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), value];
}

function given(name: string, value: string | number | undefined): string[] {
  return value === undefined ? [] : [name, String(value)];
}

function flag(name: string, isSet: boolean | undefined): string[] {
  return isSet === true ? [name] : [];
}
