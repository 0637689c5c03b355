/**
 * Pairing: how two agents come to trust each other (contract §3).
 *
 * @example
 * ```ts
 * const { ticket } = await agent.pairing.start({ profile: { agentName: "Scout", humanName: "Ann" } });
 * await other.pairing.confirm({ ticket, profile: { agentName: "Bob", humanName: "Bo" } });
 * console.log(await agent.pairing.status(ticket), (await other.pairing.peers())[0]?.agentName); // confirmed Scout
 * ```
 */
import * as z from "zod/mini";
import { parseAnswer } from "../transport/http-call.ts";
import type { Send } from "./rpc.ts";

/** How an agent introduces itself to the other. */
export type PairProfile = {
  readonly agentName: string;
  readonly humanName: string;
  readonly proxyOrigin?: string | undefined;
};

const started = z.object({ ticket: z.string(), expiresAtMs: z.number() });
const confirmed = z.object({
  paired: z.literal(true),
  initiatorAgentDid: z.string(),
  responderAgentDid: z.string(),
  notified: z.boolean(),
});
const status = z.object({ status: z.enum(["pending", "confirmed"]) });
const removed = z.object({ removed: z.boolean() });
const peers = z.object({
  peers: z.array(z.object({ agentDid: z.string(), agentName: z.string(), since: z.number() })),
});

/** Works once, until `expiresAtMs`. */
export type PairTicket = z.infer<typeof started>;
/** `notified: false`: the trust stands, and the initiator is notified later. */
export type PairConfirmation = z.infer<typeof confirmed>;
/** An agent that trusts this one; `since` in milliseconds since 1970. */
export type Peer = z.infer<typeof peers>["peers"][number];

/** The trust of one agent with others. */
export type Pairing = {
  /** Makes a single-use ticket; hand it to the other agent by a way that you trust. */
  start(request: {
    readonly profile: PairProfile;
    /** 1 to 900; 300 by default. */
    readonly ttlSeconds?: number | undefined;
    /** The only agent that may confirm. */
    readonly allowResponderAgentDid?: string | undefined;
  }): Promise<PairTicket>;
  /** Uses a ticket up and makes the trust. */
  confirm(request: { readonly ticket: string; readonly profile: PairProfile }): Promise<PairConfirmation>;
  status(ticket: string): Promise<"pending" | "confirmed">;
  /** Ends the trust with a peer; resolves to whether there was any. */
  remove(peerAgentDid: string): Promise<boolean>;
  peers(): Promise<readonly Peer[]>;
};

/** @param send how a request of the agent is authorized */
export function createPairing(send: Send): Pairing {
  const post = async (path: string, body: unknown): Promise<unknown> =>
    (await send({ method: "POST", path, body: JSON.stringify(body) })).json;
  return {
    async start({ profile, ...rest }) {
      return parseAnswer(started, await post("/pair/start", { initiatorProfile: profile, ...rest }));
    },
    async confirm({ ticket, profile }) {
      return parseAnswer(confirmed, await post("/pair/confirm", { ticket, responderProfile: profile }));
    },
    async status(ticket) {
      return parseAnswer(status, await post("/pair/status", { ticket })).status;
    },
    async remove(peerAgentDid) {
      return parseAnswer(removed, await post("/pair/remove", { peerAgentDid })).removed;
    },
    async peers() {
      return parseAnswer(peers, (await send({ method: "GET", path: "/pair/peers" })).json).peers;
    },
  };
}
