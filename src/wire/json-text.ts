/**
 * JSON that is passed on keeps its own text, to the byte: `12345678901234567890`, `1e400`, `-0`, a name that stands twice
 * and white space survive neither `JSON.parse` nor `JSON.stringify`. Here the text of a member is cut out of the document
 * it came in, carried as {@link JsonText}, and written into the document it goes out in. Contract §1, Text.
 */
import * as z from "zod/mini";
import { err, ok, type Result } from "./result.ts";

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/**
 * JSON text as its sender wrote it. It is written out by {@link writeJson} alone, and crosses to another object as its
 * `json`: an instance is no plain data.
 */
export class JsonText {
  /** Valid JSON, without white space around it. */
  readonly json: string;

  /** @param json text that `JSON.parse` accepts; it is not looked at */
  constructor(json: string) {
    this.json = json;
  }

  /** @throws TypeError always: `JSON.stringify` could only write the value anew, which is what this class prevents. */
  toJSON(): never {
    throw new TypeError("JSON text that is passed on is written by writeJson()");
  }
}

/** Why a text is not the JSON object that was asked for. */
export type JsonProblem =
  | { readonly kind: "not-json" }
  | { readonly kind: "no-object" }
  /** The name stands there twice: readers disagree on which one counts. */
  | { readonly kind: "duplicate"; readonly member: string };

/**
 * Finds the text of members at the top level of a JSON object, however their names are spelled.
 *
 * @param json text that `JSON.parse` has accepted; one that is no object has no members
 * @returns for each name its own text without the white space around it, or null where it is absent; an error for a name
 *          that stands there twice
 */
export function rawMembers<N extends string>(
  json: string,
  names: readonly N[],
): Result<Readonly<Record<N, string | null>>, N> {
  const found = Object.fromEntries(names.map((name) => [name, null])) as Record<N, string | null>;
  let duplicate: N | null = null;
  eachMember(json, (key, start, end) => {
    const name = names.find((each) => each === key);
    if (name === undefined) return;
    if (found[name] !== null) duplicate ??= name;
    found[name] = json.slice(start, end);
  });
  return duplicate === null ? ok(found) : err(duplicate);
}

/** {@link rawMembers} for one name. */
export function rawMember(json: string, name: string): Result<string | null, "duplicate"> {
  const found = rawMembers(json, [name]);
  return found.ok ? ok(found.value[name] ?? null) : err("duplicate");
}

/**
 * @param json text that `JSON.parse` has accepted
 * @returns the text of each element of a JSON array, in order; none for what is no array
 */
export function rawElements(json: string): string[] {
  const elements: string[] = [];
  let at = skipSpace(json, 0);
  if (json.charCodeAt(at) !== OPEN_BRACKET) return elements;
  at += 1;
  for (;;) {
    at = skipSpace(json, at);
    const char = json.charCodeAt(at);
    if (char === CLOSE_BRACKET || Number.isNaN(char)) return elements;
    if (char === COMMA) {
      at += 1;
      continue;
    }
    const end = skipValue(json, at);
    elements.push(json.slice(at, end));
    at = end;
  }
}

/**
 * @param json text that `JSON.parse` has accepted
 * @param path names of members and indices of elements, from the top down
 * @returns the text that stands there, or null where there is none or a name on the way stands there twice
 */
export function rawAt(json: string, path: readonly (string | number)[]): string | null {
  let text: string | null = json.slice(skipSpace(json, 0), trimEnd(json, 0, json.length));
  for (const step of path) {
    if (text === null) return null;
    if (typeof step === "number") text = rawElements(text)[step] ?? null;
    else {
      const member = rawMember(text, step);
      text = member.ok ? member.value : null;
    }
  }
  return text;
}

/**
 * Parses a JSON object, except for the members that are only passed on.
 *
 * @param json any text
 * @param kept names of the members that keep their text
 * @returns the object with a {@link JsonText} in the place of each of them that is there, or what is wrong with the text
 */
export function parseKeeping(json: string, kept: readonly string[]): Result<Record<string, unknown>, JsonProblem> {
  let value: unknown;
  try {
    value = JSON.parse(json) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) return err({ kind: "not-json" });
    throw error;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return err({ kind: "no-object" });
  const members = value as Record<string, unknown>;
  if (kept.length === 0) return ok(members);
  const texts = rawMembers(json, kept);
  if (!texts.ok) return err({ kind: "duplicate", member: texts.error });
  for (const name of kept) {
    const text = texts.value[name];
    if (text !== null && text !== undefined) members[name] = new JsonText(text);
  }
  return ok(members);
}

/**
 * A member that {@link parseKeeping} has kept, for the schema of what is given to a method.
 *
 * @param maxBytes of its text in UTF-8
 */
export function keptJson(maxBytes: number) {
  return z
    .custom<JsonText>((value) => value instanceof JsonText, "is no JSON")
    .check(z.refine((text: JsonText) => byteLength(text.json) <= maxBytes, `is longer than ${maxBytes} bytes`));
}

/**
 * `JSON.stringify` for plain data in which {@link JsonText} stands where text is passed on.
 *
 * @throws TypeError for what has no JSON, a circle or a bigint for instance
 */
export function writeJson(value: unknown): string {
  return written(value) ?? "null";
}

function written(value: unknown): string | undefined {
  if (value instanceof JsonText) return value.json;
  if (Array.isArray(value)) return `[${value.map((each) => written(each) ?? "null").join(",")}]`;
  if (typeof value !== "object" || value === null || "toJSON" in value) return JSON.stringify(value);
  const members: string[] = [];
  for (const [name, member] of Object.entries(value)) {
    const text = written(member);
    if (text !== undefined) members.push(`${JSON.stringify(name)}:${text}`);
  }
  return `{${members.join(",")}}`;
}

/** Hands each member of a JSON object to `visit`: its name, and where its text begins and ends. */
function eachMember(json: string, visit: (name: string, start: number, end: number) => void): void {
  let at = skipSpace(json, 0);
  if (json.charCodeAt(at) !== OPEN_BRACE) return;
  at += 1;
  for (;;) {
    at = skipSpace(json, at);
    const char = json.charCodeAt(at);
    if (char === COMMA) {
      at += 1;
      continue;
    }
    if (char !== QUOTE) return;
    const keyEnd = skipString(json, at);
    const key = json.slice(at + 1, keyEnd - 1);
    const start = skipSpace(json, skipSpace(json, keyEnd) + 1);
    const end = skipValue(json, start);
    visit(key.includes("\\") ? (JSON.parse(`"${key}"`) as string) : key, start, end);
    at = end;
  }
}

/** @returns the index of the first character that is no white space, from `from` on */
export function skipSpace(json: string, from: number): number {
  let at = from;
  while (isSpace(json.charCodeAt(at))) at += 1;
  return at;
}

/** White space of JSON, RFC 8259 §2. */
function isSpace(char: number): boolean {
  return char === 0x20 || char === 0x0a || char === 0x0d || char === 0x09;
}

/** @returns the index behind the closing quote of the string that opens at `from` */
export function skipString(json: string, from: number): number {
  let at = from + 1;
  for (;;) {
    const quote = json.indexOf('"', at);
    if (quote === -1) return json.length;
    let before = quote - 1;
    while (json.charCodeAt(before) === BACKSLASH) before -= 1;
    // An even number of backslashes escapes itself, an odd one the quote.
    if ((quote - before) % 2 === 1) return quote + 1;
    at = quote + 1;
  }
}

/** @returns the index behind the value that begins at `from` */
export function skipValue(json: string, from: number): number {
  let depth = 0;
  let at = from;
  while (at < json.length) {
    const char = json.charCodeAt(at);
    if (char === QUOTE) {
      at = skipString(json, at);
      if (depth === 0) return at;
      continue;
    }
    if (char === OPEN_BRACE || char === OPEN_BRACKET) depth += 1;
    else if (char === CLOSE_BRACE || char === CLOSE_BRACKET) {
      // At depth 0 this closes what stands around a number, true, false or null.
      if (depth === 0) return trimEnd(json, from, at);
      depth -= 1;
      if (depth === 0) return at + 1;
    } else if (char === COMMA && depth === 0) return trimEnd(json, from, at);
    at += 1;
  }
  return trimEnd(json, from, at);
}

function trimEnd(json: string, from: number, to: number): number {
  let end = to;
  while (end > from && isSpace(json.charCodeAt(end - 1))) end -= 1;
  return end;
}

function byteLength(text: string): number {
  return new TextEncoder().encode(text).length;
}
