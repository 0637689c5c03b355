/** Which devices a caller may manage, and the one refusal of everything about devices. Contract §5. */
import { noteEndedMaker } from "../apikeys/cleanup.ts";
import { subjectOf } from "../audit/entry.ts";
import { type Device, lostAt } from "../authority/device/device.ts";
import { lineageHolds } from "../authority/lineage.ts";
import { derivedAuthority, deviceAuthority, ENDED_EPOCH } from "../authority/names.ts";
import { scopesOf } from "../authority/principal.ts";
import type { CallContext } from "../call/context.ts";
import type { GateLocal } from "../call/gate.ts";
import type { FencingToken } from "../database/fencing.ts";
import type { Statement } from "../database/statement.ts";
import type { AgentDid } from "../wire/did.ts";
import { ProxyError } from "../wire/problem.ts";

/** A call about the devices of the agent whose gate it runs in. */
export type DeviceCall = Pick<CallContext, "authority" | "config" | "db" | "log" | "now" | "principal"> & {
  agentDid: AgentDid;
  gate: GateLocal;
};

/** Every refusal about a device: like the one for a device that does not exist. The reason is for the log. */
export function noSuchDevice(reason: string): ProxyError {
  return new ProxyError("PROXY_NOT_FOUND", { reason });
}

/** Whether the caller manages every device of the agent; without the scope a device acts on itself alone. */
export function managesAll({ principal }: Pick<DeviceCall, "principal">): boolean {
  return scopesOf(principal).includes("devices");
}

/** Whether the caller is this device. */
export function isSelf({ principal }: Pick<DeviceCall, "principal">, deviceId: string): boolean {
  return principal.kind === "device" && principal.deviceId === deviceId;
}

/** The name of a device's authority, as its fencing token carries it. */
export function authorityOf({ agentDid }: Pick<DeviceCall, "agentDid">, deviceId: string): string {
  return deviceAuthority(agentDid, deviceId);
}

/**
 * What of an end of a device's token D1 is to know: the token's own authority, and that of what the device made with the scopes
 * that it has lost by it.
 */
export function endedTokens(
  { agentDid }: Pick<DeviceCall, "agentDid">,
  { deviceId, epoch, ...rest }: Device,
): FencingToken[] {
  const lost = lostAt({ deviceId, epoch, ...rest }, epoch);
  return [
    { authority: deviceAuthority(agentDid, deviceId), epoch },
    ...lost.map((scope) => ({ authority: derivedAuthority(agentDid, deviceId, scope), epoch })),
  ];
}

/** What is committed with them: where keys descend from what has ended, their rows are to go. */
export function endedRows(
  { agentDid, now }: Pick<DeviceCall, "agentDid" | "now">,
  device: Device,
): Statement<D1Result>[] {
  if (lostAt(device, device.epoch).length === 0) return [];
  return [noteEndedMaker(deviceAuthority(agentDid, device.deviceId), agentDid, now())];
}

/** A key that ended a device that it descends from has ended itself: its answer still goes out. */
export function noteOwnEnd({ authority, gate, principal }: DeviceCall): void {
  if (principal.kind !== "apiKey" || lineageHolds(gate, principal.lineage)) return;
  authority.revokedItself(ENDED_EPOCH);
}

/**
 * Finds a device that the caller may manage; a revoked one too.
 *
 * @throws ProxyError the one refusal
 */
export function manageableDevice(call: DeviceCall, deviceId: string): Device {
  const device = call.gate.devices.get(deviceId);
  if (device === null || device.endedAs === "removed") throw noSuchDevice("no such device");
  if (!managesAll(call) && !isSelf(call, deviceId))
    throw noSuchDevice("a device without the scope acts on itself alone");
  return device;
}

/**
 * Nothing new is given out for an agent that is no more; only the operator comes this far to be told.
 *
 * @throws ProxyError PROXY_CONFLICT
 */
export function assertAgentActive({ gate }: Pick<DeviceCall, "gate">): void {
  if (gate.isEnded()) throw new ProxyError("PROXY_CONFLICT", { detail: "The agent has been revoked." });
}

/**
 * Bounds how often an agent's devices are changed by those who act for it. An end of what is active is never counted.
 *
 * @throws ProxyError PROXY_RATE_LIMIT_EXCEEDED
 */
export function countChange({ gate, now, principal }: DeviceCall): void {
  if (principal.kind === "operator") return;
  const waitMs = gate.devices.countChange(subjectOf(principal), now());
  if (waitMs === 0) return;
  const detail = "The devices of this agent have been changed too often in this minute.";
  throw new ProxyError("PROXY_RATE_LIMIT_EXCEEDED", { detail, retryAfterMs: waitMs });
}

/** Records what was done to a device in the audit, in the commit of the turn it is done in. */
export function recordOf(
  { agentDid, gate }: Pick<DeviceCall, "agentDid" | "gate">,
  action: string,
  deviceId: string,
  details: Record<string, string | number> = {},
  result = "ok",
): void {
  gate.audit({ action, subject: `device:${agentDid}/${deviceId}`, agentDid, result, details });
}
