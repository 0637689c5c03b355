/**
 * Relay clients paired with this agent, in the agent's gate: device keys, token hashes, scopes, epochs. A row and its epoch are
 * the one truth about a device; ending one is writing its row. Contract §2 and §5.
 */
import { RELAY_CLOSE_REASON } from "../../wire/relay-close.ts";
import { createChangeLimit } from "./change-limit.ts";
import { type Device, deviceOf, type DeviceRow, RECLAIM_MS, TOKEN_WAITS, withLost } from "./device.ts";
import type { DeviceOrigin } from "../lineage.ts";
import { createPairRequests, type PairRequest, type PairRequests } from "./pair-requests.ts";
import { createScopeRequests, type ScopeRequests } from "./scope-requests.ts";
import { inOrder, type Scope } from "../scopes.ts";
import { equalHashes } from "../secrets.ts";

const LAST_USED_RESOLUTION_MS = 60_000;

/** What is read of the authority of something that began under a device. */
export type DeviceRef = { principal: { deviceId: string }; epoch: number; mayStillReply?: true };

/** What is kept of a token: base64url of its SHA-256, and when it ends by itself. */
export type KeptToken = { sha256: string; expiresAtMs: number };

/** The devices of one agent. What changes a row is part of the caller's transaction. */
export type Devices = {
  /** A device, ended or not; null where there never was one. */
  get(deviceId: string): Device | null;
  /** An active device; removed and revoked ones are not. */
  findActive(deviceId: string): Device | null;
  active(): Device[];
  /** Paired devices, revoked ones among them; a removed one is no longer shown. */
  list(): Device[];

  /** Whether what began under a device's epoch may go on. `mayStillReply`: the answer to the call by which it ended itself. */
  holds(ref: DeviceRef): boolean;
  /** Whether what a device made still holds: it has lost none of the scopes that it handed out. */
  holdsOrigin(origin: DeviceOrigin): boolean;
  /** Why a device's socket is closed. */
  endReason(deviceId: string): string;
  /** The device that a token's hash belongs to, and whether the token is the one in force. One read, whatever it finds. */
  byToken(tokenSha256: string): { device: Device; inForce: boolean } | null;

  /** Pairs a device, for the first time or anew; its epochs continue. The token waits to be fetched. */
  pair(request: PairRequest, nowMs: number): Device;
  /** Ends the token so far. With a new token it is in force at once; without, it waits to be fetched. */
  rotate(device: Device, scopes: readonly Scope[], token: KeptToken | null, nowMs: number): Device;
  /** Hands out the token that waits. The epoch stays where nothing was in force under it; a token that was ends, and its epoch with it. */
  claim(device: Device, token: KeptToken): Device;
  /** Adds to what was approved for a device and what it holds; its token stays. */
  widen(device: Device, scopes: readonly Scope[]): Device;
  /** A tombstone; only a new pairing brings the device back. Ending it twice changes nothing but the reason's severity. */
  end(device: Device, endedAs: "revoked" | "removed", nowMs: number): Device;
  /** A token in force that is in no answer: it ends, and another waits to be fetched by the device's key. */
  leaveToClaim(device: Device): void;
  rename(device: Device, label: string | null): void;
  /** Notes a use, to the minute, and so a write a minute at most. */
  used(device: Device, nowMs: number): void;

  readonly requests: PairRequests;
  readonly scopeRequests: ScopeRequests;
  /**
   * Counts a change that a holder of this agent's credentials makes to its devices (see `change-limit.ts`).
   *
   * @returns how long to wait, in milliseconds, or 0 where the change may be made
   */
  countChange(holder: string, nowMs: number): number;
  /** Forgets requests and ended tokens whose time is up. */
  prune(nowMs: number): void;
};

export function createDevices(sql: SqlStorage): Devices {
  const devices = new Map<string, Device>();
  for (const row of sql.exec<DeviceRow>("SELECT * FROM devices")) devices.set(row.device_id, deviceOf(row));
  const requests = createPairRequests(sql);
  const scopeRequests = createScopeRequests(sql);
  const changes = createChangeLimit(sql);

  const save = (device: Device): Device => {
    devices.set(device.deviceId, device);
    saveRow(sql, device);
    return device;
  };

  return {
    get: (deviceId) => devices.get(deviceId) ?? null,
    findActive(deviceId) {
      const device = devices.get(deviceId);
      return device === undefined || device.endedAtMs !== null ? null : device;
    },
    active: () => [...devices.values()].filter(({ endedAtMs }) => endedAtMs === null),
    list: () => [...devices.values()].filter(({ endedAs }) => endedAs !== "removed"),

    holds(ref) {
      const device = devices.get(ref.principal.deviceId);
      return (
        device !== undefined && device.epoch === ref.epoch && (device.endedAtMs === null || ref.mayStillReply === true)
      );
    },
    holdsOrigin(origin) {
      const device = devices.get(origin.device);
      return device !== undefined && origin.scopes.every((scope) => (device.lostScopes[scope] ?? 0) <= origin.epoch);
    },
    endReason(deviceId) {
      switch (devices.get(deviceId)?.endedAs) {
        case "revoked":
          return RELAY_CLOSE_REASON.clientRevoked;
        case "removed":
          return RELAY_CLOSE_REASON.clientRemoved;
        default:
          return RELAY_CLOSE_REASON.clientRotated;
      }
    },
    byToken(tokenSha256) {
      const ended = sql
        .exec<{ device_id: string }>("SELECT device_id FROM ended_device_tokens WHERE token_sha256 = ?", tokenSha256)
        .toArray()[0];
      let inForce: Device | null = null;
      for (const device of devices.values()) {
        if (device.tokenSha256 !== null && device.endedAtMs === null && equalHashes(device.tokenSha256, tokenSha256))
          inForce = device;
      }
      if (inForce !== null) return { device: inForce, inForce: true };
      const device = ended === undefined ? undefined : devices.get(ended.device_id);
      return device === undefined ? null : { device, inForce: false };
    },

    pair(request, nowMs) {
      const before = devices.get(request.deviceId);
      if (before !== undefined) retireToken(sql, before);
      sql.exec("DELETE FROM pair_requests WHERE device_id = ?", request.deviceId);
      const epoch = (before?.epoch ?? 0) + 1;
      return save({
        deviceId: request.deviceId,
        publicKey: request.publicKey,
        label: request.label,
        ceiling: request.scopes,
        scopes: request.scopes,
        epoch,
        lostScopes: before === undefined ? {} : withLost(before, request.scopes, epoch),
        tokenSha256: null,
        tokenExpiresAtMs: null,
        tokenWaits: true,
        reclaimUntilMs: null,
        pairedAtMs: nowMs,
        rotatedAtMs: null,
        lastUsedAtMs: null,
        endedAtMs: null,
        endedAs: null,
      });
    },
    rotate(device, scopes, token, nowMs) {
      retireToken(sql, device);
      const epoch = device.epoch + 1;
      return save({
        ...device,
        scopes,
        epoch,
        lostScopes: withLost(device, scopes, epoch),
        tokenSha256: token?.sha256 ?? null,
        tokenExpiresAtMs: token?.expiresAtMs ?? null,
        tokenWaits: token === null,
        reclaimUntilMs: token === null ? null : nowMs + RECLAIM_MS,
        rotatedAtMs: nowMs,
      });
    },
    claim(device, token) {
      const replaces = device.tokenSha256 !== null;
      if (replaces) retireToken(sql, device);
      return save({
        ...device,
        epoch: device.epoch + (replaces ? 1 : 0),
        tokenSha256: token.sha256,
        tokenExpiresAtMs: token.expiresAtMs,
        tokenWaits: false,
        reclaimUntilMs: null,
      });
    },
    widen: (device, scopes) =>
      save({
        ...device,
        ceiling: inOrder([...device.ceiling, ...scopes]),
        scopes: inOrder([...device.scopes, ...scopes]),
      }),
    end(device, endedAs, nowMs) {
      if (device.endedAtMs !== null) return device.endedAs === endedAs ? device : save({ ...device, endedAs });
      retireToken(sql, device);
      const epoch = device.epoch + 1;
      return save({
        ...device,
        epoch,
        lostScopes: withLost(device, [], epoch),
        tokenSha256: null,
        tokenExpiresAtMs: null,
        tokenWaits: false,
        reclaimUntilMs: null,
        endedAtMs: nowMs,
        endedAs,
      });
    },
    leaveToClaim(device) {
      const current = devices.get(device.deviceId);
      if (current === undefined || current.epoch !== device.epoch || current.endedAtMs !== null) return;
      save({ ...current, tokenSha256: null, tokenExpiresAtMs: null, tokenWaits: true, reclaimUntilMs: null });
    },
    rename: (device, label) => void save({ ...device, label }),
    used(device, nowMs) {
      const minute = nowMs - (nowMs % LAST_USED_RESOLUTION_MS);
      const current = devices.get(device.deviceId);
      if (current === undefined || (current.lastUsedAtMs ?? 0) >= minute) return;
      devices.set(current.deviceId, { ...current, lastUsedAtMs: minute });
      sql.exec("UPDATE devices SET last_used_at_ms = ? WHERE device_id = ?", minute, current.deviceId);
    },

    requests,
    scopeRequests,
    countChange: changes.count,
    prune(nowMs) {
      requests.prune(nowMs);
      scopeRequests.prune(nowMs);
      sql.exec("DELETE FROM ended_device_tokens WHERE expires_at_ms <= ?", nowMs);
    },
  };
}

/** The old token is kept by its hash until it would have expired, so that its holder can be told that it was ended. */
function retireToken(sql: SqlStorage, device: Device): void {
  if (device.tokenSha256 === null || device.tokenExpiresAtMs === null) return;
  sql.exec(
    "INSERT INTO ended_device_tokens (token_sha256, device_id, expires_at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    device.tokenSha256,
    device.deviceId,
    device.tokenExpiresAtMs,
  );
}

function saveRow(sql: SqlStorage, device: Device): void {
  sql.exec(
    `INSERT INTO devices (device_id, public_key, label, ceiling, scopes, epoch, lost_scopes, token_sha256, token_expires_at_ms,
       token_waits, paired_at_ms, rotated_at_ms, last_used_at_ms, ended_at_ms, ended_as)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (device_id) DO UPDATE SET label = excluded.label, ceiling = excluded.ceiling, scopes = excluded.scopes,
       epoch = excluded.epoch, lost_scopes = excluded.lost_scopes, token_sha256 = excluded.token_sha256,
       token_expires_at_ms = excluded.token_expires_at_ms, token_waits = excluded.token_waits,
       paired_at_ms = excluded.paired_at_ms, rotated_at_ms = excluded.rotated_at_ms,
       last_used_at_ms = excluded.last_used_at_ms, ended_at_ms = excluded.ended_at_ms, ended_as = excluded.ended_as`,
    device.deviceId,
    device.publicKey,
    device.label,
    JSON.stringify(device.ceiling),
    JSON.stringify(device.scopes),
    device.epoch,
    JSON.stringify(device.lostScopes),
    device.tokenSha256,
    device.tokenExpiresAtMs,
    device.tokenWaits ? TOKEN_WAITS.yes : device.reclaimUntilMs === null ? TOKEN_WAITS.no : TOKEN_WAITS.ifLost,
    device.pairedAtMs,
    device.rotatedAtMs,
    device.lastUsedAtMs,
    device.endedAtMs,
    device.endedAs,
  );
}
