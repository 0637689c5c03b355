/**
 * Text that a person may have to recognise: names, labels, descriptions, profiles, ids that people choose. One rule for all
 * of it, contract §1: counted in code points, well-formed Unicode, and nothing in it that cannot be seen. What was taken
 * before this rule, or comes from elsewhere, is escaped where it is printed. And text in a header, RFC 8187.
 */
import * as z from "zod/mini";
import { err, ok, type Result } from "./result.ts";

/**
 * What is not seen, by Unicode's own properties: controls (Cc), format characters (Cf: bidi controls, zero-width ones, the
 * soft hyphen, tags), halves of surrogate pairs (Cs), line and paragraph separators, and whatever a font may leave out
 * (Default_Ignorable_Code_Point: Hangul fillers, variation selectors, the grapheme joiner). U+2800 is a letter of Braille
 * without a dot, and looks like nothing as well.
 */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/gu;

/** Emoji in their recommended spelling are one visible sign each, also where joiners and selectors hold them together. */
const EMOJI = new RegExp("\\p{RGI_Emoji}", "gv");

/** What stands for an emoji while the rest is looked at; any visible sign would do. */
const VISIBLE = "x";

/** @returns how many code points the text has; a half of a surrogate pair counts as one */
export function codePoints(text: string): number {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

/** @returns the text's first `max` code points; nothing is cut in two */
export function cutToCodePoints(text: string, max: number): string {
  if (text.length <= max) return text;
  let count = 0;
  let end = 0;
  for (const char of text) {
    if (count === max) break;
    count += 1;
    end += char.length;
  }
  return text.slice(0, end);
}

/** @returns whether a character stands in the text that a reader cannot see, or half a character */
export function hasUnseen(text: string): boolean {
  if (text.search(UNSEEN) === -1) return false;
  return !text.isWellFormed() || text.replace(EMOJI, VISIBLE).search(UNSEEN) !== -1;
}

/**
 * The rule for text that a person may have to recognise.
 *
 * @param min at least so many code points; with 1 or more something other than white space has to be there
 * @param max at most so many code points
 * @returns what is wrong with the text, in words that never repeat it, or null
 */
export function plainTextProblem(text: string, min: number, max: number): string | null {
  // No code point has more than two units, so a longer text need not be looked through.
  if (text.length > 2 * max) return `is longer than ${max} characters`;
  if (!text.isWellFormed()) return "holds half a character";
  const length = codePoints(text);
  if (length > max) return `is longer than ${max} characters`;
  if (length < min) return min === 1 ? "is empty" : `is shorter than ${min} characters`;
  if (hasUnseen(text)) return "holds a character that cannot be seen";
  return min > 0 && !/\S/u.test(text) ? "is blank" : null;
}

/**
 * A schema for text that a person may have to recognise.
 *
 * @param min at least so many code points
 * @param max at most so many code points
 */
export function plainText(min: number, max: number) {
  return z.string().check((payload) => {
    const message = plainTextProblem(payload.value, min, max);
    if (message !== null) payload.issues.push({ code: "custom", input: payload.value, message });
  });
}

/**
 * Text from elsewhere on its way to a terminal: what cannot be seen is spelled as in JSON (`\u202e`; two of them beyond the
 * basic plane), so it moves no cursor, colours nothing, and turns no line around. What stands inside a JSON string stays JSON.
 *
 * @param kept characters that go through as they are: the line breaks and tabs of the program's own output
 */
export function escapeForTerminal(text: string, kept = ""): string {
  if (text.search(UNSEEN) === -1) return text;
  const emoji = text.isWellFormed() ? [...text.matchAll(EMOJI)] : [];
  const insideEmoji = (at: number): boolean =>
    emoji.some(({ index, 0: sign }) => at >= index && at < index + sign.length);
  return text.replace(UNSEEN, (char, at: number) => (kept.includes(char) || insideEmoji(at) ? char : escaped(char)));
}

function escaped(char: string): string {
  return Array.from({ length: char.length }, (_, at) => `\\u${char.charCodeAt(at).toString(16).padStart(4, "0")}`).join(
    "",
  );
}

/** Visible ASCII with spaces inside, which a header can carry as it is. */
const PLAIN_HEADER_VALUE = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/;
/** RFC 8187 §3.2.1 `ext-value`, of the one charset that it requires. */
const EXTENDED_VALUE = /^utf-8'[A-Za-z0-9-]*'((?:[A-Za-z0-9!#$&+.^_`|~-]|%[0-9A-Fa-f]{2})*)$/i;
const EXTENDED_PREFIX = /^utf-8'/i;

/**
 * Reads text that stands in a header: visible ASCII, or RFC 8187 (`UTF-8''caf%C3%A9`).
 *
 * @param value as `Headers` gives it, without the white space around it
 * @returns the text, or what is wrong with it. Bytes above 0x7F are refused: how they were read decides what they mean, and a
 *          header that is not UTF-8 has lost them already
 */
export function decodeHeaderText(value: string): Result<string, string> {
  if (!PLAIN_HEADER_VALUE.test(value)) {
    return err("must be visible ASCII, or UTF-8''… with percent-encoding (RFC 8187)");
  }
  if (!EXTENDED_PREFIX.test(value)) return ok(value);
  const encoded = EXTENDED_VALUE.exec(value)?.[1];
  if (encoded === undefined) return err("begins like RFC 8187 and is none");
  try {
    return ok(decodeURIComponent(encoded));
  } catch (error) {
    if (error instanceof URIError) return err("is no UTF-8 behind its percent-encoding (RFC 8187)");
    throw error;
  }
}

/**
 * The inverse of {@link decodeHeaderText}: as it is where that is possible, otherwise by RFC 8187.
 *
 * @param text well-formed Unicode
 * @throws URIError for half a surrogate pair
 */
export function encodeHeaderText(text: string): string {
  if (PLAIN_HEADER_VALUE.test(text) && !EXTENDED_PREFIX.test(text)) return text;
  // Those that RFC 8187 does not take and `encodeURIComponent` leaves.
  const encoded = encodeURIComponent(text).replace(
    /['()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `UTF-8''${encoded}`;
}
