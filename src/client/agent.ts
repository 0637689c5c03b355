/**
 * The client of an agent: everything that an agent does with a Sallyport.
 *
 * @example
 * ```ts
 * const agent = createAgentClient({ baseUrl: "https://gate.example.com", keys, credential, onCredential: save });
 * const { deliveryId } = await agent.send({ to: peerDid, payload: { text: "hello" } });
 * console.log((await agent.deliveryStatus(deliveryId)).state); // queued
 * ```
 */
import * as z from "zod/mini";
import { GROUP_HEADER } from "../wire/group-id.ts";
import { ACCESS_HEADER } from "../wire/registry-documents.ts";
import { createDeadLetters, type DeadLetters } from "./methods/dead-letters.ts";
import { createDeliveryReceipts, type DeliveryReceipts } from "./methods/delivery-receipts.ts";
import { createDevices, type Devices } from "./methods/devices.ts";
import { createGroups, type Groups } from "./methods/groups.ts";
import { createTasks, type Tasks } from "./methods/tasks.ts";
import { createFetchedInbox, type FetchedInbox } from "./methods/inbox.ts";
import { createLookUpProfile, type LookUpProfile } from "./methods/profiles.ts";
import { createPairing, type Pairing } from "./methods/pairing.ts";
import {
  type CallBatch,
  type CallMethod,
  type CallText,
  createCallBatch,
  createCallMethod,
  createCallText,
  type Send,
} from "./methods/rpc.ts";
import {
  type AgentHandlers,
  createConversations,
  type MessagesOptions,
  type OnReceived,
  type ReceivedMessage,
  type ReplyOptions,
  type Request,
} from "./conversation/conversations.ts";
import type { InSequence } from "./conversation/messages.ts";
import type { ReplyLimit } from "./conversation/reply-guard.ts";
import { connectRelay, type RelayConnection, type RelayOptions } from "./relay/connection.ts";
import { createRelayTicket, type RelayTicket } from "./relay/ticket.ts";
import {
  type AgentCredential,
  type CredentialKeeper,
  type CredentialStore,
  createCredentialKeeper,
  memoryStore,
  type OnCredential,
} from "./transport/agent-credential.ts";
import { conversationIdValue, headerValue, mustBeObject, pathSegment, payloadTextOf } from "./transport/arguments.ts";
import { CredentialNotYetValidError, InvalidArgumentError, ProblemError } from "./transport/errors.ts";
import {
  type Answer,
  type Authorize,
  type Call,
  type ConnectionOptions,
  createCaller,
  parseAnswer,
} from "./transport/http-call.ts";
import type { Keys } from "./transport/keys.ts";

/** What an agent's client is made with. Without `onCredential` or `store` a renewed credential lives as long as the client. */
export type AgentClientOptions = ConnectionOptions & {
  readonly keys: Keys;
  readonly credential: AgentCredential;
  readonly onCredential?: OnCredential | undefined;
  /** Instead of `onCredential`, where several processes share the credential. */
  readonly store?: CredentialStore | undefined;
  /** How many replies one conversation gets; 32 within ten minutes by default. */
  readonly replyLimit?: Partial<ReplyLimit> | undefined;
};

/** A message to another agent. Exactly one of `payload` and `payloadText`. */
export type Message = {
  /** DID of the recipient. */
  readonly to: string;
  /** A group that both are in: then they need not be paired. */
  readonly groupId?: string | undefined;
  /** Any JSON value. */
  readonly payload?: unknown;
  /** JSON text, delivered as it is. */
  readonly payloadText?: string | undefined;
  /** 1 to 256 characters, none of them invisible. */
  readonly conversationId?: string | undefined;
  /** Visible ASCII. The same key with the same body is the same message for 24 hours, so that a retry does not send twice. */
  readonly idempotencyKey?: string | undefined;
  /** An https URL handed to the recipient as `replyTo`. */
  readonly receiptUrl?: string | undefined;
  /** How long the answer may wait for the delivery: 0 to 15 seconds; 0 by default. */
  readonly waitSeconds?: number | undefined;
  readonly signal?: AbortSignal | undefined;
};

/** A message to all of a group but its sender. */
export type GroupMessage = Omit<Message, "to" | "groupId" | "waitSeconds"> & { readonly groupId: string };

const accepted = z.object({
  accepted: z.literal(true),
  deliveryId: z.string(),
  state: z.enum(["queued", "delivered", "handled", "failed", "dead_lettered"]),
  delivered: z.boolean(),
  queued: z.boolean(),
  queueDepth: z.number(),
});
const fannedOut = z.object({
  accepted: z.literal(true),
  groupId: z.string(),
  deliveries: z.array(z.object({ agentDid: z.string(), deliveryId: z.string() })),
});
const deliveryStatus = z.object({
  deliveryId: z.string(),
  state: z.enum(["queued", "delivered", "handled", "failed", "dead_lettered"]),
  reason: z.optional(z.nullable(z.string())),
  attempts: z.nullable(z.number()),
  updatedAtMs: z.number(),
});

/** The message is on disk and will be delivered or reported dead. */
export type Accepted = z.infer<typeof accepted>;
/** One message for each member is on disk, and each will be delivered or reported dead. */
export type AcceptedByGroup = z.infer<typeof fannedOut>;
/** What became of a message; `attempts` counts pushes to an open socket. */
export type DeliveryStatus = z.infer<typeof deliveryStatus>;

/** A message of `messages`. */
export type ReceivedInSequence = InSequence<ReceivedMessage<Accepted>>;
export type { AgentHandlers, MessagesOptions, OnReceived, ReceivedMessage, ReplyLimit, ReplyOptions, Request };

/** What an agent can do. */
export type AgentClient = {
  readonly agentDid: string;
  /** The credential as it is now: the tokens change over time. */
  credential(): AgentCredential;
  /**
   * Sends a message. After an UnreachableError repeat it with the same `idempotencyKey` only.
   *
   * @throws InvalidArgumentError naming what cannot be sent, ProblemError, UnreachableError
   */
  send(message: Message): Promise<Accepted>;
  /** Sends one message to every other member of a group: all of them or none. @throws as `send` */
  sendToGroup(message: GroupMessage): Promise<AcceptedByGroup>;
  /** What became of a message of the last 24 hours. */
  deliveryStatus(deliveryId: string): Promise<DeliveryStatus>;
  readonly deadLetters: DeadLetters;
  /** What its own program made of what it has acknowledged. */
  readonly deliveryReceipts: DeliveryReceipts;
  /** Messages without a socket: fetched, and acknowledged by a request. */
  readonly inbox: FetchedInbox;
  readonly pairing: Pairing;
  /** Who a peer is, a fellow of a group, or the agent itself. */
  readonly profileOf: LookUpProfile;
  /** The groups that it is in. */
  readonly groups: Groups;
  /** Tasks: waiting for one, and working on its own. */
  readonly tasks: Tasks<RelayConnection>;
  /** Its relay clients. */
  readonly devices: Devices;
  readonly call: CallMethod;
  readonly callText: CallText;
  readonly batch: CallBatch;
  /** Renews the access token now; it is renewed by itself before it expires. */
  refresh(): Promise<void>;
  /** Renews the identity token now; it is renewed by itself before it expires. */
  reissue(): Promise<void>;
  /** A ticket that opens one relay socket as this agent: for a web page, see `connectByTicket`. */
  relayTicket(): Promise<RelayTicket>;
  /** Opens the relay: messages in, acknowledgements out. */
  connect(handlers: AgentHandlers<Accepted>, options?: RelayOptions): RelayConnection;
  /**
   * Messages one after the other, on a connection of their own: `for await (const message of agent.messages())`. Each is
   * acknowledged when the next one is asked for, or by its `acknowledge`; what was in hand when the loop is left comes again.
   *
   * @throws RelayStoppedError when the connection ends otherwise than by `close`
   */
  messages(options?: MessagesOptions): AsyncIterableIterator<ReceivedInSequence>;
  /**
   * Sends a message in a conversation of its own and waits for the answer to it, the recipient's `message.reply`. Other
   * messages go where `connect` and `messages` hand them; where there is neither, they wait, and so does an answer that its
   * sender has sent after one of them.
   *
   * @throws NoReplyError when none comes in time, NotAcceptedError when the message becomes a dead letter, and as `send`
   */
  request(request: Request): Promise<ReceivedMessage<Accepted>>;
  /** Closes every connection, so that nothing of this client keeps the process alive. */
  close(): void;
};

/**
 * @param options In a Worker make one client per request or Durable Object: promises do not cross requests there.
 */
export function createAgentClient(options: AgentClientOptions): AgentClient {
  mustBeObject("keys", options.keys);
  mustBeObject("credential", options.credential);
  const caller = createCaller(options);
  const store = options.store ?? memoryStore(options.credential, options.onCredential);
  const keeper = createCredentialKeeper(caller, options.keys, options.credential, store);

  const send: Send = async (call) => sendFresh(keeper, (each, authorize) => caller.call(each, authorize), call);
  const callMethod = createCallMethod(send);
  const relayTicket = createRelayTicket(send);

  const post = async (message: Message | GroupMessage): Promise<unknown> => {
    const call = { method: "POST", path: "/hooks/agent", body: payloadTextOf(message) } as const;
    return (await send({ ...call, headers: headersOf(message), signal: message.signal })).json;
  };

  const sendOne = async (message: Message): Promise<Accepted> => parseAnswer(accepted, await post(message));
  const conversations = createConversations<Accepted>({
    send: sendOne,
    nowMs: caller.clock.nowMs,
    replyLimit: options.replyLimit,
    openRelay: (handlers, relayOptions) =>
      connectRelay({
        ...relayOptions,
        WebSocket: relayOptions.WebSocket ?? options.WebSocket,
        handlers,
        baseUrl: caller.baseUrl,
        nowMs: caller.clock.nowMs,
        ticket: async () => (await relayTicket()).ticket,
        maintenance: () => keeper.renewIdentity(),
        mayReturnAfterExpiry: keeper.isAlive,
      }),
  });

  return {
    agentDid: options.credential.agentDid,
    credential: keeper.current,

    send: sendOne,
    sendToGroup: async (message) => parseAnswer(fannedOut, await post(message)),

    async deliveryStatus(deliveryId) {
      const { json } = await send({ method: "GET", path: `/v1/deliveries/${pathSegment("deliveryId", deliveryId)}` });
      return parseAnswer(deliveryStatus, json);
    },

    deadLetters: createDeadLetters(send, null),
    deliveryReceipts: createDeliveryReceipts(send, options.credential.agentDid),
    inbox: createFetchedInbox(send),
    pairing: createPairing(send),
    profileOf: createLookUpProfile(send),
    groups: createGroups(callMethod),
    tasks: createTasks(callMethod, (handlers) => conversations.connect(handlers)),
    devices: createDevices(callMethod, null),
    call: callMethod,
    callText: createCallText(send),
    batch: createCallBatch(send),
    refresh: () => keeper.refresh(keeper.current().access.token),
    reissue: () => keeper.reissue(),
    relayTicket,
    ...conversations,
  };
}

/** What a message carries beside its payload. @throws InvalidArgumentError */
function headersOf(message: Message | GroupMessage): Record<string, string> {
  const { groupId, conversationId, receiptUrl, idempotencyKey } = message;
  const { to, waitSeconds } = "to" in message ? message : { to: null, waitSeconds: undefined };
  const headers: Record<string, string> = {};
  if (to !== null) headers["X-Claw-Recipient-Agent-Did"] = headerValue("to", to);
  if (groupId !== undefined) headers[GROUP_HEADER] = headerValue("groupId", groupId);
  if (conversationId !== undefined)
    headers["X-Claw-Conversation-Id"] = conversationIdValue("conversationId", conversationId);
  if (receiptUrl !== undefined) headers["X-Claw-Delivery-Receipt-Url"] = headerValue("receiptUrl", receiptUrl);
  if (idempotencyKey !== undefined) headers["Idempotency-Key"] = headerValue("idempotencyKey", idempotencyKey);
  if (waitSeconds !== undefined) {
    if (!Number.isInteger(waitSeconds) || waitSeconds < 0)
      throw new InvalidArgumentError("waitSeconds", "is no whole number of seconds");
    headers["Prefer"] = `wait=${waitSeconds}`;
  }
  return headers;
}

/**
 * Sends with a fresh access token; one that the server no longer takes is renewed once.
 *
 * @throws CredentialNotYetValidError for an identity token that may be taken later
 */
async function sendFresh(
  keeper: CredentialKeeper,
  call: (call: Call, authorize: Authorize) => Promise<Answer>,
  each: Call,
): Promise<Answer> {
  let usedToken = "";
  const authorize: Authorize = async (parts) => {
    const headers = await keeper.authorize(parts);
    usedToken = headers[ACCESS_HEADER] ?? "";
    return headers;
  };
  try {
    return await call(each, authorize);
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    if (error.code === "PROXY_AGENT_ACCESS_INVALID") {
      await keeper.refresh(usedToken);
      return call(each, authorize);
    }
    const retryAfterMs = error.code === "PROXY_AUTH_INVALID_AIT" ? keeper.retryAfterMs() : null;
    throw retryAfterMs === null ? error : new CredentialNotYetValidError(retryAfterMs, { cause: error });
  }
}
