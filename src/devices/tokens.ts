/** Rotating and ending the token of a device, with the guarantee of contract §5. */
import type { Fenced } from "../authority/authority.ts";
import { type Device, newDeviceToken } from "../authority/devices.ts";
import { scopesOf } from "../authority/principal.ts";
import { isWithin, type Scope } from "../authority/scopes.ts";
import {
  assertAgentActive,
  authorityOf,
  type DeviceCall,
  isSelf,
  manageableDevice,
  managesAll,
  noSuchDevice,
  recordOf,
} from "./management.ts";

/** `token` is there where the device rotated itself; any other caller leaves it to be claimed by the device's key. */
export type RotatedToken = { device: Device; token: string | null; fenced: Fenced };

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
        return rotated;
      },
      raise: ({ deviceId, epoch }) => [{ authority: authorityOf(call, deviceId), epoch }],
    })
    .catch((error: unknown) => {
      // The new token is in no answer: the device, which has lost the old one, fetches another with its key.
      if (rotatedItself !== null) gate.devices.leaveToClaim(rotatedItself);
      throw error;
    });
  return { device, token: fresh?.token ?? null, fenced };
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
export async function endDevice(
  call: DeviceCall,
  deviceId: string,
  as: "revoked" | "removed",
): Promise<{ device: Device; fenced: Fenced }> {
  const { gate } = call;
  const { applied: device, fenced } = await gate.end({
    apply() {
      // A removal that was not answered in time is finished by its repetition.
      const removed = gate.devices.get(deviceId);
      const isRepeated = as === "removed" && removed?.endedAs === "removed" && managesAll(call);
      const before = isRepeated ? removed : manageableDevice(call, deviceId);
      const ended = gate.devices.end(before, as, call.now());
      if (as === "removed") gate.devices.requests.drop(deviceId);
      if (isSelf(call, deviceId)) call.authority.revokedItself(ended.epoch);
      const action = as === "removed" ? "device.pair.remove" : "device.token.revoke";
      recordOf(call, action, deviceId, { epoch: ended.epoch }, before.endedAtMs === null ? "ok" : "repeated");
      return ended;
    },
    raise: ({ epoch }) => [{ authority: authorityOf(call, deviceId), epoch }],
  });
  return { device, fenced };
}
