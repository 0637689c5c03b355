/** From the options of `connect` to where messages go. */
import { FORMATS, isFormatName } from "../../connect/format/formats.ts";
import type { Target } from "../../connect/message.ts";
import { execTarget } from "../../connect/target/exec.ts";
import { httpTarget } from "../../connect/target/http.ts";
import { createPullQueue, type PullQueue } from "../../connect/target/pull.ts";
import { readInput } from "../session/input.ts";
import { isLoopback, networkTo } from "../session/network.ts";
import type { Session } from "../session/session.ts";
import { usage } from "../terminal/errors.ts";
import { parseUrl } from "../../wire/url.ts";

/** The options that say where messages go. */
export type TargetOptions = {
  readonly forwardTo?: string;
  readonly header?: readonly string[];
  readonly headerFile?: string;
  readonly exec?: string;
  readonly format?: string;
  readonly timeout: number;
};

/** Where messages go; `pull` where programs fetch them. */
export type ChosenTarget = { readonly target: Target; readonly pull: PullQueue | null; readonly words: string };

/** Headers that the connector itself decides about. */
const OWN = new Set([
  "host",
  "content-length",
  "content-digest",
  "signature",
  "signature-input",
  "transfer-encoding",
  "connection",
]);
const HEADER = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)$/;

/** @throws CliError `USAGE` for options that make no sense, alone or together */
export async function chosenTarget(session: Session, options: TargetOptions, key: Uint8Array): Promise<ChosenTarget> {
  const { forwardTo, exec, format, timeout } = options;
  const timeoutMs = timeout * 1_000;
  if (forwardTo !== undefined && exec !== undefined) throw usage("give --forward-to or --exec, not both");
  if (forwardTo === undefined && (options.header ?? options.headerFile ?? format) !== undefined)
    throw usage("--header, --header-file and --format go with --forward-to");
  if (exec !== undefined)
    return {
      target: execTarget({ command: exec, environment: session.environment, timeoutMs }),
      pull: null,
      words: `run ${exec}`,
    };
  if (forwardTo === undefined) {
    const pull = createPullQueue(Date.now);
    return { target: pull.target, pull, words: "wait to be fetched over the local API" };
  }
  const url = urlOf(forwardTo);
  const name = format ?? "sallyport";
  if (!isFormatName(name)) throw usage(`--format is one of ${Object.keys(FORMATS).join(", ")}`);
  const headers = await headersOf(session, options);
  const target = httpTarget({
    url,
    headers,
    format: FORMATS[name],
    key,
    timeoutMs,
    now: Date.now,
    fetch: networkTo(session.environment, url).fetch,
  });
  return { target, pull: null, words: `go to ${url.origin}${url.pathname} as ${name}` };
}

function urlOf(text: string): URL {
  const url = parseUrl(text);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:"))
    throw usage("--forward-to is no http(s) URL");
  if (url.username !== "" || url.password !== "") throw usage("--forward-to holds a password; use --header-file");
  // What it says is for the program's eyes alone.
  if (url.protocol === "http:" && !isLoopback(url.hostname))
    throw usage("--forward-to by http: goes to this machine alone; use https: for another");
  return url;
}

async function headersOf(
  session: Session,
  { header = [], headerFile }: TargetOptions,
): Promise<Record<string, string>> {
  const lines = headerFile === undefined ? [] : (await readInput(session, headerFile)).split(/\r?\n/);
  const given = [...header, ...lines.filter((line) => line.trim() !== "" && !line.startsWith("#"))];
  return Object.fromEntries(
    given.map((line) => {
      const [, name = "", value = ""] = HEADER.exec(line.trim()) ?? [];
      // Never its text: there may be a token in it.
      if (name === "") throw usage("a header is written NAME: VALUE, in visible ASCII");
      if (OWN.has(name.toLowerCase())) throw usage(`${name} is set by the connector itself`);
      return [name, value];
    }),
  );
}
