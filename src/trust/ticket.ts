/** The pairing ticket: whoever holds it may confirm once; only its hash is stored. */
import { hasSecretForm, hashSecret, newSecret, SECRET_PREFIXES } from "../authority/secrets.ts";

/** Contract §3: `ttlSeconds` of `/pair/start`. */
export const PAIR_TICKET_TTL_SECONDS = { min: 1, max: 900, default: 300 } as const;

/** A ticket that has the form of one; whether it exists is another question. */
export type PairTicket = string & { readonly __pairTicket: true };

export function newPairTicket(): PairTicket {
  return newSecret(SECRET_PREFIXES.pairTicket) as PairTicket;
}

/** @returns the ticket, or null when the text cannot be one */
export function parsePairTicket(text: string): PairTicket | null {
  return hasSecretForm(text, SECRET_PREFIXES.pairTicket) ? (text as PairTicket) : null;
}

/** @returns what is stored of a ticket */
export function hashPairTicket(ticket: PairTicket): Promise<string> {
  return hashSecret(ticket);
}
