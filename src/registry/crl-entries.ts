/**
 * Walks the entries of a revocation list over its bytes and builds nothing: 100 000 entries within some ten
 * milliseconds, where a parser makes 300 000 objects and texts first. It knows the one spelling that programs write
 * (no white space, no escapes but in reasons, no members but the four) and gives up on any other, which a full parser then judges.
 */

/** Takes one entry: where the texts of its `jti` and its `agentDid` stand between their quotes. */
export type EntryReader = (jtiStart: number, jtiEnd: number, didStart: number, didEnd: number) => void;

/** Not the usual spelling, or malformed: a full parser must say which. */
export const UNUSUAL = -1;

const QUOTE = 0x22;
const ZERO = 0x30;
const BACKSLASH = 0x5c;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const COMMA = 0x2c;

const asciiEncoder = new TextEncoder();
const JTI = asciiEncoder.encode('"jti":"');
const AGENT_DID = asciiEncoder.encode('"agentDid":"did:');
const REASON = asciiEncoder.encode('"reason":"');
const REVOKED_AT = asciiEncoder.encode('"revokedAt":');
const DID_LENGTH = "did:".length;
const DID_START = asciiEncoder.encode("did:cdi:");
const AGENT = asciiEncoder.encode(":agent:");
const DOT = 0x2e;
/** The bounds of a full parser's schema and of `wire/did`. */
const JTI_MAX_LENGTH = 256;
/** Every whole number of so many digits is one that JavaScript holds exactly. */
const EXACT_DIGITS = 15;
const AUTHORITY_MAX_LENGTH = 253;
const LABEL_MAX_LENGTH = 63;
const ULID_LENGTH = 26;
const ULID_LETTER = 1;
const LABEL_LETTER = 1;
const HYPHEN = 2;
const LABEL_END = 3;
const LETTER_KIND = kinds("0123456789ABCDEFGHJKMNPQRSTVWXYZ", ULID_LETTER);
const HOST_KIND = kinds("abcdefghijklmnopqrstuvwxyz0123456789", LABEL_LETTER);
HOST_KIND[0x2d] = HYPHEN;
HOST_KIND[DOT] = LABEL_END;
/** The longest escape of JSON. */
const ESCAPE_LENGTH = "\\uXXXX".length;

/**
 * @param bytes JSON
 * @param start where the array's `[` stands
 * @returns the position behind the array's `]`, or {@link UNUSUAL}
 */
export function walkEntries(bytes: Uint8Array, start: number, read: EntryReader): number {
  if (byteAt(bytes, start) !== OPEN_ARRAY) return UNUSUAL;
  let at = start + 1;
  if (byteAt(bytes, at) === CLOSE_ARRAY) return at + 1;
  for (;;) {
    at = walkEntry(bytes, at, read);
    if (at === UNUSUAL) return UNUSUAL;
    const next = byteAt(bytes, at);
    at += 1;
    if (next === CLOSE_ARRAY) return at;
    if (next !== COMMA) return UNUSUAL;
  }
}

function walkEntry(bytes: Uint8Array, start: number, read: EntryReader): number {
  let jtiStart = 0;
  let jtiEnd = 0;
  let didStart = 0;
  let didEnd = 0;
  let hasRevokedAt = false;
  if (byteAt(bytes, start) !== OPEN_OBJECT) return UNUSUAL;
  let at = start + 1;
  for (;;) {
    if (jtiStart === 0 && standsAt(bytes, at, JTI)) {
      jtiStart = at + JTI.length;
      jtiEnd = stringEnd(bytes, jtiStart);
      at = jtiEnd + 1;
    } else if (didStart === 0 && standsAt(bytes, at, AGENT_DID)) {
      didStart = at + AGENT_DID.length - DID_LENGTH;
      didEnd = stringEnd(bytes, didStart);
      at = didEnd + 1;
    } else if (!hasRevokedAt && standsAt(bytes, at, REVOKED_AT)) {
      hasRevokedAt = true;
      const digits = at + REVOKED_AT.length;
      at = behindDigits(bytes, digits);
      const length = at - digits;
      const isPlain = length === 1 || byteAt(bytes, digits) !== ZERO;
      if (length === 0 || length > EXACT_DIGITS || !isPlain) return UNUSUAL;
    } else if (standsAt(bytes, at, REASON)) {
      at = textEnd(bytes, at + REASON.length) + 1;
    } else {
      return UNUSUAL;
    }
    if (at === UNUSUAL + 1) return UNUSUAL;
    const next = byteAt(bytes, at);
    at += 1;
    if (next === CLOSE_OBJECT) break;
    if (next !== COMMA) return UNUSUAL;
  }
  if (jtiEnd <= jtiStart || jtiEnd - jtiStart > JTI_MAX_LENGTH || !hasRevokedAt) return UNUSUAL;
  if (!isAgentDid(bytes, didStart, didEnd)) return UNUSUAL;
  read(jtiStart, jtiEnd, didStart, didEnd);
  return at;
}

/** Whether these bytes are an agent DID (contract §1), as `wire/did` reads it from a text. */
function isAgentDid(bytes: Uint8Array, start: number, end: number): boolean {
  const authority = start + DID_START.length;
  const ulid = end - ULID_LENGTH;
  const authorityEnd = ulid - AGENT.length;
  const length = authorityEnd - authority;
  if (length < 3 || length > AUTHORITY_MAX_LENGTH) return false;
  if (!standsAt(bytes, start, DID_START) || !standsAt(bytes, authorityEnd, AGENT)) return false;
  for (let at = ulid; at < end; at += 1) if (LETTER_KIND[byteAt(bytes, at)] !== ULID_LETTER) return false;
  let labels = 1;
  let labelStart = authority;
  for (let at = authority; at < authorityEnd; at += 1) {
    const kind = HOST_KIND[byteAt(bytes, at)];
    if (kind === 0) return false;
    // Hyphens stand inside a label alone.
    if (kind === HYPHEN && (at === labelStart || at + 1 === authorityEnd || byteAt(bytes, at + 1) === DOT))
      return false;
    if (kind !== LABEL_END) continue;
    if (at === labelStart || at - labelStart > LABEL_MAX_LENGTH) return false;
    labels += 1;
    labelStart = at + 1;
  }
  return labels > 1 && labelStart < authorityEnd && authorityEnd - labelStart <= LABEL_MAX_LENGTH;
}

/** Where the closing quote of a string of visible ASCII without escapes stands, or {@link UNUSUAL}. */
function stringEnd(bytes: Uint8Array, start: number): number {
  const { length } = bytes;
  for (let at = start; at < length; at += 1) {
    const byte = byteAt(bytes, at);
    if (byte === QUOTE) return at;
    if (byte === BACKSLASH || byte < 0x20 || byte >= 0x7f) return UNUSUAL;
  }
  return UNUSUAL;
}

/** The same for a string that nobody reads: escapes are skipped, but must be such. */
function textEnd(bytes: Uint8Array, start: number): number {
  const { length } = bytes;
  for (let at = start; at < length; at += 1) {
    const byte = byteAt(bytes, at);
    if (byte === QUOTE) return at;
    if (byte < 0x20) return UNUSUAL;
    if (byte === BACKSLASH) {
      const escape = /^\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})/.exec(
        String.fromCharCode(...bytes.subarray(at, at + ESCAPE_LENGTH)),
      );
      if (escape === null) return UNUSUAL;
      at += escape[0].length - 1;
    }
  }
  return UNUSUAL;
}

function behindDigits(bytes: Uint8Array, start: number): number {
  let at = start;
  for (;;) {
    const byte = byteAt(bytes, at);
    if (!(byte >= 0x30 && byte <= 0x39)) return at;
    at += 1;
  }
}

/** What kind of letter each byte is; 0 is none. */
function kinds(letters: string, kind: number): Uint8Array {
  const table = new Uint8Array(256);
  for (const byte of asciiEncoder.encode(letters)) table[byte] = kind;
  return table;
}

function standsAt(bytes: Uint8Array, at: number, text: Uint8Array): boolean {
  for (let index = 0; index < text.length; index += 1) {
    if (byteAt(bytes, at + index) !== byteAt(text, index)) return false;
  }
  return true;
}

/** Behind the end there is `undefined`, which equals no byte and lies in no range. */
function byteAt(bytes: Uint8Array, at: number): number {
  return bytes[at] as number;
}
