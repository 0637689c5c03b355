/** Stage 3, proof: the headers of a proof of possession (contract §1), their form, the body's hash, and the one Ed25519 verify. */
import { decodeBase64Url } from "../wire/base64url.ts";
import { PROOF_HEADERS, PROOF_NONCE_PATTERN, PROOF_SIGNATURE_BYTES, verifyProof } from "../wire/proof.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { type Refusal, refusal } from "./reasons.ts";

/** Digits only, up to the year 5138: a timestamp in milliseconds has thirteen. */
const TIMESTAMP_PATTERN = /^[0-9]{1,11}$/;
const SHA256_BYTES = 32;

/** A proof whose form is right and whose time is within the window; its signature is yet to be verified. */
export type ProofForm = {
  /** As sent: it is part of the signed text. */
  readonly timestamp: string;
  readonly timestampMs: number;
  readonly nonce: string;
  /** base64url, as claimed. */
  readonly bodySha256: string;
  /** 64 bytes. */
  readonly signature: Uint8Array<ArrayBuffer>;
  /** By how much the signer's clock is ahead of this one, in milliseconds; negative when behind. */
  readonly skewMs: number;
};

/** What of the request the proof covers. */
export type SignedRequest = { readonly method: string; readonly pathWithQuery: string };

/** Reads and checks every header of a proof, cheapest first; nothing is hashed or fetched. */
export function readProof(
  headers: Headers,
  window: { nowMs: number; skewMaxSeconds: number },
): Result<ProofForm, Refusal> {
  const timestamp = headers.get(PROOF_HEADERS.timestamp);
  if (timestamp === null) return err(refusal("timestamp-missing"));
  if (!TIMESTAMP_PATTERN.test(timestamp)) return err(refusal("timestamp-malformed"));
  const timestampMs = Number(timestamp) * 1_000;
  const skewMs = timestampMs - window.nowMs;
  if (Math.abs(skewMs) > window.skewMaxSeconds * 1_000) return err(refusal("timestamp-skewed", { skewMs }));

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

  return ok({ timestamp, timestampMs, nonce, bodySha256, signature, skewMs });
}

/** Whether the body is the one that was signed. */
export function checkBodyHash(proof: ProofForm, actualSha256: string): Result<null, Refusal> {
  return proof.bodySha256 === actualSha256 ? ok(null) : err(refusal("body-hash-mismatch"));
}

/** The one Ed25519 verify of a request. */
export async function checkProof(
  proof: ProofForm,
  request: SignedRequest,
  key: CryptoKey,
): Promise<Result<null, Refusal>> {
  const { timestamp, nonce, bodySha256, signature } = proof;
  const holds = await verifyProof(key, { ...request, timestamp, nonce, bodySha256 }, signature);
  return holds ? ok(null) : err(refusal("proof-invalid"));
}
