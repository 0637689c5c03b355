/**
 * A set of token ids that is cheap to fill and to keep: 100 000 ULIDs take some ten milliseconds and three megabytes.
 * A `Set` of texts takes longer to fill than the whole revocation list may take to parse.
 */
import { isUlid } from "../wire/ulid.ts";

export type JtiSet = {
  add(jti: string): void;
  /** Adds the id whose text stands at these bytes. */
  addBytes(bytes: Uint8Array, start: number, end: number): void;
  has(jti: string): boolean;
  size(): number;
};

const ULID_LENGTH = 26;
/** A ULID's 130 bits as 25 + 25 + 25 + 25 + 30: five, and last six, characters of five bits a word. */
const WORDS = 5;
const EMPTY = -1;
const MIN_CAPACITY = 1_024;

/**
 * ULIDs are packed one after the other and found through an open-addressing table (linear probing, at most half full);
 * whatever else a registry may use as an id goes into an ordinary `Set`.
 *
 * @param expected how many ids there may be; more fit as well
 */
export function createJtiSet(expected = 0): JtiSet {
  let capacity = MIN_CAPACITY;
  while (capacity < expected * 2) capacity *= 2;
  let table = new Int32Array(capacity).fill(EMPTY);
  let records = new Int32Array((capacity / 2) * WORDS);
  let count = 0;
  const others = new Set<string>();
  // The id at hand, packed: one buffer for all, since nothing here is asynchronous.
  const packed = new Int32Array(WORDS);
  const ascii = new Uint8Array(ULID_LENGTH);

  /** The place in the table where the packed id stands, or the free one where it would. */
  function placeOf(source: Int32Array, offset: number): number {
    let place = hashOf(source, offset) & (capacity - 1);
    for (;;) {
      const record = wordAt(table, place);
      if (record === EMPTY || isSame(records, record * WORDS, source, offset)) return place;
      place = (place + 1) & (capacity - 1);
    }
  }

  function addPacked(): void {
    const place = placeOf(packed, 0);
    if (wordAt(table, place) !== EMPTY) return;
    for (let word = 0; word < WORDS; word += 1) records[count * WORDS + word] = wordAt(packed, word);
    table[place] = count;
    count += 1;
    if (count * 2 >= capacity) grow();
  }

  function grow(): void {
    capacity *= 2;
    const grown = new Int32Array((capacity / 2) * WORDS);
    grown.set(records);
    records = grown;
    table = new Int32Array(capacity).fill(EMPTY);
    for (let record = 0; record < count; record += 1) table[placeOf(records, record * WORDS)] = record;
  }

  function packText(ulid: string): void {
    for (let index = 0; index < ULID_LENGTH; index += 1) ascii[index] = ulid.charCodeAt(index);
    pack(ascii, 0, packed);
  }

  function add(jti: string): void {
    if (!isUlid(jti)) {
      others.add(jti);
      return;
    }
    packText(jti);
    addPacked();
  }

  return {
    add,

    addBytes(bytes, start, end) {
      if (end - start === ULID_LENGTH && pack(bytes, start, packed)) addPacked();
      else add(new TextDecoder().decode(bytes.subarray(start, end)));
    },

    has(jti) {
      if (!isUlid(jti)) return others.has(jti);
      packText(jti);
      return wordAt(table, placeOf(packed, 0)) !== EMPTY;
    },

    size() {
      return count + others.size;
    },
  };
}

const INVALID = 0x80;
/** Crockford's base 32, upper case alone (contract §1); a foreign character has a bit above the five. */
const QUINTETS = new Uint8Array(256).fill(INVALID);
const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
for (let quintet = 0; quintet < ALPHABET.length; quintet += 1) QUINTETS[ALPHABET.charCodeAt(quintet)] = quintet;

/** Packs the 26 characters at `start`; false when one of them is not a ULID's. */
function pack(bytes: Uint8Array, start: number, packed: Int32Array): boolean {
  let seen = 0;
  let at = start;
  for (let word = 0; word < WORDS; word += 1) {
    const end = word === WORDS - 1 ? start + ULID_LENGTH : at + WORDS;
    let value = 0;
    for (; at < end; at += 1) {
      const quintet = byteAt(QUINTETS, byteAt(bytes, at));
      seen |= quintet;
      value = (value << 5) | quintet;
    }
    packed[word] = value;
  }
  return seen < INVALID;
}

/** Nobody picks ids so that they collide: the registry signs them. */
function hashOf(source: Int32Array, offset: number): number {
  let hash = 0;
  for (let word = 0; word < WORDS; word += 1) {
    hash = Math.imul(hash ^ wordAt(source, offset + word), 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return hash;
}

function isSame(left: Int32Array, leftOffset: number, right: Int32Array, rightOffset: number): boolean {
  for (let word = WORDS - 1; word >= 0; word -= 1) {
    if (wordAt(left, leftOffset + word) !== wordAt(right, rightOffset + word)) return false;
  }
  return true;
}

function byteAt(bytes: Uint8Array, at: number): number {
  return bytes[at] as number;
}

function wordAt(words: Int32Array, at: number): number {
  return words[at] as number;
}
