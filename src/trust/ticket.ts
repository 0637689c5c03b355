/** The pairing ticket: `spp_` and 32 random bytes. Whoever holds it may confirm once; only its SHA-256 is stored. */
import { decodeBase64Url, encodeBase64Url } from "../wire/base64url.ts";
import { sha256Base64Url } from "../wire/proof.ts";

/** Lets leak scanners find a ticket. */
export const PAIR_TICKET_PREFIX = "spp_";
/** Contract §3: `ttlSeconds` of `/pair/start`. */
export const PAIR_TICKET_TTL_SECONDS = { min: 1, max: 900, default: 300 } as const;

const SECRET_BYTES = 32;

/** A ticket that has the form of one; whether it exists is another question. */
export type PairTicket = string & { readonly __pairTicket: true };

export function newPairTicket(): PairTicket {
  return (PAIR_TICKET_PREFIX + encodeBase64Url(crypto.getRandomValues(new Uint8Array(SECRET_BYTES)))) as PairTicket;
}

/** @returns the ticket, or null when the text cannot be one */
export function parsePairTicket(text: string): PairTicket | null {
  if (text.length > 64 || !text.startsWith(PAIR_TICKET_PREFIX)) return null;
  return decodeBase64Url(text.slice(PAIR_TICKET_PREFIX.length))?.length === SECRET_BYTES ? (text as PairTicket) : null;
}

/** @returns what is stored of a ticket: base64url of its SHA-256 */
export function hashPairTicket(ticket: PairTicket): Promise<string> {
  return sha256Base64Url(new TextEncoder().encode(ticket));
}
