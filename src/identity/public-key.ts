/** Which 32 bytes are an Ed25519 public key that may stand for somebody. */
import { decodeBase64Url } from "../wire/base64url.ts";
import { isStrongEd25519Point } from "../wire/ed25519-point.ts";
import { err, ok, type Result } from "../wire/result.ts";

/** Field prime and curve constant, RFC 8032 §5.1. */
const P = 2n ** 255n - 19n;
const D = 37095705934669439343138083508754565189542113879843219016388785533085940283555n;

/**
 * @param text base64url of the key
 * @returns the 32 bytes, or what is wrong: another form or length, a point of small order, another encoding than the
 *          one of its point, or no point of the curve (RFC 8032 §5.1.3), for which nobody can have the private half
 */
export function parsePublicKey(text: string): Result<Uint8Array<ArrayBuffer>, string> {
  const bytes = text.length > 64 ? null : decodeBase64Url(text);
  if (bytes === null || bytes.length !== 32) return err("must be 32 bytes in base64url without padding");
  if (!isStrongEd25519Point(bytes) || !isOnCurve(bytes)) return err("is no usable Ed25519 public key");
  return ok(bytes);
}

/** Whether x² = (y² − 1) / (d y² + 1) has a root. x = 0 needs no case: its two points are of small order. */
function isOnCurve(bytes: Uint8Array): boolean {
  let encoded = 0n;
  for (let index = bytes.length - 1; index >= 0; index -= 1) encoded = (encoded << 8n) | BigInt(bytes[index] ?? 0);
  const y = BigInt.asUintN(255, encoded);
  const ySquared = (y * y) % P;
  const numerator = ySquared - 1n + P;
  const denominator = D * ySquared + 1n;
  // Euler's criterion for the product, which is a square exactly when the quotient is.
  return power((numerator * denominator) % P, (P - 1n) / 2n) === 1n;
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  let square = base;
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if ((rest & 1n) === 1n) result = (result * square) % P;
    square = (square * square) % P;
  }
  return result;
}
