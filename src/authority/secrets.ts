/**
 * The secrets that this system hands out: a prefix, so that leak scanners can find them, and 32 random bytes in base64url. Each
 * is shown once, stored as its SHA-256 alone, and compared in constant time. Contract §2.
 */
import { decodeBase64Url, encodeBase64Url } from "../wire/base64url.ts";
import { sha256Base64Url } from "../wire/proof.ts";

/** Every prefix, by what the secret is. */
export const SECRET_PREFIXES = {
  device: "spd_",
  shared: "sps_",
  apiKey: "spk_",
  pairTicket: "spp_",
  relayTicket: "spw_",
  access: "spa_",
  refresh: "spr_",
  invite: "spi_",
  operator: "spo_",
  groupInvite: "spg_",
} as const;

/** Entropy of every secret. */
export const SECRET_BYTES = 32;

/** @returns a secret nobody has seen: `<prefix><43 characters>` */
export function newSecret(prefix: (typeof SECRET_PREFIXES)[keyof typeof SECRET_PREFIXES]): string {
  return prefix + encodeBase64Url(crypto.getRandomValues(new Uint8Array(SECRET_BYTES)));
}

/** @returns whether a text has the form of such a secret; whether it exists is another question */
export function hasSecretForm(text: string, prefix: string): boolean {
  // 43 characters carry 32 bytes; what is longer is not decoded.
  if (text.length !== prefix.length + 43 || !text.startsWith(prefix)) return false;
  return decodeBase64Url(text.slice(prefix.length))?.length === SECRET_BYTES;
}

/** @returns what is stored of a secret: base64url of the SHA-256 of the whole text, prefix included; 43 characters */
export function hashSecret(secret: string): Promise<string> {
  return sha256Base64Url(new TextEncoder().encode(secret));
}

/** @returns whether two hashes in base64url are the same, in constant time */
export function equalHashes(left: string, right: string): boolean {
  const encoder = new TextEncoder();
  const [a, b] = [encoder.encode(left), encoder.encode(right)];
  return a.length === b.length && crypto.subtle.timingSafeEqual(a, b);
}
