/**
 * Relay clients paired with an agent (contract §5, Devices): asked for by the agent, approved by another, bound to a key
 * of their own.
 *
 * @example
 * ```ts
 * const deviceKeys = await generateKeys(); // on the device; the private half stays there
 * const wanted = { publicKey: deviceKeys.publicKey, label: "laptop", scopes: ["relay", "send"] } as const;
 * const { requestId, digest, deviceId } = await agent.devices.request(wanted);
 * if (digest !== (await pairingDigest(wanted))) throw new Error("another request than the one that was made");
 * await operator.devicesOf(agent.agentDid).approve({ requestId, digest });
 * const { token } = await claimDeviceToken({ baseUrl, keys: deviceKeys, agentDid: agent.agentDid, deviceId });
 * console.log(token.slice(0, 4), (await agent.devices.list()).paired[0]?.status); // spd_ active
 * ```
 */
import * as z from "zod/mini";
import { sha256Base64Url } from "../../wire/proof.ts";
import { parseAnswer } from "../transport/http-call.ts";
import type { CallMethod } from "./rpc.ts";

/**
 * What a device may do: receive and acknowledge (`relay`), write messages (`send`), read or change tasks, manage devices,
 * manage API keys and the shared secret (`admin`). In the order in which they are written.
 */
export const SCOPES = ["relay", "send", "tasks:read", "tasks:write", "devices", "admin"] as const;
/** One of {@link SCOPES}. */
export type Scope = (typeof SCOPES)[number];

const requested = z.object({
  requestId: z.string(),
  deviceId: z.string(),
  digest: z.string(),
  expiresAtMs: z.number(),
});
const pendingDevice = z.object({
  requestId: z.string(),
  deviceId: z.string(),
  publicKey: z.string(),
  label: z.nullable(z.string()),
  scopes: z.array(z.string()),
  digest: z.string(),
  expiresAtMs: z.number(),
});
const pairedDevice = z.object({
  deviceId: z.string(),
  label: z.nullable(z.string()),
  scopes: z.array(z.string()),
  approvedScopes: z.array(z.string()),
  epoch: z.number(),
  /** Whether it has a relay socket open; an older installation does not say. */
  connected: z.optional(z.boolean()),
  /** `waiting`: its token waits to be claimed. */
  status: z.enum(["waiting", "active", "revoked"]),
  pairedAtMs: z.number(),
  rotatedAtMs: z.nullable(z.number()),
  lastUsedAtMs: z.nullable(z.number()),
  expiresAtMs: z.nullable(z.number()),
  revokedAtMs: z.nullable(z.number()),
});
const scopeRequest = z.object({
  deviceId: z.string(),
  scopes: z.array(z.string()),
  digest: z.string(),
  expiresAtMs: z.number(),
});
const listed = z.object({
  pending: z.array(pendingDevice),
  paired: z.array(pairedDevice),
  /** An older installation does not say. */
  scopeRequests: z.optional(z.array(scopeRequest)),
});
const approved = z.object({ deviceId: z.string(), scopes: z.array(z.string()), epoch: z.number() });
const fenced = z.object({ sockets: z.number(), inFlight: z.number() });
/** The shared secret in force was handed out to what has ended: it stays, unless it is rotated. */
const sharedSecretKnown = z.optional(z.literal(true));
const rotated = z.object({
  deviceId: z.string(),
  scopes: z.array(z.string()),
  epoch: z.number(),
  rotatedAtMs: z.number(),
  tokenDelivery: z.enum(["in-band", "claim"]),
  token: z.optional(z.string()),
  fenced,
  sharedSecretKnown,
});
const ended = z.object({
  deviceId: z.string(),
  epoch: z.number(),
  revokedAtMs: z.number(),
  fenced,
  sharedSecretKnown,
});
const rotatedSecret = z.object({ generation: z.number(), secret: z.string(), fenced });

/** A request that waits to be approved until `expiresAtMs`. */
export type RequestedDevice = z.infer<typeof requested>;
/** A request as it is shown to the one who approves it; `digest` stands for key, scopes and label. */
export type PendingDevice = z.infer<typeof pendingDevice>;
/** What a paired device asks to hold, itself included in what it holds already; `digest` stands for its key, this and its label. */
export type ScopeRequest = z.infer<typeof scopeRequest>;
/** A device as it is listed; times in milliseconds since 1970. */
export type PairedDevice = z.infer<typeof pairedDevice>;
/** A device whose token waits to be claimed. */
export type ApprovedDevice = z.infer<typeof approved>;
/** `fenced`: sockets that were closed, and calls in flight that were ended. */
export type RotatedDevice = z.infer<typeof rotated>;
/** A device that has ended, and what was fenced with it. */
export type EndedDevice = z.infer<typeof ended>;
/** A shared secret, shown this once. */
export type RotatedSecret = z.infer<typeof rotatedSecret>;

/** What a device asks to be. */
export type DeviceRequest = {
  /** base64url of 32 bytes; the device keeps the private half. */
  readonly publicKey: string;
  readonly label?: string | undefined;
  readonly scopes: readonly Scope[];
};

/**
 * The devices of an agent. Every refusal looks like the one for a device that does not exist (`PROXY_NOT_FOUND`). What ends
 * something fails with `DRAIN_TIMEOUT` when it cannot be sure within 5 s that it is over: repeat it until it resolves.
 */
export type Devices = {
  /** Asks for a device, for 5 minutes; the agent alone may. The same key refreshes its request. */
  request(device: DeviceRequest): Promise<RequestedDevice>;
  list(): Promise<{
    readonly pending: readonly PendingDevice[];
    readonly paired: readonly PairedDevice[];
    readonly scopeRequests?: readonly ScopeRequest[] | undefined;
  }>;
  /** Asks for more scopes, for 5 minutes; a device alone may, for itself. */
  requestScopes(scopes: readonly Scope[]): Promise<ScopeRequest>;
  /** Gives a device the scopes that it asked for, with the token that it has. No caller approves its own request, or beyond what it holds. */
  approveScopes(request: { readonly deviceId: string; readonly digest: string }): Promise<ApprovedDevice>;
  /** Approves what was shown under this digest. No caller approves its own request, or beyond what it holds. */
  approve(request: { readonly requestId: string; readonly digest: string }): Promise<ApprovedDevice>;
  reject(requestId: string): Promise<void>;
  /** Ends a device and takes it off the list. */
  remove(deviceId: string): Promise<EndedDevice>;
  rename(deviceId: string, label: string | null): Promise<void>;
  /**
   * Ends a device's token; the next one comes with the answer when a device rotates itself, and waits to be claimed
   * otherwise.
   */
  rotate(deviceId: string, scopes?: readonly Scope[]): Promise<RotatedDevice>;
  /** Ends a device permanently; only a new pairing brings it back. */
  revoke(deviceId: string): Promise<EndedDevice>;
  /** Makes another shared relay secret and shows it this once; every holder of the one before is cut off. */
  rotateSharedSecret(): Promise<RotatedSecret>;
};

/** @param agentDid whose devices, where the caller is the operator; null for the caller's own agent */
export function createDevices(call: CallMethod, agentDid: string | null): Devices {
  const about = agentDid === null ? {} : { agentDid };
  return {
    request: async ({ publicKey, label, scopes }) =>
      parseAnswer(requested, await call("device.pair.request", { ...about, publicKey, label, scopes })),
    list: async () => parseAnswer(listed, await call("device.pair.list", about)),
    approve: async ({ requestId, digest }) =>
      parseAnswer(approved, await call("device.pair.approve", { ...about, requestId, digest })),
    requestScopes: async (scopes) =>
      parseAnswer(scopeRequest, await call("device.scopes.request", { ...about, scopes })),
    approveScopes: async ({ deviceId, digest }) =>
      parseAnswer(approved, await call("device.scopes.approve", { ...about, deviceId, digest })),
    async reject(requestId) {
      await call("device.pair.reject", { ...about, requestId });
    },
    remove: async (deviceId) => parseAnswer(ended, await call("device.pair.remove", { ...about, deviceId })),
    async rename(deviceId, label) {
      await call("device.pair.rename", { ...about, deviceId, label });
    },
    rotate: async (deviceId, scopes) =>
      parseAnswer(rotated, await call("device.token.rotate", { ...about, deviceId, scopes })),
    revoke: async (deviceId) => parseAnswer(ended, await call("device.token.revoke", { ...about, deviceId })),
    rotateSharedSecret: async () => parseAnswer(rotatedSecret, await call("shared.auth.rotate", about)),
  };
}

/**
 * What an approval is bound to. The device and the one who approves compute it each from what they see, so that neither has
 * to believe the other.
 *
 * @returns b64url(SHA-256(JSON of `[publicKey, scopes in their order, label or null]`))
 */
export function pairingDigest(request: {
  readonly publicKey: string;
  readonly label?: string | null | undefined;
  readonly scopes: readonly string[];
}): Promise<string> {
  const scopes = SCOPES.filter((scope) => request.scopes.includes(scope));
  const shown = JSON.stringify([request.publicKey, scopes, request.label ?? null]);
  return sha256Base64Url(new TextEncoder().encode(shown));
}
