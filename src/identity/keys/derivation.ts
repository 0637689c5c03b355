/**
 * The registry's private keys. None is stored: each follows from one secret and its kid by HKDF-SHA-256 (RFC 5869), so
 * that a copy of the database signs nothing.
 */
import type { Registry } from "../registry.ts";

/** A derived key pair: `privateKey` signs and cannot be exported, `x` is base64url of the public half. */
export type DerivedKey = { readonly kid: string; readonly x: string; readonly privateKey: CryptoKey };

const CACHE_MAX = 16;
/** RFC 8410 §7: what stands before the seed of an Ed25519 private key in PKCS #8. */
const PKCS8_PREFIX = new Uint8Array([48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32]);
const HKDF_SALT = new TextEncoder().encode("sallyport/registry/signing-key/v1");

// By kid and secret. Values alone, least recently used out first.
const cache = new Map<string, DerivedKey>();

/**
 * @param registry its secret
 * @param kid the name of the key
 * @returns the key pair; the same for the same secret and kid, in every isolate
 */
export async function deriveKey(registry: Registry, kid: string): Promise<DerivedKey> {
  const cacheKey = JSON.stringify([kid, registry.signingSecret]);
  const cached = cache.get(cacheKey);
  if (cached !== undefined) {
    cache.delete(cacheKey);
    cache.set(cacheKey, cached);
    return cached;
  }
  const derived = await derive(registry.signingSecret, kid);
  cache.set(cacheKey, derived);
  for (const oldest of cache.keys()) {
    if (cache.size <= CACHE_MAX) break;
    cache.delete(oldest);
  }
  return derived;
}

async function derive(secret: string, kid: string): Promise<DerivedKey> {
  const encoder = new TextEncoder();
  const material = await crypto.subtle.importKey("raw", encoder.encode(secret), "HKDF", false, ["deriveBits"]);
  const hkdf = { name: "HKDF", hash: "SHA-256", salt: HKDF_SALT, info: encoder.encode(kid) };
  const seed = new Uint8Array(await crypto.subtle.deriveBits(hkdf, material, 256));
  const pkcs8 = new Uint8Array(PKCS8_PREFIX.length + seed.length);
  pkcs8.set(PKCS8_PREFIX);
  pkcs8.set(seed, PKCS8_PREFIX.length);
  // Web Crypto gives the public half away only by exporting; the key that is kept cannot be exported.
  const exportable = await crypto.subtle.importKey("pkcs8", pkcs8, { name: "Ed25519" }, true, ["sign"]);
  const jwk = await crypto.subtle.exportKey("jwk", exportable);
  if (!("x" in jwk) || typeof jwk.x !== "string") throw new TypeError("the platform gave no public half");
  const privateKey = await crypto.subtle.importKey("pkcs8", pkcs8, { name: "Ed25519" }, false, ["sign"]);
  return { kid, x: jwk.x, privateKey };
}
