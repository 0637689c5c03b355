/** Ids of deliveries. */
import { newUlid } from "../../wire/ulid.ts";

const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const RADIX = BigInt(ALPHABET.length);
const LENGTH = 26;
const END = RADIX ** BigInt(LENGTH);

/**
 * Ids of deliveries: ULIDs that only rise within one sender's gate, so that their order is the order of sending. None can be
 * guessed from the one before: where the time alone does not make one higher, it is higher by 64 random bits.
 *
 * @param last the highest id that the gate has given so far, or null
 */
export function createDeliveryIds(last: string | null): (nowMs: number) => string {
  let previous = last ?? "";
  return (nowMs) => {
    const fresh = newUlid(nowMs);
    previous = fresh > previous ? fresh : raised(previous, randomStep());
    return previous;
  };
}

/** From 1 up to 2^64. */
function randomStep(): bigint {
  return (crypto.getRandomValues(new BigUint64Array(1))[0] ?? 0n) + 1n;
}

/** The id that is `step` higher, in Crockford's base 32. */
function raised(id: string, step: bigint): string {
  let value = step;
  let place = 1n;
  for (let index = LENGTH - 1; index >= 0; index--) {
    value += BigInt(ALPHABET.indexOf(id.charAt(index))) * place;
    place *= RADIX;
  }
  if (value >= END) throw new RangeError("the ids of this gate are exhausted");
  let text = "";
  for (; text.length < LENGTH; value /= RADIX) text = ALPHABET.charAt(Number(value % RADIX)) + text;
  return text;
}
