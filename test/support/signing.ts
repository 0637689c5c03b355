/**
 * Proofs of possession, version 1 (contract §1), made with Node's crypto: it shares no code with the program, so that neither
 * covers for the other.
 */
import { createHash, type KeyObject, randomUUID, sign } from "node:crypto";

/** What a proof is over. `bodySha256` (base64url) takes the place of the body's own; `timestamp` is in seconds. */
export type Proven = {
  method: string;
  path: string;
  body?: string | Uint8Array;
  bodySha256?: string | undefined;
  timestamp?: number | string | undefined;
  nonce?: string | undefined;
};

/** @returns the four headers of a proof by this key, of this moment and with a fresh nonce where none are given */
export function proofHeaders(key: KeyObject, proven: Proven): Record<string, string> {
  const timestamp = String(proven.timestamp ?? Math.floor(Date.now() / 1_000));
  const nonce = proven.nonce ?? randomUUID();
  const hash =
    proven.bodySha256 ??
    createHash("sha256")
      .update(proven.body ?? "")
      .digest("base64url");
  const text = ["CLAW-PROOF-V1", proven.method, proven.path, timestamp, nonce, hash].join("\n");
  return {
    "X-Claw-Timestamp": timestamp,
    "X-Claw-Nonce": nonce,
    "X-Claw-Body-SHA256": hash,
    "X-Claw-Proof": sign(null, Buffer.from(text), key).toString("base64url"),
  };
}
