/** Whether a request was signed by a device's key. */
import { decodeBase64Url } from "../../wire/base64url.ts";
import { importEd25519PublicKey, verifyProof } from "../../wire/proof.ts";
import type { ClaimProof } from "../protocol/calls.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { Nonces } from "./nonces.ts";

/** The base point, which could be somebody's key: an unknown token costs what a known one costs. */
export const DUMMY_KEY = "WGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmY";

/** What a device proves, whoever it is. */
export async function hasProof(publicKey: string, proof: ClaimProof): Promise<boolean> {
  const x = decodeBase64Url(publicKey);
  if (x === null) throw new Error("a stored device key is unreadable");
  const { method, pathWithQuery, timestamp, nonce, bodySha256, signature } = proof;
  return verifyProof(
    await importEd25519PublicKey(x),
    { method, pathWithQuery, timestamp, nonce, bodySha256 },
    signature,
  );
}

/** Uses up the nonce of a proof. @throws GateRefusal when it was seen, or its time is out of the window */
export function useProof(nonces: Nonces, keyX: string, proof: ClaimProof, nowMs: number): void {
  switch (nonces.use(keyX, proof.nonce, proof.timestampMs / 1_000, nowMs)) {
    case "fresh":
      return;
    case "seen":
      throw new GateRefusal("gate-nonce-replayed");
    case "pruned":
      throw new GateRefusal("gate-nonce-too-old");
    case "outside-window":
      throw new GateRefusal("gate-timestamp-skewed");
  }
}
