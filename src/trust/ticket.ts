/**
 * The pairing ticket: whoever holds it may confirm once; only its hash is stored. It has two forms for the same secret, opaque
 * and that of clawdentity; both are read everywhere, and what decides is the row in the database.
 */
import { hasSecretForm, hashSecret, newSecret, SECRET_PREFIXES } from "../authority/secrets.ts";
import { decodeBase64Url, encodeBase64Url } from "../wire/base64url.ts";
import { newUlid } from "../wire/ulid.ts";

/** Contract §3: `ttlSeconds` of `/pair/start`. */
export const PAIR_TICKET_TTL_SECONDS = { min: 1, max: 900, default: 300 } as const;
/** Of either form, with what a chat may put around and into it. */
export const PAIR_TICKET_TEXT_MAX = 4_096;

const CLAWDENTITY_PREFIX = "clwpair1_";

/** A ticket that has the form of one; whether it exists is another question. */
export type PairTicket = string & { readonly __pairTicket: true };

/** @returns a ticket nobody has seen, in the opaque form */
export function newPairTicket(): PairTicket {
  return newSecret(SECRET_PREFIXES.pairTicket) as PairTicket;
}

/**
 * Reads a ticket as people paste it: white space and backticks around and in it are dropped.
 *
 * @returns the ticket in the opaque form, or null when the text cannot be one of either form
 */
export function parsePairTicket(text: string): PairTicket | null {
  if (text.length > PAIR_TICKET_TEXT_MAX) return null;
  const pasted = text.replaceAll(/[\s`]/g, "");
  const opaque = pasted.startsWith(CLAWDENTITY_PREFIX) ? fromClawdentity(pasted) : pasted;
  return opaque !== null && hasSecretForm(opaque, SECRET_PREFIXES.pairTicket) ? (opaque as PairTicket) : null;
}

/** @returns what is stored of a ticket */
export function hashPairTicket(ticket: PairTicket): Promise<string> {
  return hashSecret(ticket);
}

/**
 * The same ticket in clawdentity's form: `clwpair1_` and base64url of `{v, iss, kid, nonce, exp, pkid, sig}`, its secret being the
 * nonce. The signature is by a key made for this ticket alone, as that system has it; nothing here rests on it.
 *
 * @param about `issuer` is the origin of this server; times in milliseconds since 1970
 */
export async function toClawdentityTicket(
  ticket: PairTicket,
  about: { issuer: string; expiresAtMs: number; nowMs: number },
): Promise<string> {
  const pair = (await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"])) as CryptoKeyPair;
  const signed = {
    v: 2,
    iss: about.issuer,
    kid: newUlid(about.nowMs),
    nonce: ticket.slice(SECRET_PREFIXES.pairTicket.length),
    exp: Math.floor(about.expiresAtMs / 1_000),
    pkid: newUlid(about.nowMs),
  };
  const bytes = new TextEncoder().encode(JSON.stringify(signed));
  const sig = encodeBase64Url(new Uint8Array(await crypto.subtle.sign("Ed25519", pair.privateKey, bytes)));
  return CLAWDENTITY_PREFIX + encodeBase64Url(new TextEncoder().encode(JSON.stringify({ ...signed, sig })));
}

function fromClawdentity(text: string): string | null {
  const bytes = decodeBase64Url(text.slice(CLAWDENTITY_PREFIX.length));
  if (bytes === null) return null;
  let value: { nonce?: unknown } | null;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes)) as typeof value;
  } catch (error) {
    // Whatever else it is, no ticket.
    if (error instanceof SyntaxError) return null;
    throw error;
  }
  return typeof value?.nonce === "string" ? SECRET_PREFIXES.pairTicket + value.nonce : null;
}
