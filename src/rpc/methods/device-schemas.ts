/** What the methods of devices take and show: their parameters, and devices and pairing requests as an admin sees them. */
/** What the methods of devices take and show: their parameters, and devices and pairing requests as an admin sees them. */
import * as z from "zod/mini";
import type { Device } from "../../authority/devices.ts";
import type { PairRequest } from "../../authority/pair-requests.ts";
import { inOrder, type Scope, SCOPES } from "../../authority/scopes.ts";
import { parsePublicKey } from "../../identity/public-key.ts";

/** Most devices of one agent that are in order at once, and most that are shown: a list has no pages, and fits into one frame. */
export const DEVICES_MAX = 1_000;

export const timeMs = z.int().check(z.nonnegative());
export const epoch = z.int().check(z.nonnegative());
export const deviceId = z.string().check(z.regex(/^[A-Za-z0-9_-]{22}$/));
export const requestId = z.string().check(z.regex(/^[0-9A-HJKMNP-TV-Z]{26}$/));
export const digest = z.string().check(z.regex(/^[A-Za-z0-9_-]{43}$/));
export const label = z.string().check(
  z.minLength(1),
  z.maxLength(64),
  z.refine((text: string) => !/\p{Cc}/u.test(text) && text.isWellFormed(), "has a character that a label cannot have"),
);
export const scopes = z.pipe(
  z.array(z.enum(SCOPES)).check(z.minLength(1), z.maxLength(SCOPES.length)),
  z.transform((list: Scope[]) => inOrder(list)),
);
export const publicKey = z.string().check(
  z.maxLength(64),
  z.refine((text: string) => parsePublicKey(text).ok, "is no usable Ed25519 public key, 32 bytes in base64url"),
);
/** An operator, or a caller from elsewhere, names the agent. */
export const named = { agentDid: z.optional(z.string().check(z.maxLength(512))) };
export const fenced = z.object({ sockets: z.int(), inFlight: z.int() });

export const shownDevice = z.object({
  deviceId: z.string(),
  label: z.nullable(z.string()),
  scopes: z.array(z.string()),
  approvedScopes: z.array(z.string()),
  epoch,
  status: z.enum(["waiting", "active", "revoked"]),
  pairedAtMs: timeMs,
  rotatedAtMs: z.nullable(timeMs),
  lastUsedAtMs: z.nullable(timeMs),
  expiresAtMs: z.nullable(timeMs),
  revokedAtMs: z.nullable(timeMs),
});
export const shownRequest = z.object({
  requestId: z.string(),
  deviceId: z.string(),
  publicKey: z.string(),
  label: z.nullable(z.string()),
  scopes: z.array(z.string()),
  digest: z.string(),
  expiresAtMs: timeMs,
});

export function shownRequestOf({
  requestId: id,
  deviceId: device,
  publicKey: key,
  label: name,
  scopes: wanted,
  digest: shown,
  expiresAtMs,
}: PairRequest) {
  return {
    requestId: id,
    deviceId: device,
    publicKey: key,
    label: name,
    scopes: [...wanted] as string[],
    digest: shown,
    expiresAtMs,
  };
}

function shownDeviceOf(device: Device) {
  return {
    deviceId: device.deviceId,
    label: device.label,
    scopes: [...device.scopes] as string[],
    approvedScopes: [...device.ceiling] as string[],
    epoch: device.epoch,
    status:
      device.endedAtMs !== null ? ("revoked" as const) : device.tokenWaits ? ("waiting" as const) : ("active" as const),
    pairedAtMs: device.pairedAtMs,
    rotatedAtMs: device.rotatedAtMs,
    lastUsedAtMs: device.lastUsedAtMs,
    expiresAtMs: device.tokenExpiresAtMs,
    revokedAtMs: device.endedAtMs,
  };
}

/** One in order ends after all that have ended; a number, since two infinities have no difference. */
const endedAt = (device: Device): number => device.endedAtMs ?? Number.MAX_SAFE_INTEGER;

/** Devices as a list shows them, in their order: those in order, and of the revoked the latest, as far as there is room. */
export function shownDevices(devices: readonly Device[]) {
  const latestFirst = devices.toSorted((a, b) => endedAt(b) - endedAt(a));
  const shown = new Set(latestFirst.slice(0, DEVICES_MAX));
  return devices.filter((device) => shown.has(device)).map(shownDeviceOf);
}
