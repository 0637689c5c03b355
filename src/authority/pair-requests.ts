/** Requests of relay clients to be paired with an agent (contract §5, Devices). */
import { sha256Base64Url } from "../wire/proof.ts";
import { inOrder, type Scope } from "./scopes.ts";

export const PAIR_REQUEST_TTL_MS = 300_000;

export const PAIR_REQUESTS_MAX = 20;

export type PairRequest = {
  requestId: string;
  deviceId: string;
  publicKey: string;
  label: string | null;
  scopes: readonly Scope[];
  digest: string;
  requestedBy: string;
  expiresAtMs: number;
};

/** What an approval is bound to: key, scopes and label, as they were shown. */
export function pairDigest(request: {
  publicKey: string;
  label: string | null;
  scopes: readonly Scope[];
}): Promise<string> {
  const shown = JSON.stringify([request.publicKey, inOrder(request.scopes), request.label]);
  return sha256Base64Url(new TextEncoder().encode(shown));
}

export type PairRequestRow = {
  request_id: string;
  device_id: string;
  public_key: string;
  label: string | null;
  scopes: string;
  digest: string;
  requested_by: string;
  expires_at_ms: number;
};

export function pairRequestOf(row: PairRequestRow): PairRequest {
  return {
    requestId: row.request_id,
    deviceId: row.device_id,
    publicKey: row.public_key,
    label: row.label,
    scopes: JSON.parse(row.scopes) as Scope[],
    digest: row.digest,
    requestedBy: row.requested_by,
    expiresAtMs: row.expires_at_ms,
  };
}
