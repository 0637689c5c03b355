/** Devices and pairing requests as the methods show them. */
import * as z from "zod/mini";
import type { Device } from "../../authority/device/device.ts";
import type { PairRequest } from "../../authority/device/pair-requests.ts";
import type { ScopeRequest } from "../../authority/device/scope-requests.ts";
import { count, timeMs } from "../schemas.ts";

export const shownDevice = z.object({
  deviceId: z.string(),
  label: z.nullable(z.string()),
  scopes: z.array(z.string()),
  approvedScopes: z.array(z.string()),
  epoch: count,
  connected: z.boolean(),
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

export const shownScopeRequest = z.object({
  deviceId: z.string(),
  scopes: z.array(z.string()),
  digest: z.string(),
  expiresAtMs: timeMs,
});

/** @returns a request for more scopes as those see it who may approve it */
export function shownScopeRequestOf(request: ScopeRequest): z.infer<typeof shownScopeRequest> {
  return { ...request, scopes: [...request.scopes] };
}

/** @returns a request as those see it who may approve it */
export function shownRequestOf(request: PairRequest): z.infer<typeof shownRequest> {
  return {
    requestId: request.requestId,
    deviceId: request.deviceId,
    publicKey: request.publicKey,
    label: request.label,
    scopes: [...request.scopes],
    digest: request.digest,
    expiresAtMs: request.expiresAtMs,
  };
}

/** @returns a device as a list shows it, without key and token */
export function shownDeviceOf(device: Device, connected: boolean): z.infer<typeof shownDevice> {
  return {
    deviceId: device.deviceId,
    label: device.label,
    scopes: [...device.scopes],
    approvedScopes: [...device.ceiling],
    epoch: device.epoch,
    connected,
    status: device.endedAtMs !== null ? "revoked" : device.tokenWaits ? "waiting" : "active",
    pairedAtMs: device.pairedAtMs,
    rotatedAtMs: device.rotatedAtMs,
    lastUsedAtMs: device.lastUsedAtMs,
    expiresAtMs: device.tokenExpiresAtMs,
    revokedAtMs: device.endedAtMs,
  };
}
