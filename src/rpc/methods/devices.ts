/** The methods of contract §5, Devices: pairing, rotation, revocation, and the agent's shared secret. */
import * as z from "zod/mini";
import type { CallContext } from "../../call/context.ts";
import { type DeviceCall, noSuchDevice } from "../../devices/management.ts";
import { approvePairing, listPairings, rejectPairing, renameDevice, requestPairing } from "../../devices/pairing.ts";
import { approveScopes, requestScopes } from "../../devices/scopes.ts";
import { rotateSharedSecret } from "../../devices/shared-secret.ts";
import { endDevice, rotateToken } from "../../devices/tokens.ts";
import { ProxyError } from "../../wire/problem.ts";
import { defineMethod, type Method } from "../method.ts";
import { type MethodName, PERMISSIONS } from "../permissions.ts";
import { count, fenced, plainText, publicKey, scopes, timeMs } from "../schemas.ts";
import {
  shownDevice,
  shownDeviceOf,
  shownRequest,
  shownRequestOf,
  shownScopeRequest,
  shownScopeRequestOf,
} from "./device-schemas.ts";

const deviceId = z.string().check(z.regex(/^[A-Za-z0-9_-]{22}$/));
const requestId = z.string().check(z.regex(/^[0-9A-HJKMNP-TV-Z]{26}$/));
const digest = z.string().check(z.regex(/^[A-Za-z0-9_-]{43}$/));
const label = plainText(1, 64);
/** An operator, or a caller from elsewhere, names the agent. */
const named = { agentDid: z.optional(z.string().check(z.maxLength(512))) };

const pairRequest = method(
  "device.pair.request",
  z.object({ ...named, publicKey, label: z.optional(label), scopes }),
  z.object({ requestId: z.string(), deviceId: z.string(), digest: z.string(), expiresAtMs: timeMs }),
  async (call, params) => {
    const wanted = { publicKey: params.publicKey, label: params.label ?? null, scopes: params.scopes };
    const request = await requestPairing(call, wanted);
    call.gate.broadcast("device.pair.requested", shownRequestOf(request));
    return {
      requestId: request.requestId,
      deviceId: request.deviceId,
      digest: request.digest,
      expiresAtMs: request.expiresAtMs,
    };
  },
);

const pairList = method(
  "device.pair.list",
  z.object(named),
  z.object({
    pending: z.array(shownRequest),
    paired: z.array(shownDevice),
    scopeRequests: z.array(shownScopeRequest),
  }),
  async (call) => {
    const { pending, paired, scopeRequests, connected } = listPairings(call);
    return {
      pending: pending.map(shownRequestOf),
      paired: paired.map((device) => shownDeviceOf(device, connected.has(device.deviceId))),
      scopeRequests: scopeRequests.map(shownScopeRequestOf),
    };
  },
);

const pairApprove = method(
  "device.pair.approve",
  z.object({ ...named, requestId, digest }),
  z.object({ deviceId: z.string(), scopes: z.array(z.string()), epoch: count }),
  async (call, params) => {
    const device = await approvePairing(call, params);
    const resolved = { requestId: params.requestId, deviceId: device.deviceId, resolution: "approved" };
    call.gate.broadcast("device.pair.resolved", resolved);
    return { deviceId: device.deviceId, scopes: [...device.scopes], epoch: device.epoch };
  },
);

const pairReject = method(
  "device.pair.reject",
  z.object({ ...named, requestId }),
  z.object({ requestId: z.string(), rejected: z.literal(true) }),
  async (call, params) => {
    const request = rejectPairing(call, params.requestId);
    const resolved = { requestId: request.requestId, deviceId: request.deviceId, resolution: "rejected" };
    call.gate.broadcast("device.pair.resolved", resolved);
    return { requestId: request.requestId, rejected: true as const };
  },
);

const pairRename = method(
  "device.pair.rename",
  z.object({ ...named, deviceId, label: z.nullable(label) }),
  z.object({ deviceId: z.string(), label: z.nullable(z.string()) }),
  async (call, params) => {
    renameDevice(call, params.deviceId, params.label);
    return { deviceId: params.deviceId, label: params.label };
  },
);

const scopesRequest = method(
  "device.scopes.request",
  z.object({ ...named, scopes }),
  shownScopeRequest,
  async (call, params) => {
    const request = shownScopeRequestOf(await requestScopes(call, params.scopes));
    call.gate.broadcast("device.scopes.requested", request);
    return request;
  },
);

const scopesApprove = method(
  "device.scopes.approve",
  z.object({ ...named, deviceId, digest }),
  z.object({ deviceId: z.string(), scopes: z.array(z.string()), epoch: count }),
  async (call, params) => {
    const device = await approveScopes(call, params);
    const approved = { deviceId: device.deviceId, scopes: [...device.scopes], epoch: device.epoch };
    call.gate.broadcast("device.scopes.approved", approved);
    return approved;
  },
);

const sharedSecretKnown = z.optional(z.literal(true));
const ended = z.object({ deviceId: z.string(), epoch: count, revokedAtMs: timeMs, fenced, sharedSecretKnown });

const tokenRevoke = method("device.token.revoke", z.object({ ...named, deviceId }), ended, (call, params) =>
  end(call, params.deviceId, "revoked"),
);

const pairRemove = method("device.pair.remove", z.object({ ...named, deviceId }), ended, (call, params) =>
  end(call, params.deviceId, "removed"),
);

async function end(call: DeviceCall, id: string, as: "revoked" | "removed"): Promise<z.infer<typeof ended>> {
  const { device, fenced: ends, sharedSecretKnown: isKnown } = await endDevice(call, id, as);
  call.gate.broadcast("device.token.revoked", { deviceId: id, epoch: device.epoch, reason: as });
  return {
    deviceId: id,
    epoch: device.epoch,
    revokedAtMs: device.endedAtMs ?? call.now(),
    fenced: ends,
    ...known(isKnown),
  };
}

/** The answer to an end says so where the shared secret was handed out to what has ended. */
function known(isKnown: boolean): { sharedSecretKnown?: true } {
  return isKnown ? { sharedSecretKnown: true } : {};
}

const tokenRotate = method(
  "device.token.rotate",
  z.object({ ...named, deviceId, scopes: z.optional(scopes) }),
  z.object({
    deviceId: z.string(),
    scopes: z.array(z.string()),
    epoch: count,
    rotatedAtMs: timeMs,
    tokenDelivery: z.enum(["in-band", "claim"]),
    token: z.optional(z.string()),
    fenced,
    sharedSecretKnown,
  }),
  async (call, params) => {
    const { device, token, fenced: ends, sharedSecretKnown: isKnown } = await rotateToken(call, params);
    const rotated = { deviceId: device.deviceId, epoch: device.epoch, scopes: [...device.scopes] };
    call.gate.broadcast("device.token.rotated", rotated);
    return {
      ...rotated,
      rotatedAtMs: device.rotatedAtMs ?? call.now(),
      ...(token === null ? { tokenDelivery: "claim" as const } : { tokenDelivery: "in-band" as const, token }),
      fenced: ends,
      ...known(isKnown),
    };
  },
);

const sharedRotate = method(
  "shared.auth.rotate",
  z.object(named),
  z.object({ generation: count, secret: z.string(), fenced }),
  (call) => rotateSharedSecret(call),
);

export const deviceMethods: readonly Method[] = [
  pairRequest,
  pairList,
  pairApprove,
  pairReject,
  pairRename,
  pairRemove,
  scopesRequest,
  scopesApprove,
  tokenRotate,
  tokenRevoke,
  sharedRotate,
];

/** A method that runs in the gate of the agent it is about; only the operator names another agent than its own. */
function method<P extends { agentDid?: string | undefined }, R>(
  name: MethodName,
  params: z.ZodMiniType<P>,
  result: z.ZodMiniType<R>,
  handler: (call: DeviceCall, params: P) => Promise<R>,
): Method {
  return defineMethod({
    name,
    surface: "rpc",
    inGate: true,
    permission: PERMISSIONS[name],
    params,
    result,
    async handler(ctx, given) {
      const call = deviceCallOf(ctx);
      if (given.agentDid !== undefined && given.agentDid !== call.agentDid)
        throw noSuchDevice("only the operator names another agent");
      return handler(call, given);
    },
  });
}

/** @throws ProxyError PROXY_BAD_REQUEST for an operator's call about no agent */
function deviceCallOf(ctx: CallContext): DeviceCall {
  const { authority, config, db, log, now, principal, agentDid, gate } = ctx;
  if (gate === null || agentDid === null)
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: "agentDid: name the agent." });
  return { authority, config, db, log, now, principal, agentDid, gate };
}
