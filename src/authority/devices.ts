/**
 * Relay clients paired with this agent: pairing requests, device keys, token hashes, epochs. A row and its epoch are the one
 * truth about a device; ending one is writing its row. Contract §2 and §5.
 */
import { decodeBase64Url } from "../wire/base64url.ts";
import { sha256Base64Url } from "../wire/proof.ts";
import { RELAY_CLOSE_REASON } from "../wire/relay-close.ts";
import { type PairRequest, pairRequestOf, type PairRequestRow } from "./pair-requests.ts";
import type { Scope } from "./scopes.ts";
import { equalHashes, hashSecret, newSecret, SECRET_PREFIXES } from "./secrets.ts";

const DEVICE_ID_LENGTH = 22;
const LAST_USED_RESOLUTION_MS = 60_000;

/** What is read of the authority of something that began under a device. */
export type DeviceRef = { principal: { deviceId: string }; epoch: number; mayStillReply?: true };

export type EndedAs = "rotated" | "revoked" | "removed";

export type Device = {
  deviceId: string;
  publicKey: string;
  label: string | null;
  /** What was approved at pairing; scopes never exceed it. */
  ceiling: readonly Scope[];
  scopes: readonly Scope[];
  epoch: number;
  tokenSha256: string | null;
  tokenExpiresAtMs: number | null;
  /** A new token may be fetched, once, by a proof of the device's key. */
  tokenWaits: boolean;
  pairedAtMs: number;
  rotatedAtMs: number | null;
  lastUsedAtMs: number | null;
  endedAtMs: number | null;
  endedAs: EndedAs | null;
};

/** @param publicKey 32 bytes in base64url */
export async function deviceIdOf(publicKey: string): Promise<string> {
  const bytes = decodeBase64Url(publicKey) ?? new Uint8Array(0);
  return (await sha256Base64Url(bytes)).slice(0, DEVICE_ID_LENGTH);
}

/** A device token, shown once; only its hash is kept. */
export async function newDeviceToken(): Promise<{ token: string; sha256: string }> {
  const token = newSecret(SECRET_PREFIXES.device);
  return { token, sha256: await hashSecret(token) };
}

type DeviceRow = {
  device_id: string;
  public_key: string;
  label: string | null;
  ceiling: string;
  scopes: string;
  epoch: number;
  token_sha256: string | null;
  token_expires_at_ms: number | null;
  token_waits: number;
  paired_at_ms: number;
  rotated_at_ms: number | null;
  last_used_at_ms: number | null;
  ended_at_ms: number | null;
  ended_as: EndedAs | null;
};

export type Devices = ReturnType<typeof createDevices>;

export function createDevices(sql: SqlStorage) {
  const devices = new Map<string, Device>();
  for (const row of sql.exec<DeviceRow>("SELECT * FROM devices")) devices.set(row.device_id, deviceOf(row));

  const save = (device: Device): void => {
    devices.set(device.deviceId, device);
    sql.exec(
      `INSERT INTO devices (device_id, public_key, label, ceiling, scopes, epoch, token_sha256, token_expires_at_ms, token_waits,
         paired_at_ms, rotated_at_ms, last_used_at_ms, ended_at_ms, ended_as) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (device_id) DO UPDATE SET label = excluded.label, ceiling = excluded.ceiling, scopes = excluded.scopes,
         epoch = excluded.epoch, token_sha256 = excluded.token_sha256, token_expires_at_ms = excluded.token_expires_at_ms,
         token_waits = excluded.token_waits, paired_at_ms = excluded.paired_at_ms, rotated_at_ms = excluded.rotated_at_ms,
         last_used_at_ms = excluded.last_used_at_ms, ended_at_ms = excluded.ended_at_ms, ended_as = excluded.ended_as`,
      device.deviceId,
      device.publicKey,
      device.label,
      JSON.stringify(device.ceiling),
      JSON.stringify(device.scopes),
      device.epoch,
      device.tokenSha256,
      device.tokenExpiresAtMs,
      device.tokenWaits ? 1 : 0,
      device.pairedAtMs,
      device.rotatedAtMs,
      device.lastUsedAtMs,
      device.endedAtMs,
      device.endedAs,
    );
  };

  /** The old token is kept by its hash until it would have expired, so that its holder can be told that it was ended. */
  const retireToken = (device: Device): void => {
    if (device.tokenSha256 === null || device.tokenExpiresAtMs === null) return;
    sql.exec(
      "INSERT INTO ended_device_tokens (token_sha256, device_id, expires_at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
      device.tokenSha256,
      device.deviceId,
      device.tokenExpiresAtMs,
    );
  };

  return {
    get: (deviceId: string): Device | null => devices.get(deviceId) ?? null,
    /** A device that is in order; removed and revoked ones are not. */
    findActive(deviceId: string): Device | null {
      const device = devices.get(deviceId);
      return device === undefined || device.endedAtMs !== null ? null : device;
    },
    active: (): Device[] => [...devices.values()].filter(({ endedAtMs }) => endedAtMs === null),
    /** Paired devices, revoked ones among them; a removed one is no longer shown. */
    list: (): Device[] => [...devices.values()].filter(({ endedAs }) => endedAs !== "removed"),

    /** Whether what began under a device's epoch may go on. `mayStillReply`: the answer to the call by which it ended itself. */
    holds(ref: DeviceRef): boolean {
      const device = devices.get(ref.principal.deviceId);
      return (
        device !== undefined && device.epoch === ref.epoch && (device.endedAtMs === null || ref.mayStillReply === true)
      );
    },

    endReason(deviceId: string): string {
      switch (devices.get(deviceId)?.endedAs) {
        case "revoked":
          return RELAY_CLOSE_REASON.clientRevoked;
        case "removed":
          return RELAY_CLOSE_REASON.clientRemoved;
        default:
          return RELAY_CLOSE_REASON.clientRotated;
      }
    },

    /** The device that a token's hash belongs to, and whether the token is the one in force. One read, whatever it finds. */
    byToken(tokenSha256: string): { device: Device; inForce: boolean } | null {
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

    /** Pairs a device, for the first time or anew; its epochs go on. The token waits to be fetched. */
    pair(request: PairRequest, nowMs: number): Device {
      const before = devices.get(request.deviceId);
      if (before !== undefined) retireToken(before);
      const device: Device = {
        deviceId: request.deviceId,
        publicKey: request.publicKey,
        label: request.label,
        ceiling: request.scopes,
        scopes: request.scopes,
        epoch: (before?.epoch ?? 0) + 1,
        tokenSha256: null,
        tokenExpiresAtMs: null,
        tokenWaits: true,
        pairedAtMs: nowMs,
        rotatedAtMs: null,
        lastUsedAtMs: null,
        endedAtMs: null,
        endedAs: null,
      };
      save(device);
      sql.exec("DELETE FROM pair_requests WHERE device_id = ?", request.deviceId);
      return device;
    },

    /** Ends the token so far. With a new token it is in force at once; without, it waits to be fetched. */
    rotate(
      device: Device,
      scopes: readonly Scope[],
      token: { sha256: string; expiresAtMs: number } | null,
      nowMs: number,
    ): Device {
      retireToken(device);
      const rotated: Device = {
        ...device,
        scopes,
        epoch: device.epoch + 1,
        tokenSha256: token?.sha256 ?? null,
        tokenExpiresAtMs: token?.expiresAtMs ?? null,
        tokenWaits: token === null,
        rotatedAtMs: nowMs,
      };
      save(rotated);
      return rotated;
    },

    /** Hands out the token that waits; the epoch stays, nothing was in force under it. */
    claim(device: Device, token: { sha256: string; expiresAtMs: number }): Device {
      const claimed = { ...device, tokenSha256: token.sha256, tokenExpiresAtMs: token.expiresAtMs, tokenWaits: false };
      save(claimed);
      return claimed;
    },

    /** A tombstone; only a new pairing brings the device back. Ending it twice changes nothing but the reason's severity. */
    end(device: Device, endedAs: "revoked" | "removed", nowMs: number): Device {
      if (device.endedAtMs !== null) {
        if (device.endedAs === endedAs) return device;
        const again = { ...device, endedAs };
        save(again);
        return again;
      }
      retireToken(device);
      const ended: Device = {
        ...device,
        epoch: device.epoch + 1,
        tokenSha256: null,
        tokenExpiresAtMs: null,
        tokenWaits: false,
        endedAtMs: nowMs,
        endedAs,
      };
      save(ended);
      return ended;
    },

    /** A token in force that could not be told to anyone: it ends untold, and another waits to be fetched by the device's key. */
    leaveToClaim(device: Device): void {
      const current = devices.get(device.deviceId);
      if (current === undefined || current.epoch !== device.epoch || current.endedAtMs !== null) return;
      save({ ...current, tokenSha256: null, tokenExpiresAtMs: null, tokenWaits: true });
    },

    rename(device: Device, label: string | null): void {
      save({ ...device, label });
    },

    /** To the minute, and so a write a minute at most. Part of the caller's transaction. */
    used(device: Device, nowMs: number): void {
      const minute = nowMs - (nowMs % LAST_USED_RESOLUTION_MS);
      const current = devices.get(device.deviceId);
      if (current === undefined || (current.lastUsedAtMs ?? 0) >= minute) return;
      devices.set(current.deviceId, { ...current, lastUsedAtMs: minute });
      sql.exec("UPDATE devices SET last_used_at_ms = ? WHERE device_id = ?", minute, current.deviceId);
    },

    requests: {
      pending: (nowMs: number): PairRequest[] =>
        sql
          .exec<PairRequestRow>(
            "SELECT * FROM pair_requests WHERE expires_at_ms > ? ORDER BY expires_at_ms, device_id",
            nowMs,
          )
          .toArray()
          .map(pairRequestOf),

      find(requestId: string, nowMs: number): PairRequest | null {
        const row = sql
          .exec<PairRequestRow>(
            "SELECT * FROM pair_requests WHERE request_id = ? AND expires_at_ms > ?",
            requestId,
            nowMs,
          )
          .toArray()[0];
        return row === undefined ? null : pairRequestOf(row);
      },

      /** The same key refreshes its request rather than adding one. */
      put(request: PairRequest): void {
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

      drop: (deviceId: string): void => void sql.exec("DELETE FROM pair_requests WHERE device_id = ?", deviceId),
      dropAll: (): void => void sql.exec("DELETE FROM pair_requests"),
    },

    prune(nowMs: number): void {
      sql.exec("DELETE FROM pair_requests WHERE expires_at_ms <= ?", nowMs);
      sql.exec("DELETE FROM ended_device_tokens WHERE expires_at_ms <= ?", nowMs);
    },
  };
}

function deviceOf(row: DeviceRow): Device {
  return {
    deviceId: row.device_id,
    publicKey: row.public_key,
    label: row.label,
    ceiling: JSON.parse(row.ceiling) as Scope[],
    scopes: JSON.parse(row.scopes) as Scope[],
    epoch: row.epoch,
    tokenSha256: row.token_sha256,
    tokenExpiresAtMs: row.token_expires_at_ms,
    tokenWaits: row.token_waits === 1,
    pairedAtMs: row.paired_at_ms,
    rotatedAtMs: row.rotated_at_ms,
    lastUsedAtMs: row.last_used_at_ms,
    endedAtMs: row.ended_at_ms,
    endedAs: row.ended_as,
  };
}
