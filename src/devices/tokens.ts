/** Rotating and ending the token of a device, with the guarantee of contract §5. */
import { cleanUpAfterCall } from "../apikeys/cleanup.ts";
import type { Fenced } from "../authority/authority.ts";
import { type Device, newDeviceToken } from "../authority/device/device.ts";
import { scopesOf } from "../authority/principal.ts";
import { isWithin, type Scope } from "../authority/scopes.ts";
import {
  assertAgentActive,
  authorityOf,
  countChange,
  type DeviceCall,
  endedRows,
  endedTokens,
  isSelf,
  manageableDevice,
  managesAll,
  noSuchDevice,
  noteOwnEnd,
  recordOf,
} from "./management.ts";

/** `token` is there where the device rotated itself; any other caller leaves it to be claimed by the device's key. */
export type RotatedToken = EndedToken & { token: string | null };

/** What the end of a token came to. */
export type EndedToken = {
  device: Device;
  fenced: Fenced;
  /** The shared secret in force was handed out to the device, or to what descends from it: it stays, unless it is rotated. */
  sharedSecretKnown: boolean;
};

/**
 * Ends the token of a device and makes another, with the same scopes or others within its ceiling.
 *
 * @throws ProxyError the one refusal; PROXY_CONFLICT for an agent that has been revoked; DRAIN_TIMEOUT
 */
export async function rotateToken(
  call: DeviceCall,
  wanted: { deviceId: string; scopes?: readonly Scope[] | undefined },
): Promise<RotatedToken> {
  const { gate } = call;
  const self = isSelf(call, wanted.deviceId);
  const fresh = self ? await newDeviceToken() : null;
  let rotatedItself: Device | null = null;
  const { applied: device, fenced } = await gate
    .end({
      apply() {
        assertAgentActive(call);
        const rotated = rotate(call, wanted, fresh?.sha256 ?? null);
        if (self) {
          call.authority.revokedItself(rotated.epoch);
          rotatedItself = rotated;
        }
        noteOwnEnd(call);
        return rotated;
      },
      raise: (rotated) => endedTokens(call, rotated),
      commitWith: (rotated) => endedRows(call, rotated),
    })
    .catch((error: unknown) => {
      // The new token is in no answer: the device, which has lost the old one, fetches another with its key.
      if (rotatedItself !== null) gate.devices.leaveToClaim(rotatedItself);
      throw error;
    });
  return { ...(await ended(call, device, fenced)), token: fresh?.token ?? null };
}

/** Part of the turn that ends the old token. @throws ProxyError the one refusal */
function rotate(
  call: DeviceCall,
  wanted: { deviceId: string; scopes?: readonly Scope[] | undefined },
  tokenSha256: string | null,
): Device {
  const nowMs = call.now();
  const device = manageableDevice(call, wanted.deviceId);
  if (device.endedAtMs !== null) throw noSuchDevice("a revoked device is not rotated");
  const scopes = wanted.scopes ?? [...device.scopes];
  if (!isWithin(scopes, device.ceiling)) throw noSuchDevice("scopes never exceed what was approved");
  if (!isWithin(scopes, scopesOf(call.principal))) throw noSuchDevice("nobody rotates beyond what it holds");
  countChange(call);
  const token =
    tokenSha256 === null ? null : { sha256: tokenSha256, expiresAtMs: nowMs + call.config.deviceTokenTtlMs };
  const rotated = call.gate.devices.rotate(device, scopes, token, nowMs);
  recordOf(call, "device.token.rotate", rotated.deviceId, { scopes: scopes.join(" "), epoch: rotated.epoch });
  return rotated;
}

/**
 * Ends a device: a tombstone, and everything under its authority is over. Doing it twice answers the same.
 *
 * @param as `removed` also takes it off the list, and its pending request with it
 * @throws ProxyError the one refusal; DRAIN_TIMEOUT, after which it may be repeated
 */
export async function endDevice(call: DeviceCall, deviceId: string, as: "revoked" | "removed"): Promise<EndedToken> {
  const { gate } = call;
  const { applied: device, fenced } = await gate.end({
    apply() {
      // A removal that was not answered in time is finished by its repetition.
      const removed = gate.devices.get(deviceId);
      const isRepeated = as === "removed" && removed?.endedAs === "removed" && managesAll(call);
      const before = isRepeated ? removed : manageableDevice(call, deviceId);
      if (before.endedAtMs !== null) countChange(call);
      const after = gate.devices.end(before, as, call.now());
      if (as === "removed") gate.devices.requests.drop(deviceId);
      gate.devices.scopeRequests.drop(deviceId);
      if (isSelf(call, deviceId)) call.authority.revokedItself(after.epoch);
      noteOwnEnd(call);
      const action = as === "removed" ? "device.pair.remove" : "device.token.revoke";
      recordOf(call, action, deviceId, { epoch: after.epoch }, before.endedAtMs === null ? "ok" : "repeated");
      return after;
    },
    raise: (after) => endedTokens(call, after),
    commitWith: (after) => endedRows(call, after),
  });
  return ended(call, device, fenced);
}

async function ended(call: DeviceCall, device: Device, fenced: Fenced): Promise<EndedToken> {
  const sharedSecretKnown = call.gate.shared.isKnownTo(authorityOf(call, device.deviceId));
  if (endedRows(call, device).length > 0) await cleanUpAfterCall(call, call.agentDid);
  return { device, fenced, sharedSecretKnown };
}
