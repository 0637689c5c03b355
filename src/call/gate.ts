/** What a call may ask of the gate that it runs in, and of other gates. */
import type { AuditEvent } from "../audit/entry.ts";
import type { EndAgent, EndAuthority, Fenced } from "../authority/authority.ts";
import type { Devices } from "../authority/device/devices.ts";
import type { ApiKeys } from "../authority/ended-api-keys.ts";
import type { SharedSecret } from "../authority/shared-secret.ts";
import type { AgentDid } from "../wire/did.ts";
import type { JsonText } from "../wire/json-text.ts";
import type { GroupFence } from "./group-fence.ts";

/** `handled` and `failed`: what the recipient's own program made of a message that it had acknowledged. */
export const DELIVERY_STATES = ["queued", "delivered", "handled", "failed", "dead_lettered"] as const;
export type DeliveryState = (typeof DELIVERY_STATES)[number];

/** What a recipient's program made of a message. */
export type Handling = { outcome: "handled" | "failed"; reason: string | null };

export type DeliveryStatus = {
  deliveryId: string;
  state: DeliveryState;
  reason?: string;
  /** Null while it waits at its recipient's gate and that does not answer: unknown at the moment. */
  attempts: number | null;
  updatedAtMs: number;
};

export type DeadLetter = {
  id: string;
  deliveryId: string;
  fromAgentDid: AgentDid | null;
  reason: string;
  attempts: number;
  bytes: number;
  createdAtMs: number;
  deadAtMs: number;
  /** The message's own text. */
  payload: JsonText;
};

/** A message that a holder has fetched, by the members of a `deliver` frame (contract §4). */
export type FetchedMessage = {
  deliveryId: string;
  fromAgentDid: AgentDid | null;
  fromSubject?: string;
  fromName?: string;
  toAgentDid: AgentDid;
  contentType?: string;
  conversationId?: string;
  groupId?: string;
  replyTo?: string;
  traceparent?: string;
  /** The message's own text. */
  payload: JsonText;
};

/** What a holder says of a message that it has fetched. */
export type FetchedAck = {
  deliveryId: string;
  accepted: boolean;
  reason?: string | undefined;
  retryAfterMs?: number | undefined;
};

/** What a message of the proxy's own carries into an agent's delivery queue. */
export type LocalMessage = {
  fromAgentDid: AgentDid | null;
  /** Who sent it where no agent did, e.g. `service_account:<id>`. */
  fromSubject?: string;
  /** JSON text. */
  payload: string;
  /** Makes the message repeatable: the same id is queued once. */
  deliveryId?: string;
  conversationId?: string;
};

/** Operations on the gate that a call runs in. */
export type GateLocal = {
  /**
   * Ends everything of this agent, or everything issued before `keepJti`: the gate's row, epoch and sockets in one turn;
   * then `commit`; then the calls in flight are drained. Sockets close with 4001 after the answer.
   *
   * @throws ProxyError DRAIN_TIMEOUT when that cannot be reached in 5 s.
   */
  endAgent(end: EndAgent): Promise<Fenced>;
  /**
   * Ends an authority: `apply` in one turn, then the fencing token at the primary, then the calls in flight. Its sockets
   * close after the answer.
   *
   * @throws ProxyError DRAIN_TIMEOUT when that cannot be reached in 5 s.
   */
  end<T>(end: EndAuthority<T>): Promise<{ applied: T; fenced: Fenced }>;
  /** Whether the agent itself has been revoked, or is being ended at this moment: nothing new is to be given out then. */
  isEnded(): boolean;
  devices: Devices;
  /** Ids of the devices that have a relay socket open at this moment. */
  connectedDevices(): ReadonlySet<string>;
  shared: SharedSecret;
  apiKeys: ApiKeys;
  /** An entry of the audit, in the commit of what it reports. */
  audit(event: AuditEvent): void;
  /** Tells the sockets that may manage devices. */
  broadcast(event: string, payload: Record<string, unknown>): void;
  /** Tells the sockets that may read tasks what a task is at. */
  announceTask(payload: Record<string, unknown>): void;
  /** Queues a message for this agent's own relay, at least once and in order. Durable before the call's answer. */
  deliverLocal(message: LocalMessage): { deliveryId: string };
  /** Puts a message for another agent into this agent's outbox; pairing is not consulted. Durable before the call's answer. */
  send(to: AgentDid, message: LocalMessage): { deliveryId: string };
  /** A peer below this trust epoch is out; what it has queued here unpushed is dead-lettered. Durable before the call's answer. */
  fencePeer(peer: AgentDid, trustEpoch: number): void;
  /** What was judged by an older list of a group's members is out. Durable before the call's answer. */
  fenceGroup(fence: GroupFence): void;
  /** A relay ticket that carries this call's authority to a socket, once and for 30 s. */
  issueRelayTicket(): Promise<{ ticket: string; expiresAtMs: number }>;
  /** What became of a message that this agent sent; null when there is none, or none any more. */
  deliveryStatus(deliveryId: string): Promise<DeliveryStatus | null>;
  inbox: {
    /** Takes what is due for the caller, oldest first, each for 60 s. */
    fetch(limit: number): FetchedMessage[];
    /** @returns how many of them were the caller's to acknowledge */
    acknowledge(acks: readonly FetchedAck[]): number;
  };
  /** Whether a message waits here, or is in the hands of one of this agent's clients: it has not been delivered. */
  isWaiting(deliveryId: string): boolean;
  /** What a recipient reported of a message that this agent sent; null when it has reported nothing of that message. */
  handlingOf(deliveryId: string, recipient: AgentDid): Handling | null;
  deadLetters: {
    /** Newest first; `before` is the id that the last page ended with. */
    list(before: string | null, limit: number): DeadLetter[];
    replay(id: string): boolean;
    purge(id: string): boolean;
  };
};
