/** One relay client paired with an agent: its row, and what of its scopes it has lost. Contract §2 and §5. */
import { decodeBase64Url } from "../../wire/base64url.ts";
import { sha256Base64Url } from "../../wire/proof.ts";
import { type Scope, SCOPES } from "../scopes.ts";
import { hashSecret, newSecret, SECRET_PREFIXES } from "../secrets.ts";

/** Contract §5: a device whose answer to its own rotation was lost may claim once within this time. */
export const RECLAIM_MS = 60_000;

const DEVICE_ID_LENGTH = 22;

export type EndedAs = "rotated" | "revoked" | "removed";

/** By scope, the epoch at which the device held it no longer: what it made before with that scope ended then. */
export type LostScopes = { readonly [S in Scope]?: number };

export type Device = {
  deviceId: string;
  /** 32 bytes in base64url. */
  publicKey: string;
  label: string | null;
  /** What was approved at pairing; scopes never exceed it. */
  ceiling: readonly Scope[];
  scopes: readonly Scope[];
  epoch: number;
  lostScopes: LostScopes;
  tokenSha256: string | null;
  tokenExpiresAtMs: number | null;
  /** A new token may be fetched, once, by a proof of the device's key. */
  tokenWaits: boolean;
  /**
   * Until when it may be fetched although one is in force: the device has rotated itself, and the answer may have been lost.
   * Milliseconds since the epoch; null when that was not so, or has been made use of.
   */
  reclaimUntilMs: number | null;
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

/** @returns a device token, shown once, and what is kept of it */
export async function newDeviceToken(): Promise<{ token: string; sha256: string }> {
  const token = newSecret(SECRET_PREFIXES.device);
  return { token, sha256: await hashSecret(token) };
}

/** @returns what a device has lost when it goes from some scopes to others, none at its end */
export function withLost(before: Device, scopes: readonly Scope[], epoch: number): LostScopes {
  const lost = before.scopes.filter((scope) => !scopes.includes(scope));
  return { ...before.lostScopes, ...Object.fromEntries(lost.map((scope) => [scope, epoch])) };
}

/** @returns the scopes that a device lost at an epoch: what it had made with any of them ended then */
export function lostAt(device: Device, epoch: number): Scope[] {
  return SCOPES.filter((scope) => device.lostScopes[scope] === epoch);
}

/** A row of the gate's table `devices`. */
export type DeviceRow = {
  device_id: string;
  public_key: string;
  label: string | null;
  ceiling: string;
  scopes: string;
  epoch: number;
  lost_scopes: string | null;
  token_sha256: string | null;
  token_expires_at_ms: number | null;
  token_waits: number;
  paired_at_ms: number;
  rotated_at_ms: number | null;
  last_used_at_ms: number | null;
  ended_at_ms: number | null;
  ended_as: EndedAs | null;
};

/** What stands in the column `token_waits`. */
export const TOKEN_WAITS = { no: 0, yes: 1, ifLost: 2 } as const;

export function deviceOf(row: DeviceRow): Device {
  return {
    deviceId: row.device_id,
    publicKey: row.public_key,
    label: row.label,
    ceiling: JSON.parse(row.ceiling) as Scope[],
    scopes: JSON.parse(row.scopes) as Scope[],
    epoch: row.epoch,
    lostScopes: row.lost_scopes === null ? lostBefore(row) : (JSON.parse(row.lost_scopes) as LostScopes),
    tokenSha256: row.token_sha256,
    tokenExpiresAtMs: row.token_expires_at_ms,
    tokenWaits: row.token_waits === TOKEN_WAITS.yes,
    reclaimUntilMs: row.token_waits === TOKEN_WAITS.ifLost ? (row.rotated_at_ms ?? 0) + RECLAIM_MS : null,
    pairedAtMs: row.paired_at_ms,
    rotatedAtMs: row.rotated_at_ms,
    lastUsedAtMs: row.last_used_at_ms,
    endedAtMs: row.ended_at_ms,
    endedAs: row.ended_as,
  };
}

/** Of an older version's row: what it does not hold now counts as lost now; an ended device holds nothing. */
function lostBefore(row: DeviceRow): LostScopes {
  const held = row.ended_at_ms === null ? (JSON.parse(row.scopes) as Scope[]) : [];
  return Object.fromEntries(SCOPES.filter((scope) => !held.includes(scope)).map((scope) => [scope, row.epoch]));
}
