/** What an agent says to whom it hears: replies, requests, and messages as a sequence. */
import { newUlid } from "../../wire/ulid.ts";
import type { IncomingMessage } from "../relay/inbox.ts";
import type { RelayConnection, RelayHandlers, RelayOptions } from "../relay/connection.ts";
import { abortable } from "../transport/abort.ts";
import { InvalidArgumentError, NotNow, RelayStoppedError } from "../transport/errors.ts";
import { type InSequence, messageSequence, withMethod } from "./messages.ts";
import { createReplyGuard, REPLY_LIMIT, type ReplyLimit } from "./reply-guard.ts";
import { createRequests } from "./requests.ts";

/** What may go with a reply. */
export type ReplyOptions = {
  /** As in `send`: for a reply that may be tried again. */
  readonly idempotencyKey?: string | undefined;
  readonly signal?: AbortSignal | undefined;
};

/** A message that can be replied to. */
export type ReceivedMessage<A> = IncomingMessage & {
  /**
   * Sends to the message's sender, in its conversation; where it is in none, the reply begins one with the message's `deliveryId`.
   *
   * @throws ReplyLimitError after 32 replies in one conversation within ten minutes; InvalidArgumentError where no agent has
   *         sent the message; and as `send`
   */
  reply(payload: unknown, options?: ReplyOptions): Promise<A>;
};

/** Handles a message; see `OnMessage`. */
export type OnReceived<A> = (message: ReceivedMessage<A>) => void | Promise<void>;

/** Handlers of an agent's relay. */
export type AgentHandlers<A> = Omit<RelayHandlers, "onMessage"> & { readonly onMessage: OnReceived<A> };

/** A message that is to be answered. */
export type Request = {
  /** DID of who is asked. */
  readonly to: string;
  readonly groupId?: string | undefined;
  /** Any JSON value. */
  readonly payload?: unknown;
  /** JSON text, delivered as it is. */
  readonly payloadText?: string | undefined;
  /** How long to wait for the answer, in milliseconds; 60,000 by default, at most a day. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
};

/** How messages are asked for. */
export type MessagesOptions = RelayOptions & Omit<RelayHandlers, "onMessage">;

/** What conversations need of the agent. */
export type ConversationSetup<A> = {
  readonly send: (
    message: Omit<Request, "timeoutMs"> & ReplyOptions & { readonly conversationId: string },
  ) => Promise<A>;
  readonly openRelay: (handlers: RelayHandlers, options: RelayOptions) => RelayConnection;
  readonly nowMs: () => number;
  readonly replyLimit?: Partial<ReplyLimit> | undefined;
};

/** The conversations of one agent. */
export type Conversations<A> = {
  connect(handlers: AgentHandlers<A>, options?: RelayOptions): RelayConnection;
  messages(options?: MessagesOptions): AsyncIterableIterator<InSequence<ReceivedMessage<A>>>;
  request(request: Request): Promise<ReceivedMessage<A>>;
  /** Closes every connection. */
  close(): void;
};

const REQUEST_TIMEOUT_MS = 60_000;
const REQUEST_TIMEOUT_MAX_MS = 86_400_000;
/** When what only a program could take is delivered again, while there is no program but only a request. */
const LATER_MS = 5_000;

/** @returns the conversations of an agent that has no connection yet */
export function createConversations<A extends { readonly deliveryId: string }>(
  setup: ConversationSetup<A>,
): Conversations<A> {
  const guard = createReplyGuard({ ...REPLY_LIMIT, ...setup.replyLimit }, setup.nowMs);
  const requests = createRequests<ReceivedMessage<A>>();
  const relays = new Set<RelayConnection>();

  const received = (message: IncomingMessage): ReceivedMessage<A> =>
    withMethod({ ...message }, "reply", async (payload: unknown, options: ReplyOptions = {}) => {
      const { fromAgentDid: to, conversationId, groupId, deliveryId } = message;
      if (to === null) throw new InvalidArgumentError("message", "comes from no agent, which could be replied to");
      // What begins a conversation counts in it, and among all that are begun: a program that ends each would go on for ever.
      if (conversationId === undefined) guard.count(to, null);
      guard.count(to, conversationId ?? deliveryId);
      return setup.send({ ...options, to, payload, groupId, conversationId: conversationId ?? deliveryId });
    });

  const connect: Conversations<A>["connect"] = ({ onMessage, onReceipt, ...handlers }, options = {}) => {
    const relay = setup.openRelay(
      {
        ...handlers,
        async onMessage(message) {
          const own = received(message);
          if (!requests.take(own)) await onMessage(own);
        },
        async onReceipt(receipt) {
          if (receipt.status === "dead_lettered") requests.receipt(receipt);
          await onReceipt?.(receipt);
        },
      },
      options,
    );
    relays.add(relay);
    void relay.ended.then(() => relays.delete(relay));
    return relay;
  };

  /** Where no program listens there is a connection for the answer alone; whatever else comes by it comes again. */
  const listening = (): { readonly failed: Promise<never>; close(): void } => {
    if (relays.size > 0) return { failed: new Promise<never>(() => undefined), close: () => undefined };
    const relay = connect({
      onMessage: () => Promise.reject(new NotNow("only an answer is waited for", LATER_MS)),
    });
    const failed = relay.ended.then(({ why, detail }) =>
      Promise.reject(new RelayStoppedError(`the relay has ended (${why}): ${detail}`)),
    );
    failed.catch(() => undefined);
    return { failed, close: () => relay.close() };
  };

  return {
    connect,

    messages({ signal, ...options } = {}) {
      return messageSequence((onMessage) => connect({ ...options, onMessage }, options), signal);
    },

    async request({ timeoutMs = REQUEST_TIMEOUT_MS, signal, ...message }) {
      if (!(timeoutMs >= 1 && timeoutMs <= REQUEST_TIMEOUT_MAX_MS))
        throw new InvalidArgumentError("timeoutMs", `is none of 1 to ${REQUEST_TIMEOUT_MAX_MS} milliseconds`);
      const conversationId = `request-${newUlid(setup.nowMs())}`;
      const waiting = requests.wait(message.to, conversationId, timeoutMs);
      const relay = listening();
      try {
        const { deliveryId } = await setup.send({ ...message, conversationId, signal });
        waiting.sentAs(deliveryId);
        const reply = await abortable(Promise.race([waiting.reply, relay.failed]), signal);
        // Its acknowledgement is on its way when this turn ends; the socket closes after it.
        await new Promise<void>((resolve) => setTimeout(resolve, 0));
        return reply;
      } finally {
        waiting.forget();
        relay.close();
      }
    },

    close() {
      for (const relay of relays) relay.close();
    },
  };
}
