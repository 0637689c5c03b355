/**
 * Stage 1, token: `Authorization: Claw <AIT>` → verified identity claims and the key that must have signed the request.
 * Its form is read before anything is fetched; a token that was verified once is remembered until `exp` and used only
 * while the key that signed it is active.
 */
import { compactVerify, errors } from "jose";
import type { Registry, RequestScope } from "../registry/registry.ts";
import type { CacheState } from "../resilience/stale-cache.ts";
import { type AitClaims, MAX_AIT_BYTES, parseAitClaims, parseAitHeader } from "../wire/ait.ts";
import { decodeBase64Url } from "../wire/base64url.ts";
import { isStrongEd25519Point } from "../wire/ed25519-point.ts";
import { decodeUnverifiedJws } from "../wire/jws.ts";
import { importEd25519PublicKey, PROOF_SIGNATURE_BYTES } from "../wire/proof.ts";
import { CLOCK_LEEWAY_SECONDS } from "../wire/registry-documents.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { type Refusal, refusal } from "./reasons.ts";

/** An AIT whose form and times are right. Nobody has looked at its signature. */
export type UnverifiedAit = {
  readonly token: string;
  readonly kid: string;
  readonly claims: AitClaims;
  /** The raw key of `cnf.jwk`. */
  readonly proofKeyBytes: Uint8Array<ArrayBuffer>;
};

declare const verified: unique symbol;

/** An AIT whose signature was verified with an active key of the registry; only {@link verifyAit} makes one. */
export type VerifiedAit = {
  readonly claims: AitClaims;
  readonly kid: string;
  /** The key of `cnf.jwk`, imported once. */
  readonly proofKey: CryptoKey;
  readonly [verified]: true;
};

/** Tokens verified in this isolate, bounded, the least recently used out first. */
export type TokenMemory = {
  /** @returns the verified token, unless it has expired */
  find(token: string, nowMs: number): VerifiedAit | null;
  keep(token: string, ait: VerifiedAit): void;
  forget(token: string): void;
  size(): number;
};

/** About 1 KiB each: the claims are bounded, and only what the registry has signed gets in. */
export const TOKENS_REMEMBERED = 16_384;

/** `maxEntries` verified tokens, keyed by the token itself: a Map hashes it faster than any digest. */
export function createTokenMemory(maxEntries: number = TOKENS_REMEMBERED): TokenMemory {
  const entries = new Map<string, VerifiedAit>();
  return {
    find(token, nowMs) {
      const ait = entries.get(token);
      if (ait === undefined) return null;
      if (nowMs >= ait.claims.exp * 1_000) {
        entries.delete(token);
        return null;
      }
      entries.delete(token);
      entries.set(token, ait);
      return ait;
    },
    keep(token, ait) {
      entries.delete(token);
      entries.set(token, ait);
      if (entries.size <= maxEntries) return;
      const oldest = entries.keys().next();
      if (oldest.done !== true) entries.delete(oldest.value);
    },
    forget: (token) => void entries.delete(token),
    size: () => entries.size,
  };
}

/**
 * Reads the form of an AIT, contract §1, without judging its signature: nothing is fetched for one that could not be valid.
 *
 * @param expected.issuer `REGISTRY_ISSUER`
 */
export function readAit(token: string, expected: { issuer: string; nowMs: number }): Result<UnverifiedAit, Refusal> {
  if (token.length > MAX_AIT_BYTES) return err(refusal("ait-too-long", { aitLength: token.length }));
  const jws = decodeUnverifiedJws(token);
  if (!jws.ok) return err(refusal("ait-malformed", { wrong: jws.error }));
  const header = parseAitHeader(jws.value.header);
  if (!header.ok) return err(refusal("ait-header-invalid", { wrong: header.error }));
  if (jws.value.signature.length !== PROOF_SIGNATURE_BYTES) {
    return err(refusal("ait-malformed", { wrong: "the signature is not 64 bytes" }));
  }
  const claims = parseAitClaims(jws.value.claims);
  if (!claims.ok) return err(refusal("ait-claims-invalid", { wrong: claims.error }));
  const { iss, iat, nbf, exp, sub, cnf } = claims.value;
  const named = { agentDid: sub };
  if (iss !== expected.issuer) return err(refusal("ait-issuer-foreign", named));
  const latestSeconds = expected.nowMs / 1_000 + CLOCK_LEEWAY_SECONDS;
  if (nbf > latestSeconds || iat > latestSeconds) return err(refusal("ait-not-yet-valid", named));
  if (expected.nowMs >= exp * 1_000) return err(refusal("ait-expired", named));
  const proofKeyBytes = decodeBase64Url(cnf.jwk.x);
  if (proofKeyBytes === null || !isStrongEd25519Point(proofKeyBytes)) return err(refusal("ait-proof-key-weak", named));
  return ok({ token, kid: header.value.kid, claims: claims.value, proofKeyBytes });
}

/**
 * Verifies an AIT with the registry's key.
 *
 * @returns the verified token and what the key cache did
 */
export async function verifyAit(
  ait: UnverifiedAit,
  keys: Pick<Registry["keys"], "find">,
  scope: RequestScope,
): Promise<Result<{ ait: VerifiedAit; cache: CacheState }, Refusal>> {
  const named = { agentDid: ait.claims.sub, kid: ait.kid };
  const found = await keys.find(ait.kid, scope);
  if (!found.ok) {
    switch (found.error) {
      case "unknown-kid":
        return err(refusal("ait-key-unknown", named));
      case "revoked-kid":
        return err(refusal("ait-key-revoked", named));
      case "unavailable":
        return err(refusal("keys-unavailable", named));
    }
  }
  const { key, cache } = found.value;
  try {
    await compactVerify(ait.token, key, { algorithms: ["EdDSA"] });
  } catch (error) {
    if (error instanceof errors.JOSEError)
      return err(refusal("ait-signature-invalid", { ...named, joseCode: error.code }));
    throw error;
  }
  const proofKey = await importEd25519PublicKey(ait.proofKeyBytes);
  // The one place that makes a verified token: the brand exists in types alone.
  return ok({ ait: { claims: ait.claims, kid: ait.kid, proofKey } as VerifiedAit, cache });
}

export type TokenDeps = {
  readonly keys: Pick<Registry["keys"], "find" | "isActive">;
  readonly tokens: TokenMemory;
  readonly issuer: string;
};

/**
 * The stage with its memory: a remembered token costs a look at its key's state, and nothing else.
 *
 * @param ait as the form gave it: remembered, or unverified
 */
export async function checkToken(
  ait: UnverifiedAit | VerifiedAit,
  token: string,
  { keys, tokens, issuer }: TokenDeps,
  scope: RequestScope,
): Promise<Result<{ ait: VerifiedAit; caches: { token: CacheState; keys?: CacheState } }, Refusal>> {
  if ("proofKey" in ait && keys.isActive(ait.kid, scope)) return ok({ ait, caches: { token: "hit" } });
  let unverified: UnverifiedAit;
  if ("proofKey" in ait) {
    // The key was revoked, or has not been confirmed for too long: whatever was concluded from it no longer counts.
    tokens.forget(token);
    const again = readAit(token, { issuer, nowMs: scope.now() });
    if (!again.ok) return again;
    unverified = again.value;
  } else {
    unverified = ait;
  }
  const verification = await verifyAit(unverified, keys, scope);
  if (!verification.ok) return verification;
  tokens.keep(token, verification.value.ait);
  return ok({ ait: verification.value.ait, caches: { token: "miss", keys: verification.value.cache } });
}
