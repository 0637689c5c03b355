/** Widening what a paired device may do, without pairing it anew. Contract §5, Devices beside the above. */
import type { Device } from "../authority/device/device.ts";
import { pairDigest } from "../authority/device/pair-requests.ts";
import { originatorOf, scopesOf } from "../authority/principal.ts";
import { SCOPE_REQUEST_TTL_MS, type ScopeRequest } from "../authority/device/scope-requests.ts";
import { inOrder, isWithin, type Scope } from "../authority/scopes.ts";
import { equalHashes } from "../authority/secrets.ts";
import {
  assertAgentActive,
  authorityOf,
  countChange,
  type DeviceCall,
  managesAll,
  noSuchDevice,
  recordOf,
} from "./management.ts";

/**
 * A device asks for scopes besides those that it holds. Its newest request takes the place of the one before.
 *
 * @returns the request as it is shown to those who approve it: `scopes` are all that the device would hold
 * @throws ProxyError the one refusal to all but devices
 */
export async function requestScopes(call: DeviceCall, wanted: readonly Scope[]): Promise<ScopeRequest> {
  const { gate, principal } = call;
  const device = principal.kind === "device" ? gate.devices.findActive(principal.deviceId) : null;
  if (device === null) throw noSuchDevice("a device asks for itself alone");
  const scopes = inOrder([...device.ceiling, ...wanted]);
  const digest = await pairDigest({ publicKey: device.publicKey, label: device.label, scopes });
  call.authority.assertCurrent();
  countChange(call);
  const request = { deviceId: device.deviceId, scopes, digest, expiresAtMs: call.now() + SCOPE_REQUEST_TTL_MS };
  gate.devices.scopeRequests.put(request);
  recordOf(call, "device.scopes.request", device.deviceId, { scopes: scopes.join(" ") });
  return request;
}

/**
 * Approves what a device asked for, as it was shown. The device holds it from then on, with the token that it has.
 *
 * @throws ProxyError the one refusal; PROXY_CONFLICT for an agent that has been revoked
 */
export async function approveScopes(call: DeviceCall, approval: { deviceId: string; digest: string }): Promise<Device> {
  const { gate } = call;
  assertAgentActive(call);
  const request = managesAll(call) ? gate.devices.scopeRequests.find(approval.deviceId, call.now()) : null;
  const device = gate.devices.findActive(approval.deviceId);
  if (request === null || device === null || !equalHashes(request.digest, approval.digest))
    throw noSuchDevice("no such request, or not as it was shown");
  const originator = originatorOf(call.principal);
  if (originator === null || originator === authorityOf(call, device.deviceId))
    throw noSuchDevice("nobody approves its own request");
  if (!isWithin(request.scopes, scopesOf(call.principal))) throw noSuchDevice("nobody approves beyond what it holds");
  // As it was shown: with the name that the device has now.
  const shown = { publicKey: device.publicKey, label: device.label, scopes: request.scopes };
  const isAsShown = (await pairDigest(shown)) === request.digest;
  call.authority.assertCurrent();
  const current = gate.devices.findActive(device.deviceId);
  if (!isAsShown || current === null || current.epoch !== device.epoch)
    throw noSuchDevice("the device has changed since");
  countChange(call);
  const widened = gate.devices.widen(current, request.scopes);
  gate.devices.scopeRequests.drop(device.deviceId);
  recordOf(call, "device.scopes.approve", device.deviceId, { scopes: widened.scopes.join(" "), epoch: widened.epoch });
  return widened;
}
