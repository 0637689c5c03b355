/** The methods of contract §5, Devices: pairing, rotation, revocation, and the agent's shared secret. */
/** The methods of contract §5, Devices: pairing, rotation, revocation, and the agent's shared secret. */
import * as z from "zod/mini";
import { provenanceOf } from "../../apikeys/provenance.ts";
import { subjectOf } from "../../audit/entry.ts";
import { type Device, deviceIdOf, newDeviceToken } from "../../authority/devices.ts";
import { deviceAuthority, sharedAuthority } from "../../authority/names.ts";
import { PAIR_REQUEST_TTL_MS, PAIR_REQUESTS_MAX, pairDigest, type PairRequest } from "../../authority/pair-requests.ts";
import { scopesOf } from "../../authority/principal.ts";
import { isWithin, SHARED_SCOPES } from "../../authority/scopes.ts";
import { sameHash } from "../../authority/secrets.ts";
import type { CallContext } from "../../call/context.ts";
import type { GateLocal } from "../../call/gate.ts";
import { encodeBase64Url } from "../../wire/base64url.ts";
import { ProxyError } from "../../wire/problem.ts";
import { sha256Base64Url } from "../../wire/proof.ts";
import { newUlid } from "../../wire/ulid.ts";
import { defineMethod, type Method } from "../method.ts";
import { type MethodName, PERMISSIONS } from "../permissions.ts";
import {
  deviceId,
  DEVICES_MAX,
  digest,
  epoch,
  fenced,
  label,
  named,
  publicKey,
  requestId,
  scopes,
  shownDevice,
  shownDevices,
  shownRequest,
  shownRequestOf,
  timeMs,
} from "./device-schemas.ts";

/** Nothing new is given out for an agent that is no more; only the operator comes this far to be told. */
function assertAgentLives(gate: GateLocal): void {
  if (gate.isEnded()) throw new ProxyError("PROXY_CONFLICT", { detail: "The agent has been revoked." });
}

/** The one refusal of everything else here: like the one for a device that does not exist. */
const noSuchDevice = (reason: string): ProxyError => new ProxyError("PROXY_NOT_FOUND", { reason });

const pairRequest = method(
  "device.pair.request",
  z.object({ ...named, publicKey, label: z.optional(label), scopes }),
  z.object({ requestId: z.string(), deviceId: z.string(), digest: z.string(), expiresAtMs: timeMs }),
  async (ctx, gate, params) => {
    const shown = { publicKey: params.publicKey, label: params.label ?? null, scopes: params.scopes };
    const id = await deviceIdOf(params.publicKey);
    const shownDigest = await pairDigest(shown);
    ctx.authority.assertCurrent();
    const pending = gate.devices.requests.pending(ctx.now());
    const earlier = pending.find((each) => each.deviceId === id);
    if (earlier === undefined && pending.length >= PAIR_REQUESTS_MAX) {
      throw new ProxyError("PROXY_CONFLICT", {
        detail: `At most ${PAIR_REQUESTS_MAX} pairing requests may be pending.`,
      });
    }
    const request: PairRequest = {
      ...shown,
      deviceId: id,
      requestId: earlier?.requestId ?? newUlid(ctx.now()),
      digest: shownDigest,
      requestedBy: subjectOf(ctx.principal),
      expiresAtMs: ctx.now() + PAIR_REQUEST_TTL_MS,
    };
    gate.devices.requests.put(request);
    record(ctx, gate, "device.pair.request", id, { scopes: request.scopes.join(" ") });
    gate.broadcast("device.pair.requested", shownRequestOf(request));
    return { requestId: request.requestId, deviceId: id, digest: request.digest, expiresAtMs: request.expiresAtMs };
  },
);

const pairList = method(
  "device.pair.list",
  z.object(named),
  z.object({ pending: z.array(shownRequest), paired: z.array(shownDevice) }),
  async (ctx, gate) => {
    const all = managesAll(ctx);
    return {
      pending: all ? gate.devices.requests.pending(ctx.now()).map(shownRequestOf) : [],
      paired: shownDevices(gate.devices.list().filter((device) => all || isSelf(ctx, device.deviceId))),
    };
  },
);

const pairApprove = method(
  "device.pair.approve",
  z.object({ ...named, requestId, digest }),
  z.object({ deviceId: z.string(), scopes: z.array(z.string()), epoch }),
  async (ctx, gate, params) => {
    // Whoever may make keys could otherwise make itself one that approves.
    const { originator } = await provenanceOf(ctx.db, ctx.principal);
    const find = (): PairRequest => {
      const request = managesAll(ctx) ? gate.devices.requests.find(params.requestId, ctx.now()) : null;
      if (request === null || !sameHash(request.digest, params.digest))
        throw noSuchDevice("no such request, or not as it was shown");
      if (originator === null) throw noSuchDevice("a key of which nobody knows who made it");
      if (originator === request.requestedBy || originator === authorityOf(ctx, request.deviceId))
        throw noSuchDevice("nobody approves its own request");
      if (!isWithin(request.scopes, scopesOf(ctx.principal)))
        throw noSuchDevice("nobody approves beyond what it holds");
      return request;
    };
    // A device that is paired anew loses what it held before: its old token ends as by a rotation.
    const { applied } = await gate.end({
      apply() {
        assertAgentLives(gate);
        const request = find();
        const isAnew = gate.devices.findActive(request.deviceId) !== null;
        if (!isAnew && gate.devices.active().length >= DEVICES_MAX)
          throw new ProxyError("PROXY_CONFLICT", { detail: `At most ${DEVICES_MAX} devices may be paired.` });
        const device = gate.devices.pair(request, ctx.now());
        record(ctx, gate, "device.pair.approve", device.deviceId, {
          scopes: device.scopes.join(" "),
          epoch: device.epoch,
        });
        return { ...device, isAnew };
      },
      // Where nothing was in force, nothing ends, and an approval waits for nobody.
      raise: ({ isAnew, deviceId: id, epoch: raised }) =>
        isAnew ? [{ authority: authorityOf(ctx, id), epoch: raised }] : [],
    });
    gate.broadcast("device.pair.resolved", {
      requestId: params.requestId,
      deviceId: applied.deviceId,
      resolution: "approved",
    });
    return { deviceId: applied.deviceId, scopes: [...applied.scopes], epoch: applied.epoch };
  },
);

const pairReject = method(
  "device.pair.reject",
  z.object({ ...named, requestId }),
  z.object({ requestId: z.string(), rejected: z.literal(true) }),
  async (ctx, gate, params) => {
    const request = managesAll(ctx) ? gate.devices.requests.find(params.requestId, ctx.now()) : null;
    if (request === null) throw noSuchDevice("no such request");
    gate.devices.requests.drop(request.deviceId);
    record(ctx, gate, "device.pair.reject", request.deviceId);
    gate.broadcast("device.pair.resolved", {
      requestId: request.requestId,
      deviceId: request.deviceId,
      resolution: "rejected",
    });
    return { requestId: request.requestId, rejected: true as const };
  },
);

const pairRename = method(
  "device.pair.rename",
  z.object({ ...named, deviceId, label: z.nullable(label) }),
  z.object({ deviceId: z.string(), label: z.nullable(z.string()) }),
  async (ctx, gate, params) => {
    const device = manageable(ctx, gate, params.deviceId);
    gate.devices.rename(device, params.label);
    record(ctx, gate, "device.pair.rename", device.deviceId);
    return { deviceId: device.deviceId, label: params.label };
  },
);

const ended = z.object({ deviceId: z.string(), epoch, revokedAtMs: timeMs, fenced });

const tokenRevoke = method("device.token.revoke", z.object({ ...named, deviceId }), ended, (ctx, gate, params) =>
  endDevice(ctx, gate, params.deviceId, "revoked"),
);

const pairRemove = method("device.pair.remove", z.object({ ...named, deviceId }), ended, (ctx, gate, params) =>
  endDevice(ctx, gate, params.deviceId, "removed"),
);

const tokenRotate = method(
  "device.token.rotate",
  z.object({ ...named, deviceId, scopes: z.optional(scopes) }),
  z.object({
    deviceId: z.string(),
    scopes: z.array(z.string()),
    epoch,
    rotatedAtMs: timeMs,
    tokenDelivery: z.enum(["in-band", "claim"]),
    token: z.optional(z.string()),
    fenced,
  }),
  async (ctx, gate, params) => {
    const self = isSelf(ctx, params.deviceId);
    const fresh = self ? await newDeviceToken() : null;
    let rotatedItself: Device | null = null;
    const { applied, fenced: ends } = await gate
      .end({
        apply() {
          assertAgentLives(gate);
          const device = manageable(ctx, gate, params.deviceId);
          if (device.endedAtMs !== null) throw noSuchDevice("a revoked device is not rotated");
          const wanted = params.scopes ?? [...device.scopes];
          if (!isWithin(wanted, device.ceiling)) throw noSuchDevice("scopes never exceed what was approved");
          if (!isWithin(wanted, scopesOf(ctx.principal))) throw noSuchDevice("nobody rotates beyond what it holds");
          const token =
            fresh === null ? null : { sha256: fresh.sha256, expiresAtMs: ctx.now() + ctx.config.deviceTokenTtlMs };
          const rotated = gate.devices.rotate(device, wanted, token, ctx.now());
          if (self) {
            ctx.authority.revokedItself(rotated.epoch);
            rotatedItself = rotated;
          }
          record(ctx, gate, "device.token.rotate", rotated.deviceId, {
            scopes: wanted.join(" "),
            epoch: rotated.epoch,
          });
          return rotated;
        },
        raise: (device) => [{ authority: authorityOf(ctx, device.deviceId), epoch: device.epoch }],
      })
      .catch((error: unknown) => {
        // Nobody will be told of the new token: the device, which has lost the old one, fetches another with its key.
        if (rotatedItself !== null) gate.devices.leaveToClaim(rotatedItself);
        throw error;
      });
    gate.broadcast("device.token.rotated", {
      deviceId: applied.deviceId,
      epoch: applied.epoch,
      scopes: applied.scopes,
    });
    return {
      deviceId: applied.deviceId,
      scopes: [...applied.scopes],
      epoch: applied.epoch,
      rotatedAtMs: applied.rotatedAtMs ?? ctx.now(),
      ...(fresh === null
        ? { tokenDelivery: "claim" as const }
        : { tokenDelivery: "in-band" as const, token: fresh.token }),
      fenced: ends,
    };
  },
);

const sharedRotate = method(
  "shared.auth.rotate",
  z.object(named),
  z.object({ generation: z.int(), secret: z.string(), fenced }),
  async (ctx, gate) => {
    // Who gets the secret acts with what it carries.
    if (!isWithin(SHARED_SCOPES, scopesOf(ctx.principal)))
      throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "nobody rotates beyond what it holds" });
    const secret = `sps_${encodeBase64Url(crypto.getRandomValues(new Uint8Array(32)))}`;
    const sha256 = await sha256Base64Url(new TextEncoder().encode(secret));
    const { applied: generation, fenced: ends } = await gate.end({
      apply() {
        assertAgentLives(gate);
        const next = gate.shared.replace(sha256);
        gate.audit({
          action: "shared.auth.rotate",
          subject: `agent:${agentOf(ctx)}`,
          agentDid: ctx.agentDid,
          result: "ok",
          details: { generation: next },
        });
        return next;
      },
      raise: (next) => [{ authority: sharedAuthority(agentOf(ctx)), epoch: next }],
    });
    return { generation, secret, fenced: ends };
  },
);

export const deviceMethods: readonly Method[] = [
  pairRequest,
  pairList,
  pairApprove,
  pairReject,
  pairRename,
  pairRemove,
  tokenRotate,
  tokenRevoke,
  sharedRotate,
];

/** A tombstone, and everything under the device's authority is over. Doing it twice answers the same. */
async function endDevice(ctx: CallContext, gate: GateLocal, id: string, as: "revoked" | "removed") {
  const { applied, fenced: ends } = await gate.end({
    apply() {
      // A removal that was not told in time is finished by its repetition.
      const removed = gate.devices.get(id);
      const isAgain = as === "removed" && removed?.endedAs === "removed" && managesAll(ctx);
      const device = isAgain ? removed : manageable(ctx, gate, id);
      const after = gate.devices.end(device, as, ctx.now());
      if (as === "removed") gate.devices.requests.drop(id);
      if (isSelf(ctx, id)) ctx.authority.revokedItself(after.epoch);
      const action = as === "removed" ? "device.pair.remove" : "device.token.revoke";
      record(ctx, gate, action, id, { epoch: after.epoch }, device.endedAtMs === null ? "ok" : "repeated");
      return after;
    },
    raise: (device) => [{ authority: authorityOf(ctx, id), epoch: device.epoch }],
  });
  gate.broadcast("device.token.revoked", { deviceId: id, epoch: applied.epoch, reason: as });
  return { deviceId: id, epoch: applied.epoch, revokedAtMs: applied.endedAtMs ?? ctx.now(), fenced: ends };
}

/** A device that the caller may manage. @throws the one refusal */
function manageable(ctx: CallContext, gate: GateLocal, id: string): Device {
  const device = gate.devices.get(id);
  if (device === null || device.endedAs === "removed") throw noSuchDevice("no such device");
  if (!managesAll(ctx) && !isSelf(ctx, id)) throw noSuchDevice("a device without the scope acts on itself alone");
  return device;
}

const managesAll = (ctx: CallContext): boolean => scopesOf(ctx.principal).includes("devices");
const isSelf = (ctx: CallContext, id: string): boolean =>
  ctx.principal.kind === "device" && ctx.principal.deviceId === id;
const authorityOf = (ctx: CallContext, id: string): string => deviceAuthority(agentOf(ctx), id);

function agentOf(ctx: CallContext): string {
  if (ctx.agentDid === null) throw new ProxyError("PROXY_BAD_REQUEST", { detail: "agentDid: name the agent." });
  return ctx.agentDid;
}

function record(
  ctx: CallContext,
  gate: GateLocal,
  action: string,
  id: string,
  details: Record<string, string | number> = {},
  result = "ok",
): void {
  gate.audit({ action, subject: `device:${agentOf(ctx)}/${id}`, agentDid: ctx.agentDid, result, details });
}

/** A method that runs in the gate of the agent it is about; only the operator names another agent than its own. */
function method<P extends { agentDid?: string | undefined }, R>(
  name: MethodName,
  params: z.ZodMiniType<P>,
  result: z.ZodMiniType<R>,
  handler: (ctx: CallContext, gate: GateLocal, params: P) => Promise<R>,
): Method {
  return defineMethod({
    name,
    surface: "rpc",
    inGate: true,
    permission: PERMISSIONS[name],
    params,
    result,
    async handler(ctx, given) {
      if (ctx.gate === null) throw new ProxyError("PROXY_BAD_REQUEST", { detail: "agentDid: name the agent." });
      if (given.agentDid !== undefined && given.agentDid !== ctx.agentDid)
        throw noSuchDevice("only the operator names another agent");
      return handler(ctx, ctx.gate, given);
    },
  });
}
