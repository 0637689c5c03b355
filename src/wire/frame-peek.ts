/** The first members of a frame, read without parsing it: what a frame says it is, before it is known to be worth the work. */
import { skipSpace, skipString, skipValue } from "./json-text.ts";

/** Characters of a frame that are looked at. */
export const PEEK_MAX = 4_096;

/** What the start of a frame says; null for a member that is not found there as a plain text, or, for `id`, a whole number. */
export type FramePeek = { type: string | null; id: string | number | null; method: string | null };

const QUOTE = 0x22;
const COLON = 0x3a;
const COMMA = 0x2c;
const OPEN_BRACE = 0x7b;
const WHOLE_NUMBER = /-?\d{1,15}/y;

/**
 * Reads `type`, `id` and `method` from the start of a frame's text, at most 4,096 characters of it. The text need not be JSON:
 * what is found is a hint, and the frame decides once it is parsed.
 *
 * @param text a text message from a client
 */
export function peekFrame(text: string): FramePeek {
  const head = text.length > PEEK_MAX ? text.slice(0, PEEK_MAX) : text;
  const found: FramePeek = { type: null, id: null, method: null };
  let at = skipSpace(head, 0);
  if (head.charCodeAt(at) !== OPEN_BRACE) return found;
  at = skipSpace(head, at + 1);
  while (head.charCodeAt(at) === QUOTE) {
    const nameEnd = skipString(head, at);
    const name = head.slice(at + 1, nameEnd - 1);
    const colon = skipSpace(head, nameEnd);
    if (head.charCodeAt(colon) !== COLON) return found;
    const start = skipSpace(head, colon + 1);
    const end = skipValue(head, start);
    // Cut off in the middle, or the end of the text: neither is a member that is there as a whole.
    if (end >= head.length) return found;
    keep(found, name, head, start, end);
    at = skipSpace(head, end);
    if (head.charCodeAt(at) !== COMMA) return found;
    at = skipSpace(head, at + 1);
  }
  return found;
}

/** The first of its name counts. */
function keep(found: FramePeek, name: string, head: string, start: number, end: number): void {
  if (name !== "type" && name !== "id" && name !== "method") return;
  if (found[name] !== null) return;
  const text = head.charCodeAt(start) === QUOTE ? head.slice(start + 1, end - 1) : null;
  if (text !== null && !text.includes("\\")) found[name] = text;
  if (text !== null || name !== "id") return;
  WHOLE_NUMBER.lastIndex = start;
  const digits = WHOLE_NUMBER.exec(head)?.[0];
  if (digits !== undefined && start + digits.length === end) found.id = Number(digits);
}
