/** What `npm run dev` shows of what wrangler and the Worker print: a line an event, for people or as it is. */
import { stripVTControlCharacters } from "node:util";
import { escapeForTerminal } from "../src/wire/text.ts";

/** What is to be printed, and where; null for nothing. */
export type Shown = { readonly stream: "out" | "err"; readonly text: string } | null;

type Entry = Record<string, unknown> & { level: string; event: string };

/** Said of every line and so of none, or shown in its own place. */
const OWN_PLACE = new Set(["level", "event", "requestId", "agentDid", "recipientDid", "durationMs"]);
const ID_SHOWN = 8;
const REQUEST = /^\[wrangler:info\] (\S+) (\S+) (\d{3}) .*\((\d+)ms\)$/;

/**
 * @param line of wrangler's, colours and all
 * @param how `json`: the Worker's own lines as they are; `readable`: for a person
 * @param nowMs milliseconds since 1970; shown in the reader's own zone
 */
export function shownLine(line: string, how: "json" | "readable", nowMs: number): Shown {
  const plain = stripVTControlCharacters(line).trimEnd();
  const entry = entryIn(plain);
  if (how === "json") return entry === null ? otherLine(plain) : { stream: "out", text: JSON.stringify(entry) };
  const time = new Date(nowMs).toTimeString().slice(0, ID_SHOWN);
  if (entry !== null) return { stream: "out", text: `${time} ${entryText(entry)}` };
  const request = REQUEST.exec(plain);
  if (request === null) return otherLine(plain);
  const [, method = "", path = "", status = "", tookMs = ""] = request;
  return { stream: "out", text: `${time}       ${method} ${escapeForTerminal(path)} ${status} ${tookMs} ms` };
}

/** What is neither the Worker's nor a request: an error of the build, say. Empty lines and requests are nobody's loss. */
function otherLine(plain: string): Shown {
  if (plain === "" || REQUEST.test(plain)) return null;
  return { stream: "err", text: escapeForTerminal(plain) };
}

/** A line of the Worker's, which stands at the end of what wrangler puts before it. */
function entryIn(plain: string): Entry | null {
  const start = plain.indexOf('{"level":');
  if (start < 0) return null;
  try {
    const parsed = JSON.parse(plain.slice(start, plain.lastIndexOf("}") + 1)) as Entry;
    return typeof parsed.event === "string" ? parsed : null;
  } catch (error) {
    // Cut off, or somebody else's text that begins like one: shown as it is.
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

function entryText(entry: Entry): string {
  const from = shortDid(entry["agentDid"]);
  const to = shortDid(entry["recipientDid"]);
  const who = from === null ? "" : ` ${from}${to === null ? "" : ` → ${to}`}`;
  const took = typeof entry["durationMs"] === "number" ? ` ${Math.round(entry["durationMs"])} ms` : "";
  const fields = Object.entries(entry)
    .filter(([name, value]) => !OWN_PLACE.has(name) && value !== null && value !== undefined)
    .map(([name, value]) => ` ${name}=${fieldText(value)}`);
  const request = typeof entry["requestId"] === "string" ? `  #${entry["requestId"].slice(0, ID_SHOWN)}` : "";
  return escapeForTerminal(`${entry.level.padEnd(5)} ${entry.event}${who}${fields.join("")}${took}${request}`);
}

/** The end of a DID: its beginning is the same for all of one installation, and its middle is a time. */
function shortDid(value: unknown): string | null {
  return typeof value === "string" && value.startsWith("did:") ? `…${value.slice(-ID_SHOWN)}` : null;
}

function fieldText(value: unknown): string {
  if (typeof value === "string") return shortDid(value) ?? (/[\s"=]/.test(value) ? JSON.stringify(value) : value);
  return JSON.stringify(value);
}
