/** What paired devices ask to be allowed besides, in the agent's gate (contract §5, Devices). */
import type { Scope } from "../scopes.ts";

export const SCOPE_REQUEST_TTL_MS = 300_000;

export type ScopeRequest = {
  deviceId: string;
  /** All that the device would hold. */
  scopes: readonly Scope[];
  /** What an approval is bound to. */
  digest: string;
  expiresAtMs: number;
};

/** Requests that are pending, one of a device. */
export type ScopeRequests = {
  pending(nowMs: number): ScopeRequest[];
  find(deviceId: string, nowMs: number): ScopeRequest | null;
  /** A device's newest request takes the place of the one before. */
  put(request: ScopeRequest): void;
  drop(deviceId: string): void;
  prune(nowMs: number): void;
};

type Row = { device_id: string; scopes: string; digest: string; expires_at_ms: number };

/** @param sql the gate's own database */
export function createScopeRequests(sql: SqlStorage): ScopeRequests {
  const select = (condition: string, ...bindings: (string | number)[]): ScopeRequest[] =>
    sql
      .exec<Row>(`SELECT * FROM scope_requests WHERE ${condition} ORDER BY expires_at_ms, device_id`, ...bindings)
      .toArray()
      .map((row) => ({
        deviceId: row.device_id,
        scopes: JSON.parse(row.scopes) as Scope[],
        digest: row.digest,
        expiresAtMs: row.expires_at_ms,
      }));

  return {
    pending: (nowMs) => select("expires_at_ms > ?", nowMs),
    find: (deviceId, nowMs) => select("device_id = ? AND expires_at_ms > ?", deviceId, nowMs)[0] ?? null,
    put: ({ deviceId, scopes, digest, expiresAtMs }) =>
      void sql.exec(
        `INSERT INTO scope_requests (device_id, scopes, digest, expires_at_ms) VALUES (?, ?, ?, ?)
         ON CONFLICT (device_id) DO UPDATE SET scopes = excluded.scopes, digest = excluded.digest,
           expires_at_ms = excluded.expires_at_ms`,
        deviceId,
        JSON.stringify(scopes),
        digest,
        expiresAtMs,
      ),
    drop: (deviceId) => void sql.exec("DELETE FROM scope_requests WHERE device_id = ?", deviceId),
    prune: (nowMs) => void sql.exec("DELETE FROM scope_requests WHERE expires_at_ms <= ?", nowMs),
  };
}
