/** Finds the own text of a member in a JSON object, so that it can be passed on as it came, byte for byte. */
import { err, ok, type Result } from "./result.ts";

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const COMMA = 0x2c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/**
 * @param json the text of a JSON object that `JSON.parse` has accepted; of any other text the answer is undefined
 * @param name the member to find at the top level
 * @returns the member's own text without the white space around it, null when it is absent, or an error when the
 *          name stands there twice: readers disagree on which one counts
 */
export function rawMember(json: string, name: string): Result<string | null, "duplicate"> {
  let found: string | null = null;
  let at = skipSpace(json, 0) + 1;
  for (;;) {
    at = skipSpace(json, at);
    const char = json.charCodeAt(at);
    if (char === COMMA) {
      at += 1;
      continue;
    }
    if (char !== QUOTE) return ok(found);
    const keyEnd = skipString(json, at);
    const key = json.slice(at + 1, keyEnd - 1);
    const isNamed = key === name || (key.includes("\\") && (JSON.parse(`"${key}"`) as string) === name);
    const start = skipSpace(json, skipSpace(json, keyEnd) + 1);
    const end = skipValue(json, start);
    if (isNamed) {
      if (found !== null) return err("duplicate");
      found = json.slice(start, end);
    }
    at = end;
  }
}

function skipSpace(json: string, from: number): number {
  let at = from;
  for (;;) {
    const char = json.charCodeAt(at);
    if (char !== 0x20 && char !== 0x0a && char !== 0x0d && char !== 0x09) return at;
    at += 1;
  }
}

/** @returns the index behind the closing quote of the string that opens at `from`. */
function skipString(json: string, from: number): number {
  let at = from + 1;
  while (at < json.length) {
    const char = json.charCodeAt(at);
    if (char === QUOTE) return at + 1;
    at += char === BACKSLASH ? 2 : 1;
  }
  return at;
}

/** @returns the index behind the value that begins at `from`. */
function skipValue(json: string, from: number): number {
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
      // At depth 0 this closes the object around a number, true, false or null.
      if (depth === 0) return trimEnd(json, from, at);
      depth -= 1;
      if (depth === 0) return at + 1;
    } else if (char === COMMA && depth === 0) return trimEnd(json, from, at);
    else if (char === COLON && depth === 0) return at;
    at += 1;
  }
  return at;
}

function trimEnd(json: string, from: number, to: number): number {
  let end = to;
  while (end > from && skipSpace(json, end - 1) !== end - 1) end -= 1;
  return end;
}
