/**
 * Relay clients beside the agent itself: a paired device, and whoever holds the agent's shared relay secret.
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
import { type Authorize, type ConnectionOptions, createCaller, parseAnswer } from "./transport/http-call.ts";
import { createDevices, type Devices } from "./methods/devices.ts";
import type { Keys } from "./transport/keys.ts";
import { type CallBatch, type CallMethod, createCallBatch, createCallMethod, type Send } from "./methods/rpc.ts";
import { connectRelay, type RelayConnection, type RelayHandlers, type RelayOptions } from "./relay/connection.ts";
import { createRelayTicket, type RelayTicket } from "./relay/ticket.ts";
import { proofHeaders } from "./transport/signing.ts";

const AGENT_HEADER = "X-Claw-Agent-Did";

export type DeviceClientOptions = ConnectionOptions & {
  /** The device's own keys, registered at pairing. */
  readonly keys: Keys;
  readonly agentDid: string;
  /** `spd_…` */
  readonly token: string;
};

export type SharedClientOptions = ConnectionOptions & { readonly agentDid: string; readonly secret: string };

export type RelayClient = {
  readonly agentDid: string;
  /** The devices of its agent: all of them with the scope `devices`, itself alone without. */
  readonly devices: Devices;
  readonly call: CallMethod;
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
    async (parts) => ({
      Authorization: `Device ${options.token}`,
      [AGENT_HEADER]: options.agentDid,
      ...(await proofHeaders(options.keys, parts, caller.clock.nowMs())),
    }),
    caller,
  );
}

/** @returns the client of whoever holds the agent's shared relay secret; it has the scopes `relay` and `send`. */
export function createSharedClient(options: SharedClientOptions): RelayClient {
  const headers = { Authorization: `Shared ${options.secret}`, [AGENT_HEADER]: options.agentDid };
  return relayClient(options, () => Promise.resolve(headers), createCaller(options));
}

/**
 * Fetches the token that waits for a device after its approval or rotation; each waits once.
 *
 * @throws ProblemError `PROXY_CONFLICT` when none waits
 */
export async function claimDeviceToken(
  options: ConnectionOptions & { readonly keys: Keys; readonly agentDid: string; readonly deviceId: string },
): Promise<ClaimedToken> {
  const caller = createCaller(options);
  const body = JSON.stringify({ agentDid: options.agentDid, deviceId: options.deviceId });
  const { json } = await caller.call({ method: "POST", path: "/v1/devices/claim", body }, (parts) =>
    proofHeaders(options.keys, parts, caller.clock.nowMs()),
  );
  return parseAnswer(claimed, json);
}

function relayClient(
  options: { agentDid: string },
  authorize: Authorize,
  caller: ReturnType<typeof createCaller>,
): RelayClient {
  const send: Send = async (call) => (await caller.call(call, authorize)).json;
  const callMethod = createCallMethod(send);
  const relayTicket = createRelayTicket(send);
  return {
    agentDid: options.agentDid,
    devices: createDevices(callMethod, null),
    call: callMethod,
    batch: createCallBatch(send),
    relayTicket,
    connect: (handlers, relayOptions = {}) =>
      connectRelay({
        ...relayOptions,
        handlers,
        baseUrl: caller.baseUrl,
        nowMs: caller.clock.nowMs,
        ticket: async () => (await relayTicket()).ticket,
      }),
  };
}
