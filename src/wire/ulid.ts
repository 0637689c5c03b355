/** A ULID: 48 bits of milliseconds and 80 random bits in Crockford's base 32, sortable by time. */
export type Ulid = string & { readonly __ulid: true };

/** Contract §1. */
export const ULID_PATTERN = /^[0-9A-HJKMNP-TV-Z]{26}$/;

const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const TIME_LENGTH = 10;
const RANDOM_BYTES = 16;

/**
 * @param nowMs the time that the ULID carries, in milliseconds since 1970
 * @returns a fresh ULID; two of the same millisecond are in no order
 */
export function newUlid(nowMs: number): Ulid {
  let rest = Math.floor(nowMs);
  let time = "";
  for (let index = 0; index < TIME_LENGTH; index += 1) {
    time = ALPHABET.charAt(rest % 32) + time;
    rest = Math.floor(rest / 32);
  }
  let random = "";
  // A byte a character: 256 is a multiple of 32, so taking five of its bits keeps every letter equally likely.
  for (const byte of crypto.getRandomValues(new Uint8Array(RANDOM_BYTES))) random += ALPHABET.charAt(byte & 31);
  return (time + random) as Ulid;
}

/** @returns whether the text has the form of a ULID (contract §1). */
export function isUlid(text: string): text is Ulid {
  return ULID_PATTERN.test(text);
}
