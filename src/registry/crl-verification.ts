/** A revocation list of the registry, verified, and what stands in it. */
import { err, ok, type Result } from "../wire/result.ts";
import { type CrlHead, decodeCrlJws, readCrlClaims } from "./crl-document.ts";
import { createJtiSet, type JtiSet } from "./jti-set.ts";
import type { Keys } from "./keys.ts";
import type { RequestScope } from "./scope.ts";

/** A revoked identity token, and whose it is. */
export type Revocation = { jti: string; agentDid: string };

/** What is held of a list: the ids in it, and `iat` in seconds; null where the registry has never signed one. */
export type List = { jtis: JtiSet; iat: number | null };
/** A list that has verified, with its claims' bytes, which hold the agents as well. */
export type VerifiedList = { list: List; payload: Uint8Array; jws: Uint8Array; head: CrlHead };

/** A usual entry takes at least this many bytes: a guess at how many there are. */
const ENTRY_BYTES = 128;

/**
 * Verifies a list: its form, its signature by a key of the registry, its issuer. Its times are judged elsewhere.
 *
 * @param jws the list's bytes, compact JWS
 * @returns the list, or why it is none
 */
export async function verifyList(
  jws: Uint8Array,
  by: { keys: Keys; issuer: string },
  scope: RequestScope,
): Promise<Result<VerifiedList, string>> {
  const decoded = decodeCrlJws(jws);
  if (!decoded.ok) return decoded;
  const { kid, signature, signingInput, payload } = decoded.value;
  const found = await by.keys.find(kid, scope);
  if (!found.ok) return err(found.error);
  const isGenuine = await crypto.subtle.verify("Ed25519", found.value.key, signature, signingInput);
  if (!isGenuine) return err("the signature is wrong");
  let jtis = createJtiSet(payload.length / ENTRY_BYTES);
  const head = readCrlClaims(payload, {
    atBytes: (start, end) => jtis.addBytes(payload, start, end),
    restart: () => (jtis = createJtiSet()),
    plain: (jti) => jtis.add(jti),
  });
  if (!head.ok) return head;
  if (head.value.iss !== by.issuer) return err("the issuer is foreign");
  return ok({ list: { jtis, iat: head.value.iat }, payload, jws, head: head.value });
}

/** @returns the entries of a list, in its order */
export function revocationsOf({ payload }: VerifiedList): Revocation[] {
  const text = new TextDecoder();
  const between = (start: number, end: number): string => text.decode(payload.subarray(start, end));
  const revocations: Revocation[] = [];
  readCrlClaims(payload, {
    atBytes: (jtiStart, jtiEnd, didStart, didEnd) =>
      void revocations.push({ jti: between(jtiStart, jtiEnd), agentDid: between(didStart, didEnd) }),
    restart: () => void revocations.splice(0),
    plain: (jti, agentDid) => void revocations.push({ jti, agentDid }),
  });
  return revocations;
}
