/** Requests of relay clients to be paired with an agent, in the agent's gate (contract §5, Devices). */
import { sha256Base64Url } from "../../wire/proof.ts";
import { inOrder, type Scope } from "../scopes.ts";

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

/** Requests that are pending. */
export type PairRequests = {
  /** Those that can be approved still, oldest first. */
  pending(nowMs: number): PairRequest[];
  /** One that can be approved still, or null. */
  find(requestId: string, nowMs: number): PairRequest | null;
  /** The same key refreshes its request rather than adding one. */
  put(request: PairRequest): void;
  drop(deviceId: string): void;
  dropAll(): void;
  prune(nowMs: number): void;
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

type PairRequestRow = {
  request_id: string;
  device_id: string;
  public_key: string;
  label: string | null;
  scopes: string;
  digest: string;
  requested_by: string;
  expires_at_ms: number;
};

/** @param sql the gate's own database */
export function createPairRequests(sql: SqlStorage): PairRequests {
  const select = (condition: string, ...bindings: (string | number)[]): PairRequest[] =>
    sql
      .exec<PairRequestRow>(
        `SELECT * FROM pair_requests WHERE ${condition} ORDER BY expires_at_ms, device_id`,
        ...bindings,
      )
      .toArray()
      .map(pairRequestOf);

  return {
    pending: (nowMs) => select("expires_at_ms > ?", nowMs),
    find: (requestId, nowMs) => select("request_id = ? AND expires_at_ms > ?", requestId, nowMs)[0] ?? null,
    put(request) {
      sql.exec(
        `INSERT INTO pair_requests (device_id, request_id, public_key, label, scopes, digest, requested_by, expires_at_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (device_id) DO UPDATE SET request_id = excluded.request_id, label = excluded.label, scopes = excluded.scopes,
           digest = excluded.digest, requested_by = excluded.requested_by, expires_at_ms = excluded.expires_at_ms`,
        request.deviceId,
        request.requestId,
        request.publicKey,
        request.label,
        JSON.stringify(request.scopes),
        request.digest,
        request.requestedBy,
        request.expiresAtMs,
      );
    },
    drop: (deviceId) => void sql.exec("DELETE FROM pair_requests WHERE device_id = ?", deviceId),
    dropAll: () => void sql.exec("DELETE FROM pair_requests"),
    prune: (nowMs) => void sql.exec("DELETE FROM pair_requests WHERE expires_at_ms <= ?", nowMs),
  };
}

function pairRequestOf(row: PairRequestRow): PairRequest {
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
