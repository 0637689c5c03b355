/**
 * Ed25519 keys of an agent or a device.
 *
 * @example
 * ```ts
 * const keys = await generateKeys();
 * const stored = JSON.stringify(await exportKeys(keys)); // secret: keep it where only you can read
 * const again = await importKeys(JSON.parse(stored));
 * console.log(again.publicKey === keys.publicKey); // true
 * ```
 */
import { decodeBase64Url } from "../../wire/base64url.ts";
import { ED25519_PUBLIC_KEY_BYTES, sha256Base64Url } from "../../wire/proof.ts";
import { InvalidKeyError } from "./errors.ts";

/** A key pair in use: the private half signs and does not leave the platform unless it was made extractable. */
export type Keys = {
  readonly privateKey: CryptoKey;
  /** base64url of 32 bytes, as `cnf.jwk.x` and registration want it. */
  readonly publicKey: string;
};

/** An Ed25519 key pair as a JWK (RFC 8037 §2). `d` is secret. */
export type KeysJwk = { readonly kty: "OKP"; readonly crv: "Ed25519"; readonly x: string; readonly d: string };

/**
 * @param options `extractable: false` keeps the private key inside the platform, e.g. for a browser's IndexedDB
 * @returns a fresh key pair
 */
export async function generateKeys(options: { readonly extractable?: boolean } = {}): Promise<Keys> {
  const pair = await crypto.subtle.generateKey({ name: "Ed25519" }, options.extractable ?? true, ["sign", "verify"]);
  if (!("privateKey" in pair)) throw new InvalidKeyError("the platform made no Ed25519 key pair");
  const jwk = await crypto.subtle.exportKey("jwk", pair.publicKey);
  if (jwk instanceof ArrayBuffer || jwk.x === undefined)
    throw new InvalidKeyError("the platform exported no public key");
  return { privateKey: pair.privateKey, publicKey: jwk.x };
}

/**
 * @returns the key pair as a JWK, to be stored where only its owner can read it
 * @throws InvalidKeyError when the private key was made to stay inside the platform
 */
export async function exportKeys(keys: Keys): Promise<KeysJwk> {
  if (!keys.privateKey.extractable) throw new InvalidKeyError("the private key is not extractable");
  const jwk = await crypto.subtle.exportKey("jwk", keys.privateKey);
  if (jwk instanceof ArrayBuffer || jwk.d === undefined)
    throw new InvalidKeyError("the platform exported no private key");
  return { kty: "OKP", crv: "Ed25519", x: keys.publicKey, d: jwk.d };
}

/**
 * @param jwk what {@link exportKeys} gave, e.g. out of a file
 * @throws InvalidKeyError when it is no Ed25519 key pair, or its halves do not belong together
 */
export async function importKeys(jwk: unknown, options: { readonly extractable?: boolean } = {}): Promise<Keys> {
  const { kty, crv, x, d } = (typeof jwk === "object" && jwk !== null ? jwk : {}) as Record<string, unknown>;
  if (kty !== "OKP" || crv !== "Ed25519" || typeof x !== "string" || typeof d !== "string") {
    throw new InvalidKeyError("an Ed25519 key pair as JWK has kty OKP, crv Ed25519, x and d");
  }
  if (decodeBase64Url(x)?.length !== ED25519_PUBLIC_KEY_BYTES)
    throw new InvalidKeyError("x is not base64url of 32 bytes");
  try {
    const privateKey = await crypto.subtle.importKey(
      "jwk",
      { kty, crv, x, d },
      { name: "Ed25519" },
      options.extractable ?? true,
      ["sign"],
    );
    const publicKey = await crypto.subtle.importKey("jwk", { kty, crv, x }, { name: "Ed25519" }, true, ["verify"]);
    // Not every platform compares the halves, and a wrong `x` would only show as refused proofs.
    const probe = new TextEncoder().encode("sallyport");
    const signature = await crypto.subtle.sign("Ed25519", privateKey, probe);
    if (!(await crypto.subtle.verify("Ed25519", publicKey, signature, probe))) {
      throw new InvalidKeyError("x and d do not belong together");
    }
    return { privateKey, publicKey: x };
  } catch (error) {
    if (error instanceof InvalidKeyError) throw error;
    throw new InvalidKeyError("the platform refuses the key", { cause: error });
  }
}

/**
 * @param publicKey base64url of 32 bytes
 * @returns the device id that belongs to the key (contract §5): the first 22 characters of b64url(SHA-256(key))
 */
export async function deviceIdOf(publicKey: string): Promise<string> {
  const bytes = decodeBase64Url(publicKey);
  if (bytes?.length !== ED25519_PUBLIC_KEY_BYTES) throw new InvalidKeyError("a public key is base64url of 32 bytes");
  return (await sha256Base64Url(bytes)).slice(0, 22);
}
