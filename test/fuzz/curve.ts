/** Ed25519 in plain whole numbers, RFC 8032 §5.1: slow and independent, to judge those that are fast. */
import { createHash } from "node:crypto";

export const P = 2n ** 255n - 19n;
export const L = 2n ** 252n + 27_742_317_777_372_353_535_851_937_790_883_648_493n;
const D = mod(-121_665n * power(121_666n, P - 2n));
const ROOT = power(2n, (P - 1n) / 4n);

export type Point = readonly [x: bigint, y: bigint];
const NEUTRAL: Point = [0n, 1n];

function mod(value: bigint, by = P): bigint {
  const rest = value % by;
  return rest < 0n ? rest + by : rest;
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  let square = mod(base);
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if ((rest & 1n) === 1n) result = mod(result * square);
    square = mod(square * square);
  }
  return result;
}

export function fromLittleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

export function toLittleEndian(value: bigint, length = 32): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => Number((value >> BigInt(8 * index)) & 255n));
}

/** Extended coordinates, RFC 8032 §5.1.4: no inversion until the end. */
type Extended = readonly [x: bigint, y: bigint, z: bigint, t: bigint];
const extended = ([x, y]: Point): Extended => [x, y, 1n, mod(x * y)];

function affine([x, y, z]: Extended): Point {
  const inverse = power(z, P - 2n);
  return [mod(x * inverse), mod(y * inverse)];
}

function sum([x1, y1, z1, t1]: Extended, [x2, y2, z2, t2]: Extended): Extended {
  const [a, b, c, d] = [
    mod((y1 - x1) * (y2 - x2)),
    mod((y1 + x1) * (y2 + x2)),
    mod(2n * D * t1 * t2),
    mod(2n * z1 * z2),
  ];
  const [e, f, g, h] = [b - a, d - c, d + c, b + a];
  return [mod(e * f), mod(g * h), mod(f * g), mod(e * h)];
}

export function add(one: Point, other: Point): Point {
  return affine(sum(extended(one), extended(other)));
}

export function times(factor: bigint, point: Point): Point {
  let result = extended(NEUTRAL);
  let doubled = extended(point);
  for (let rest = factor; rest > 0n; rest >>= 1n) {
    if ((rest & 1n) === 1n) result = sum(result, doubled);
    doubled = sum(doubled, doubled);
  }
  return affine(result);
}

/** @returns the point, or null for bytes that are none; `y` at or above the prime is taken modulo the prime, as lax decoders do */
export function decodePoint(bytes: Uint8Array): Point | null {
  const sign = (bytes[31] ?? 0) >> 7;
  const masked = Uint8Array.from(bytes);
  masked[31] = (masked[31] ?? 0) & 0x7f;
  const y = mod(fromLittleEndian(masked));
  const [u, v] = [mod(y * y - 1n), mod(D * y * y + 1n)];
  let x = mod(u * power(v, 3n) * power(u * power(v, 7n), (P - 5n) / 8n));
  if (mod(v * x * x) === mod(-u)) x = mod(x * ROOT);
  if (mod(v * x * x) !== u) return null;
  return [Number(x & 1n) === sign ? x : mod(-x), y];
}

export function isCanonical(bytes: Uint8Array): boolean {
  const masked = Uint8Array.from(bytes);
  masked[31] = (masked[31] ?? 0) & 0x7f;
  return fromLittleEndian(masked) < P;
}

export function hasSmallOrder(point: Point): boolean {
  const [x, y] = times(8n, point);
  return x === 0n && y === 1n;
}

const BASE = decodePoint(toLittleEndian(mod(4n * power(5n, P - 2n)))) as Point;

/** Strict and without cofactor: S below L, both points canonical, S·B = R + h·A. */
export function verifyStrictly(publicKey: Uint8Array, text: Uint8Array, signature: Uint8Array): boolean {
  const [r, s] = [signature.subarray(0, 32), fromLittleEndian(signature.subarray(32))];
  const [a, atR] = [decodePoint(publicKey), decodePoint(r)];
  if (s >= L || a === null || atR === null || !isCanonical(r) || !isCanonical(publicKey)) return false;
  const hash = createHash("sha512").update(r).update(publicKey).update(text).digest();
  const [left, right] = [times(s, BASE), add(atR, times(mod(fromLittleEndian(hash), L), a))];
  return left[0] === right[0] && left[1] === right[1];
}
