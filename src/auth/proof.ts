/**
 * Stage 3, proof: the two versions of a proof of possession (contract §1), their form, the body's hash, and the one Ed25519
 * verify. V2 is HTTP Message Signatures (RFC 9421) in the profile of `wire/proof-v2.ts`; V1 signs neither host nor headers.
 */
import { decodeBase64Url } from "../wire/base64url.ts";
import {
  PROOF_HEADERS,
  PROOF_NONCE_PATTERN,
  PROOF_SIGNATURE_BYTES,
  proofText,
  verifySignedText,
} from "../wire/proof.ts";
import { keyThumbprint, type ProofV2, readProofV2, signatureBase } from "../wire/proof-v2.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { type Refusal, refusal } from "./reasons.ts";

/** Digits only, up to the year 5138: a timestamp in milliseconds has thirteen. */
const TIMESTAMP_PATTERN = /^[0-9]{1,11}$/;
const SHA256_BYTES = 32;
const V1_HEADERS = Object.values(PROOF_HEADERS);

/** A proof whose form is right and whose time is within the window; its signature is yet to be verified. Plain data. */
export type ProofForm = {
  readonly version: 1 | 2;
  /** `X-Claw-Timestamp` or `created`. */
  readonly timestampMs: number;
  readonly nonce: string;
  /** base64url, as claimed. */
  readonly bodySha256: string;
  /** 64 bytes. */
  readonly signature: Uint8Array<ArrayBuffer>;
  /** By how much the signer's clock is ahead of this one, in milliseconds; negative when behind. */
  readonly skewMs: number;
  /** RFC 7638 thumbprint of the key, as claimed; V1 names none. */
  readonly keyid: string | null;
  /** What the signature is over: one text, or in V2 one for each host that this server may have been called by. */
  readonly signedTexts: readonly string[];
};

/** What of a request a proof covers. */
export type ProvenRequest = {
  readonly method: string;
  /** Path and `?query` as sent. */
  readonly pathWithQuery: string;
  /** Hosts that `@authority` may be: the one called, then those of `PUBLIC_AUTHORITIES`. */
  readonly authorities: readonly string[];
  readonly headers: Headers;
};

/** What a proof is judged by. */
export type ProofRules = {
  readonly nowMs: number;
  readonly skewMaxSeconds: number;
  /** Whether version 1 is accepted. */
  readonly proofV1: "accept" | "refuse";
};

/** Reads and checks the form of a proof, cheapest first; nothing is hashed or fetched. */
export function readProof(request: ProvenRequest, rules: ProofRules): Result<ProofForm, Refusal> {
  const signed = readProofV2(request.headers);
  if (!signed.ok) return err({ reason: "signature-input-invalid", detail: signed.error });
  if (signed.value !== null) return readV2(request, signed.value, rules);
  if (rules.proofV1 === "refuse") return err(refusal("proof-v1-refused"));
  return readV1(request, rules);
}

function readV2(request: ProvenRequest, proof: ProofV2, rules: ProofRules): Result<ProofForm, Refusal> {
  if (V1_HEADERS.some((name) => request.headers.has(name)))
    return err({ reason: "signature-input-invalid", detail: "A request carries one version of the proof, not two." });
  const { created, expires, nonce, keyid, bodySha256, signature, components, signatureParams } = proof;
  const skewMs = created * 1_000 - rules.nowMs;
  if (Math.abs(skewMs) > rules.skewMaxSeconds * 1_000) return err(refusal("timestamp-skewed", { skewMs }));
  if (expires * 1_000 < rules.nowMs)
    return err({ reason: "signature-input-invalid", detail: "The signature has expired." });
  const { authorities, ...message } = request;
  const signedTexts = authorities.map((authority) =>
    signatureBase({ ...message, authority }, components, signatureParams),
  );
  return ok({ version: 2, timestampMs: created * 1_000, nonce, bodySha256, signature, skewMs, keyid, signedTexts });
}

function readV1({ method, pathWithQuery, headers }: ProvenRequest, rules: ProofRules): Result<ProofForm, Refusal> {
  const timestamp = headers.get(PROOF_HEADERS.timestamp);
  if (timestamp === null) return err(refusal("timestamp-missing"));
  if (!TIMESTAMP_PATTERN.test(timestamp)) return err(refusal("timestamp-malformed"));
  const timestampMs = Number(timestamp) * 1_000;
  const skewMs = timestampMs - rules.nowMs;
  if (Math.abs(skewMs) > rules.skewMaxSeconds * 1_000) return err(refusal("timestamp-skewed", { skewMs }));

  const nonce = headers.get(PROOF_HEADERS.nonce);
  if (nonce === null) return err(refusal("nonce-missing"));
  if (!PROOF_NONCE_PATTERN.test(nonce)) return err(refusal("nonce-malformed", { nonceLength: nonce.length }));

  const bodySha256 = headers.get(PROOF_HEADERS.bodySha256);
  if (bodySha256 === null) return err(refusal("body-hash-missing"));
  if (decodeBase64Url(bodySha256)?.length !== SHA256_BYTES) return err(refusal("body-hash-malformed"));

  const named = headers.get(PROOF_HEADERS.proof);
  const alias = headers.get(PROOF_HEADERS.signatureAlias);
  if (named !== null && alias !== null && named !== alias) return err(refusal("proof-ambiguous"));
  const text = named ?? alias;
  if (text === null) return err(refusal("proof-missing"));
  const signature = decodeBase64Url(text);
  if (signature === null || signature.length !== PROOF_SIGNATURE_BYTES) return err(refusal("proof-malformed"));

  const signedTexts = [proofText({ method, pathWithQuery, timestamp, nonce, bodySha256 })];
  return ok({ version: 1, timestampMs, nonce, bodySha256, signature, skewMs, keyid: null, signedTexts });
}

/** Whether the body is the one that was signed. */
export function checkBodyHash(proof: ProofForm, actualSha256: string): Result<null, Refusal> {
  return proof.bodySha256 === actualSha256 ? ok(null) : err(refusal("body-hash-mismatch"));
}

/**
 * The Ed25519 verify of a request: one, and in V2 one more for each further host that the server goes by.
 *
 * @param keyX the key in base64url, 32 bytes
 * @param key the same, imported
 */
export async function checkProof(proof: ProofForm, keyX: string, key: CryptoKey): Promise<Result<null, Refusal>> {
  if (proof.keyid !== null && proof.keyid !== (await keyThumbprint(keyX)))
    return err({
      reason: "signature-input-invalid",
      detail: "Signature-Input: keyid is not the RFC 7638 thumbprint of the credential's key",
    });
  for (const text of proof.signedTexts) {
    // oxlint-disable-next-line no-await-in-loop -- the first host is nearly always the one
    if (await verifySignedText(key, text, proof.signature)) return ok(null);
  }
  return err(refusal("proof-invalid"));
}
