/**
 * Relay clients beside the agent itself: a paired device, and a holder of the agent's shared relay secret.
 *
 * @example
 * ```ts
 * const { token } = await claimDeviceToken({ baseUrl, keys, agentDid, deviceId: await deviceIdOf(keys.publicKey) });
 * const device = createDeviceClient({ baseUrl, keys, agentDid, token });
 * const relay = device.connect({ onMessage: (message) => console.log(message.payload) });
 * await relay.enqueue({ to: peerDid, payload: { text: "hello" } });
 * relay.close();
 * console.log((await relay.ended).why); // closed
 * ```
 */
import * as z from "zod/mini";
import { createGroups, type Groups } from "./methods/groups.ts";
import { createDevices, type Devices, type Scope } from "./methods/devices.ts";
import {
  type CallBatch,
  type CallMethod,
  type CallText,
  createCallBatch,
  createCallMethod,
  createCallText,
  type Send,
} from "./methods/rpc.ts";
import { connectRelay, type RelayConnection, type RelayHandlers, type RelayOptions } from "./relay/connection.ts";
import { createRelayTicket, type RelayTicket } from "./relay/ticket.ts";
import { ProblemError, UnexpectedAnswerError, UnreachableError } from "./transport/errors.ts";
import {
  type Authorize,
  type Caller,
  type ConnectionOptions,
  createCaller,
  parseAnswer,
} from "./transport/http-call.ts";
import { deviceIdOf, type Keys } from "./transport/keys.ts";
import { provenBy } from "./transport/signing.ts";

const AGENT_HEADER = "X-Claw-Agent-Did";

/** What a device's client is made with. */
export type DeviceClientOptions = ConnectionOptions & {
  /** The device's own keys, registered at pairing. */
  readonly keys: Keys;
  readonly agentDid: string;
  /** `spd_…` */
  readonly token: string;
};

/** What the client of a shared secret's holder is made with. */
export type SharedClientOptions = ConnectionOptions & { readonly agentDid: string; readonly secret: string };

/** Who claims: the device's own keys, and whose device it is. */
export type ClaimOptions = ConnectionOptions & {
  readonly keys: Keys;
  readonly agentDid: string;
  readonly deviceId: string;
};

/** What a relay client can do, within its scopes. */
export type RelayClient = {
  readonly agentDid: string;
  /** The devices of its agent: all of them with the scope `devices`, itself alone without. */
  readonly devices: Devices;
  /** The groups of its agent, with the scope `admin`. */
  readonly groups: Groups;
  readonly call: CallMethod;
  readonly callText: CallText;
  readonly batch: CallBatch;
  /** A ticket that opens one relay socket as this client: for a web page, see `connectByTicket`. */
  relayTicket(): Promise<RelayTicket>;
  connect(handlers: RelayHandlers, options?: RelayOptions): RelayConnection;
};

const claimed = z.object({
  token: z.string(),
  scopes: z.array(z.string()),
  epoch: z.number(),
  expiresAtMs: z.number(),
});
/** A device token, shown this once. */
export type ClaimedToken = z.infer<typeof claimed>;

/** @returns the client of a paired device. */
export function createDeviceClient(options: DeviceClientOptions): RelayClient {
  const caller = createCaller(options);
  return relayClient(
    options,
    (request) => {
      const credential = { Authorization: `Device ${options.token}`, [AGENT_HEADER]: options.agentDid };
      return provenBy(options.keys, credential, request, caller.clock.nowMs());
    },
    caller,
  );
}

/**
 * The client of a holder of the agent's shared relay secret; it has the scopes `relay` and `send`.
 *
 * @example
 * ```ts
 * const { secret } = await agent.devices.rotateSharedSecret();
 * const holder = createSharedClient({ baseUrl, agentDid: agent.agentDid, secret });
 * const relay = holder.connect({ onMessage: (message) => console.log(message.payload) });
 * await relay.enqueue({ to: peerDid, payload: { text: "hello" } });
 * relay.close();
 * console.log((await relay.ended).why); // closed
 * ```
 */
export function createSharedClient(options: SharedClientOptions): RelayClient {
  const headers = { Authorization: `Shared ${options.secret}`, [AGENT_HEADER]: options.agentDid };
  return relayClient(options, () => Promise.resolve(headers), createCaller(options));
}

/**
 * Fetches the token that waits for a device after its approval or rotation; each waits once.
 *
 * @throws ProblemError `PROXY_CONFLICT` when none waits
 */
export async function claimDeviceToken(options: ClaimOptions): Promise<ClaimedToken> {
  const caller = createCaller(options);
  const body = JSON.stringify({ agentDid: options.agentDid, deviceId: options.deviceId });
  const { json } = await caller.call({ method: "POST", path: "/v1/devices/claim", body }, (request) =>
    provenBy(options.keys, {}, request, caller.clock.nowMs()),
  );
  return parseAnswer(claimed, json);
}

/** What a device's own rotation gives; `fenced` is null where the answer was lost and the token was claimed. */
export type RotatedToken = {
  readonly token: string;
  readonly scopes: readonly string[];
  readonly epoch: number;
  readonly fenced: { readonly sockets: number; readonly inFlight: number } | null;
};

/**
 * Ends a device's own token and gets the next one. Where the answer is lost, the next one is claimed once with the device's
 * key, which the server allows for 60 seconds.
 *
 * @example
 * ```ts
 * const { token } = await claimDeviceToken({ baseUrl, keys, agentDid, deviceId: await deviceIdOf(keys.publicKey) });
 * const next = await rotateDeviceToken({ baseUrl, keys, agentDid, token }, ["relay"]);
 * console.log(next.token === token, next.scopes.join(), next.epoch); // false relay 2
 * ```
 *
 * @param scopes fewer than it has; the same by default
 * @throws RpcError, ProblemError, UnreachableError: when the claim is not answered either, it may be repeated
 */
export async function rotateDeviceToken(
  options: DeviceClientOptions,
  scopes?: readonly Scope[],
): Promise<RotatedToken> {
  const deviceId = await deviceIdOf(options.keys.publicKey);
  try {
    const { token, fenced, ...rest } = await createDeviceClient(options).devices.rotate(deviceId, scopes);
    if (token === undefined) throw new UnexpectedAnswerError("the rotation gave no token", null);
    return { token, fenced, scopes: rest.scopes, epoch: rest.epoch };
  } catch (error) {
    // A gateway that answers for the server has not passed its answer on either.
    const isLost = error instanceof UnexpectedAnswerError && (error.status ?? 0) >= 500;
    if (!isLost && !(error instanceof UnreachableError)) throw error;
    return { ...(await claimedAfter(error, { ...options, deviceId })), fenced: null };
  }
}

/** @throws the error of the lost answer, where there is nothing to claim: the rotation has not happened */
async function claimedAfter(lost: Error, options: ClaimOptions): Promise<Omit<RotatedToken, "fenced">> {
  try {
    const { token, scopes, epoch } = await claimDeviceToken(options);
    return { token, scopes, epoch };
  } catch (error) {
    if (error instanceof ProblemError && error.code === "PROXY_CONFLICT") throw lost;
    throw error;
  }
}

function relayClient(
  options: ConnectionOptions & { agentDid: string },
  authorize: Authorize,
  caller: Caller,
): RelayClient {
  const send: Send = (call) => caller.call(call, authorize);
  const callMethod = createCallMethod(send);
  const relayTicket = createRelayTicket(send);
  return {
    agentDid: options.agentDid,
    devices: createDevices(callMethod, null),
    groups: createGroups(callMethod),
    call: callMethod,
    callText: createCallText(send),
    batch: createCallBatch(send),
    relayTicket,
    connect: (handlers, relayOptions = {}) =>
      connectRelay({
        ...relayOptions,
        WebSocket: relayOptions.WebSocket ?? options.WebSocket,
        handlers,
        baseUrl: caller.baseUrl,
        nowMs: caller.clock.nowMs,
        ticket: async () => (await relayTicket()).ticket,
      }),
  };
}
