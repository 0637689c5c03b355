/** Pairing a relay client with an agent: request, approval, rejection, removal, name. Contract §5, Devices. */
import { cleanUpAfterCall } from "../apikeys/cleanup.ts";
import { type Device, deviceIdOf } from "../authority/device/device.ts";
import {
  PAIR_REQUEST_TTL_MS,
  PAIR_REQUESTS_MAX,
  pairDigest,
  type PairRequest,
} from "../authority/device/pair-requests.ts";
import { originatorOf, scopesOf } from "../authority/principal.ts";
import { isWithin, type Scope } from "../authority/scopes.ts";
import type { ScopeRequest } from "../authority/device/scope-requests.ts";
import { equalHashes } from "../authority/secrets.ts";
import { ProxyError } from "../wire/problem.ts";
import { newUlid } from "../wire/ulid.ts";
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

/** Most active devices of one agent, and most that are shown: a list has no pages, and fits into one frame. */
export const DEVICES_MAX = 1_000;

/** What a device asks to be paired as. */
export type WantedPairing = { publicKey: string; label: string | null; scopes: readonly Scope[] };

/**
 * Asks for a device to be paired. The same key has one request, which the newest replaces.
 *
 * @returns the request as it is shown to those who approve it
 * @throws ProxyError PROXY_CONFLICT where too many are pending
 */
export async function requestPairing(call: DeviceCall, wanted: WantedPairing): Promise<PairRequest> {
  const { gate } = call;
  const deviceId = await deviceIdOf(wanted.publicKey);
  const digest = await pairDigest(wanted);
  call.authority.assertCurrent();
  const nowMs = call.now();
  const pending = gate.devices.requests.pending(nowMs);
  const earlier = pending.find((each) => each.deviceId === deviceId);
  if (earlier === undefined && pending.length >= PAIR_REQUESTS_MAX) {
    throw new ProxyError("PROXY_CONFLICT", { detail: `At most ${PAIR_REQUESTS_MAX} pairing requests may be pending.` });
  }
  const request: PairRequest = {
    ...wanted,
    deviceId,
    requestId: earlier?.requestId ?? newUlid(nowMs),
    digest,
    // Those who request are agents; their key is nobody's making.
    requestedBy: originatorOf(call.principal) ?? "",
    expiresAtMs: nowMs + PAIR_REQUEST_TTL_MS,
  };
  countChange(call);
  gate.devices.requests.put(request);
  recordOf(call, "device.pair.request", deviceId, { scopes: request.scopes.join(" ") });
  return request;
}

/** What a caller may see of an agent's devices. */
export type Pairings = {
  pending: PairRequest[];
  paired: Device[];
  scopeRequests: ScopeRequest[];
  /** Ids of devices with a socket that is open. */
  connected: ReadonlySet<string>;
};

/** @returns pending requests and paired devices, as far as the caller may see them: without the scope, itself alone */
export function listPairings(call: DeviceCall): Pairings {
  const { devices } = call.gate;
  const nowMs = call.now();
  const connected = call.gate.connectedDevices();
  if (managesAll(call)) {
    const scopeRequests = devices.scopeRequests.pending(nowMs);
    return { pending: devices.requests.pending(nowMs), paired: shownDevices(devices.list()), scopeRequests, connected };
  }
  const paired = devices.list().filter(({ deviceId }) => isSelf(call, deviceId));
  return { pending: [], paired, scopeRequests: [], connected };
}

/** Devices as a list shows them, in their order: the active ones, and of the revoked the latest, as far as there is room. */
export function shownDevices(devices: readonly Device[]): Device[] {
  const latestFirst = devices.toSorted((a, b) => endedAt(b) - endedAt(a));
  const shown = new Set(latestFirst.slice(0, DEVICES_MAX));
  return devices.filter((device) => shown.has(device));
}

/** An active one ends after all that have ended; a number, since two infinities have no difference. */
const endedAt = (device: Device): number => device.endedAtMs ?? Number.MAX_SAFE_INTEGER;

/**
 * Approves a request as it was shown. A device that is paired anew loses what it held before: its old token ends as by a
 * rotation.
 *
 * @param approval `digest` binds the approval to key, scopes and label
 * @throws ProxyError the one refusal; PROXY_CONFLICT where the agent has no room for another device; DRAIN_TIMEOUT
 */
export async function approvePairing(
  call: DeviceCall,
  approval: { requestId: string; digest: string },
): Promise<Device> {
  const { gate } = call;
  const { applied } = await gate.end({
    apply() {
      assertAgentActive(call);
      const request = approvableRequest(call, approval);
      const isAnew = gate.devices.findActive(request.deviceId) !== null;
      if (!isAnew && gate.devices.active().length >= DEVICES_MAX)
        throw new ProxyError("PROXY_CONFLICT", { detail: `At most ${DEVICES_MAX} devices may be paired.` });
      countChange(call);
      const device = gate.devices.pair(request, call.now());
      recordOf(call, "device.pair.approve", device.deviceId, {
        scopes: device.scopes.join(" "),
        epoch: device.epoch,
      });
      noteOwnEnd(call);
      return { device, isAnew };
    },
    // Where nothing was in force, nothing ends, and an approval waits for nothing.
    raise: ({ isAnew, device }) => (isAnew ? endedTokens(call, device) : []),
    commitWith: ({ isAnew, device }) => (isAnew ? endedRows(call, device) : []),
  });
  if (applied.isAnew) await cleanUpAfterCall(call, call.agentDid);
  return applied.device;
}

/** @throws ProxyError the one refusal */
function approvableRequest(call: DeviceCall, approval: { requestId: string; digest: string }): PairRequest {
  const request = managesAll(call) ? call.gate.devices.requests.find(approval.requestId, call.now()) : null;
  if (request === null || !equalHashes(request.digest, approval.digest))
    throw noSuchDevice("no such request, or not as it was shown");
  // Whoever may make keys could otherwise make itself one that approves.
  const originator = originatorOf(call.principal);
  if (originator === null) throw noSuchDevice("a key without a record of who made it");
  if (originator === request.requestedBy || originator === authorityOf(call, request.deviceId))
    throw noSuchDevice("nobody approves its own request");
  if (!isWithin(request.scopes, scopesOf(call.principal))) throw noSuchDevice("nobody approves beyond what it holds");
  return request;
}

/**
 * Rejects a request.
 *
 * @returns the request that is no more
 * @throws ProxyError the one refusal
 */
export function rejectPairing(call: DeviceCall, requestId: string): PairRequest {
  const { requests } = call.gate.devices;
  const request = managesAll(call) ? requests.find(requestId, call.now()) : null;
  if (request === null) throw noSuchDevice("no such request");
  countChange(call);
  requests.drop(request.deviceId);
  recordOf(call, "device.pair.reject", request.deviceId);
  return request;
}

/**
 * Names a device, or takes its name away.
 *
 * @throws ProxyError the one refusal
 */
export function renameDevice(call: DeviceCall, deviceId: string, label: string | null): void {
  const device = manageableDevice(call, deviceId);
  countChange(call);
  call.gate.devices.rename(device, label);
  recordOf(call, "device.pair.rename", deviceId);
}
