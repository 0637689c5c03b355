/** Whether a request was signed by a device's key. */
import { checkProof } from "../../auth/proof.ts";
import { decodeBase64Url } from "../../wire/base64url.ts";
import { importEd25519PublicKey } from "../../wire/proof.ts";
import type { ClaimProof } from "../protocol/calls.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { Nonces } from "./nonces.ts";

/** The base point, which could be somebody's key: an unknown token costs what a known one costs. */
export const DUMMY_KEY = "WGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmY";

/** @returns whether the holder of the key (base64url, 32 bytes) signed the request */
export async function hasProof(publicKey: string, proof: ClaimProof): Promise<boolean> {
  const x = decodeBase64Url(publicKey);
  if (x === null) throw new Error("a stored device key is unreadable");
  return (await checkProof(proof, publicKey, await importEd25519PublicKey(x))).ok;
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
