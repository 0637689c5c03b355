/**
 * Structured fields of HTTP, RFC 9651: dictionaries of items and inner lists. Stricter than the RFC where a signature rests on
 * the text: a key that stands twice is reported, and base64 has to be canonical.
 */
import { decodeBase64Url } from "./base64url.ts";
import { err, ok, type Result } from "./result.ts";

/** RFC 9651 §3.3. Bytes are kept as their base64 text, which is what a signature covers. */
export type BareItem =
  | { readonly type: "integer" | "decimal" | "date"; readonly value: number; readonly text: string }
  | { readonly type: "string" | "token" | "display"; readonly value: string; readonly text: string }
  | { readonly type: "bytes"; readonly value: Uint8Array<ArrayBuffer>; readonly text: string }
  | { readonly type: "boolean"; readonly value: boolean; readonly text: string };

/** In their order, each key once: RFC 9651 lets the last of two win, here two are an error. */
export type Parameters = ReadonlyMap<string, BareItem>;
export type Item = { readonly kind: "item"; readonly item: BareItem; readonly parameters: Parameters };
export type InnerList = { readonly kind: "list"; readonly items: readonly Item[]; readonly parameters: Parameters };
export type Dictionary = ReadonlyMap<string, Item | InnerList>;

/** A longer field is nobody's signature. */
export const STRUCTURED_FIELD_MAX_LENGTH = 8_192;
const MEMBERS_MAX = 64;

/**
 * Parses a dictionary, RFC 9651 §4.2.2.
 *
 * @param text the field's value, several lines joined by commas
 * @returns its members in their order, or what is wrong with it
 */
export function parseDictionary(text: string): Result<Dictionary, string> {
  if (text.length > STRUCTURED_FIELD_MAX_LENGTH) return err("too long");
  const cursor: Cursor = { text, at: 0 };
  try {
    return ok(readDictionary(cursor));
  } catch (error) {
    if (error instanceof Malformed) return err(error.message);
    throw error;
  }
}

/** @returns an inner list as RFC 9651 §4.1.1.1 serializes it, e.g. `("@method" "@path");created=1` */
export function serializeInnerList({ items, parameters }: InnerList): string {
  const inner = items.map(({ item, parameters: own }) => item.text + serializeParameters(own)).join(" ");
  return `(${inner})${serializeParameters(parameters)}`;
}

/** @returns a text as a string item, RFC 9651 §4.1.6; null where it holds anything but printable ASCII */
export function serializeString(text: string): string | null {
  return /^[\x20-\x7e]*$/.test(text) ? `"${text.replaceAll(/["\\]/g, String.raw`\$&`)}"` : null;
}

function serializeParameters(parameters: Parameters): string {
  let text = "";
  for (const [key, { type, value, text: spelled }] of parameters)
    text += type === "boolean" && value ? `;${key}` : `;${key}=${spelled}`;
  return text;
}

class Malformed extends Error {}

type Cursor = { readonly text: string; at: number };

/** Takes what a sticky pattern matches at the cursor. */
function take(cursor: Cursor, pattern: RegExp, what: string): string {
  pattern.lastIndex = cursor.at;
  const match = pattern.exec(cursor.text);
  if (match === null) throw new Malformed(`${what} expected at ${cursor.at}`);
  cursor.at += match[0].length;
  return match[0];
}

const KEY = /[a-z*][a-z0-9_.*-]*/y;
const SPACES = / */y;
const OPTIONAL_WHITESPACE = /[ \t]*/y;
const NUMBER = /-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})(?![0-9.])/y;
const DATE = /@-?[0-9]{1,15}(?![0-9.])/y;
const STRING = /"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"/y;
const TOKEN = /[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*/y;
const BYTES = /:[A-Za-z0-9+/]*={0,2}:/y;
const BOOLEAN = /\?[01]/y;
const DISPLAY = /%"(?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*"/y;

function readDictionary(cursor: Cursor): Dictionary {
  const members = new Map<string, Item | InnerList>();
  take(cursor, SPACES, "a space");
  if (cursor.at === cursor.text.length) return members;
  for (;;) {
    const key = take(cursor, KEY, "a key");
    if (members.has(key)) throw new Malformed(`"${key}" stands twice`);
    if (members.size === MEMBERS_MAX) throw new Malformed("too many members");
    if (cursor.text[cursor.at] === "=") {
      cursor.at += 1;
      members.set(key, readMember(cursor));
    } else {
      members.set(key, { kind: "item", item: TRUE, parameters: readParameters(cursor) });
    }
    take(cursor, OPTIONAL_WHITESPACE, "white space");
    if (cursor.at === cursor.text.length) return members;
    take(cursor, /,/y, "a comma");
    take(cursor, OPTIONAL_WHITESPACE, "white space");
  }
}

function readMember(cursor: Cursor): Item | InnerList {
  if (cursor.text[cursor.at] !== "(") return readItem(cursor);
  cursor.at += 1;
  const items: Item[] = [];
  for (;;) {
    take(cursor, SPACES, "a space");
    if (cursor.text[cursor.at] === ")") {
      cursor.at += 1;
      return { kind: "list", items, parameters: readParameters(cursor) };
    }
    if (items.length === MEMBERS_MAX) throw new Malformed("too many items");
    items.push(readItem(cursor));
    if (!" )".includes(cursor.text[cursor.at] ?? "x")) throw new Malformed(`a space expected at ${cursor.at}`);
  }
}

function readItem(cursor: Cursor): Item {
  return { kind: "item", item: readBareItem(cursor), parameters: readParameters(cursor) };
}

function readParameters(cursor: Cursor): Parameters {
  const found = new Map<string, BareItem>();
  while (cursor.text[cursor.at] === ";") {
    cursor.at += 1;
    take(cursor, SPACES, "a space");
    const key = take(cursor, KEY, "a key");
    if (found.has(key)) throw new Malformed(`"${key}" stands twice`);
    if (found.size === MEMBERS_MAX) throw new Malformed("too many parameters");
    let value = TRUE;
    if (cursor.text[cursor.at] === "=") {
      cursor.at += 1;
      value = readBareItem(cursor);
    }
    found.set(key, value);
  }
  return found;
}

const TRUE: BareItem = { type: "boolean", value: true, text: "?1" };

function readBareItem(cursor: Cursor): BareItem {
  const first = cursor.text[cursor.at] ?? "";
  switch (first) {
    case '"': {
      const text = take(cursor, STRING, "a string");
      return { type: "string", value: text.slice(1, -1).replaceAll(/\\(.)/g, "$1"), text };
    }
    case ":":
      return bytesOf(take(cursor, BYTES, "base64"));
    case "?": {
      const text = take(cursor, BOOLEAN, "a boolean");
      return { type: "boolean", value: text === "?1", text };
    }
    case "@": {
      const text = take(cursor, DATE, "a date");
      return { type: "date", value: Number(text.slice(1)), text };
    }
    case "%":
      return displayOf(take(cursor, DISPLAY, "a display string"));
    default: {
      if (/[A-Za-z*]/.test(first)) {
        const text = take(cursor, TOKEN, "a token");
        return { type: "token", value: text, text };
      }
      return numberOf(take(cursor, NUMBER, "a value"));
    }
  }
}

/** Spelled as RFC 9651 §4.1.4 and §4.1.5 serialize it: without leading zeros, a decimal without trailing ones. */
function numberOf(spelled: string): BareItem {
  const value = Number(spelled);
  const isDecimal = spelled.includes(".");
  const plain = Object.is(value, -0) ? "0" : String(value);
  return isDecimal
    ? { type: "decimal", value, text: plain.includes(".") ? plain : `${plain}.0` }
    : { type: "integer", value, text: plain };
}

function bytesOf(text: string): BareItem {
  const base64 = text.slice(1, -1);
  const url = base64.replace(/=+$/, "").replaceAll("+", "-").replaceAll("/", "_");
  // The decoder refuses a tail with stray bits, which would be a second spelling of the same bytes.
  const value = base64.length % 4 === 0 ? decodeBase64Url(url) : null;
  if (value === null) throw new Malformed("base64 is not canonical");
  return { type: "bytes", value, text };
}

function displayOf(text: string): BareItem {
  try {
    return { type: "display", value: decodeURIComponent(text.slice(2, -1)), text };
  } catch (error) {
    throw new Malformed("a display string is not UTF-8", { cause: error });
  }
}
