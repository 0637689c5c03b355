/** Ids of deliveries. */
import { newUlid } from "../../wire/ulid.ts";

const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/**
 * Ids of deliveries: ULIDs that only rise within one sender's gate, so that their order is the order of sending.
 *
 * @param last the highest id that the gate has given so far, or null
 */
export function createDeliveryIds(last: string | null): (nowMs: number) => string {
  let previous = last ?? "";
  return (nowMs) => {
    const fresh = newUlid(nowMs);
    previous = fresh > previous ? fresh : successor(previous);
    return previous;
  };
}

/** The next text in the order of Crockford's base 32. */
function successor(id: string): string {
  for (let index = id.length - 1; index >= 0; index--) {
    const value = ALPHABET.indexOf(id.charAt(index));
    if (value < ALPHABET.length - 1) {
      return id.slice(0, index) + ALPHABET.charAt(value + 1) + "0".repeat(id.length - 1 - index);
    }
  }
  throw new RangeError("the ids of this gate are exhausted");
}
