/**
 * Which 32 bytes may be somebody's Ed25519 public key. Web Crypto imports points of small order, and with one of those
 * as key a fixed signature verifies over (almost) any text; so they are refused wherever a key is registered or named.
 */

const POINT_BYTES = 32;

/** The y coordinates of the eight points whose order divides eight, little-endian hex, sign bit cleared (RFC 7748 §7, RFC 8032 §8.9). */
const SMALL_ORDER_Y = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]);

/**
 * @param x a raw Ed25519 public key (RFC 8032 §5.1.5)
 * @returns false for another length than 32 bytes, a y coordinate of 2^255 − 19 or more, and a point of small order
 */
export function isStrongEd25519Point(x: Uint8Array): boolean {
  if (x.length !== POINT_BYTES) return false;
  const y = Uint8Array.from(x);
  y[POINT_BYTES - 1] = (y[POINT_BYTES - 1] ?? 0) & 0x7f;
  return isBelowFieldPrime(y) && !SMALL_ORDER_Y.has(hex(y));
}

/** The prime is 2^255 − 19: everything up to its lowest byte, 0xed, is ones. */
function isBelowFieldPrime(y: Uint8Array): boolean {
  if (y[POINT_BYTES - 1] !== 0x7f) return true;
  for (let index = POINT_BYTES - 2; index > 0; index -= 1) if (y[index] !== 0xff) return true;
  return (y[0] ?? 0) < 0xed;
}

function hex(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}
