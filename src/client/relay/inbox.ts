/** Messages that come in over the relay: in order per sender, each handled once, acknowledged when it is handled. */
import { backoffMs } from "../../resilience/backoff.ts";
import { deliverAckFrame, deliverWorkingFrame, frameHead } from "../../wire/frame-encoder.ts";
import type { DeliverFrame } from "../../wire/frames.ts";
import { NotNow, Refuse } from "../transport/errors.ts";

/** A message for this agent. */
export type IncomingMessage = {
  /** The same on every attempt. */
  readonly deliveryId: string;
  /** Null for a message of a service account, the operator or the proxy itself. */
  readonly fromAgentDid: string | null;
  readonly fromSubject?: string | undefined;
  /** The sending agent's name, as its registry has it. */
  readonly fromName?: string | undefined;
  readonly toAgentDid: string;
  readonly payload: unknown;
  /** The sender's own JSON text. */
  readonly payloadText: string;
  readonly contentType?: string | undefined;
  readonly conversationId?: string | undefined;
  readonly groupId?: string | undefined;
  readonly replyTo?: string | undefined;
  /** Trace context of the sender's request. */
  readonly traceparent?: string | undefined;
};

/**
 * Handles a message. When it returns or resolves, the message is acknowledged; when it throws {@link Refuse}, it is refused
 * permanently; when it throws {@link NotNow}, it is delivered again after the time that says; when it throws anything else, after a
 * second and then after ever longer. The later messages of its sender come after it.
 */
export type OnMessage = (message: IncomingMessage) => void | Promise<void>;

/** Where an answer to a delivery goes: the socket that it came by. */
export type Origin = {
  readonly reply: (text: string) => void;
  /** Whether the server takes `deliver_working`, and "not now", on that socket. */
  readonly isV1: boolean;
};

/** Takes deliveries in. */
export type Inbox = {
  /** Takes a delivery in, and acknowledges it over the socket that it came by once it is handled. */
  take(frame: DeliverFrame, from: Origin): void;
};

type Verdict =
  | { readonly accepted: true }
  | { readonly accepted: false; readonly reason: string }
  /** Not now: tried again after that time. */
  | { readonly accepted: false; readonly retryAfterMs: number };

/** A message that is being handled or waits for it, and the newest attempt to deliver it. Null: left for later. */
type InHand = { readonly verdict: Promise<Verdict | null>; ackId: string; from: Origin };

type Sender = {
  /** Settles when everything that was taken of it is handled. */
  tail: Promise<unknown>;
  /** The message whose handler has failed, and how often in a row. Until it comes again nothing later is handled. */
  failed: { readonly deliveryId: string; readonly failures: number } | null;
  /** Later messages that were left since then. One that comes again shows that the failed one will not. */
  readonly left: Set<string>;
};

/** Handled deliveries that are remembered, so that a repeat is acknowledged and not handled again. */
const REMEMBERED_MAX = 10_000;
/** More than a server has in flight to one client, and a bound all the same. */
const LEFT_MAX = 1_000;
/** Senders whose failure is remembered; beyond it the order of the oldest is given up. */
const SENDERS_MAX = 10_000;
/** How long a message whose handler has failed stays away: all attempts of a server together outlast half an hour. */
const RETRY = { initialMs: 1_000, maxMs: 120_000, jitterRatio: 0.2 } as const;

/** What an inbox works with. */
export type InboxOptions = {
  /** Handles one message. */
  readonly onMessage: OnMessage;
  /** Called with the error of a handler that failed. */
  readonly onError: (error: unknown) => void;
  /** The time, for the frames' heads. */
  readonly nowMs: () => number;
  /** How often a sign of work is given. The server waits 30 s for a message in hand, anew from each. */
  readonly workingMs: number;
};

/** @returns an inbox, in which nothing is remembered yet */
export function createInbox({ onMessage, onError, nowMs, workingMs }: InboxOptions): Inbox {
  const remembered = new Map<string, InHand>();
  const senders = new Map<string, Sender>();

  /** Handles a message, and says from time to time that it is at work on it. */
  const handle = async (frame: DeliverFrame, sender: Sender, inHand: InHand): Promise<Verdict | null> => {
    const before = sender.failed?.deliveryId === frame.deliveryId ? sender.failed.failures : 0;
    if (mustLeave(sender, frame.deliveryId)) return null;
    const working = setInterval(() => {
      if (inHand.from.isV1) inHand.from.reply(deliverWorkingFrame(frameHead(nowMs()), inHand.ackId));
    }, workingMs);
    try {
      await onMessage(messageOf(frame));
      return { accepted: true };
    } catch (error) {
      if (error instanceof Refuse) return { accepted: false, reason: error.message };
      const failures = before + 1;
      sender.failed = { deliveryId: frame.deliveryId, failures };
      const wanted = error instanceof NotNow ? error.retryAfterMs : undefined;
      // Who asks for a time has said all that there is to say.
      if (wanted === undefined) onError(error);
      return { accepted: false, retryAfterMs: wanted ?? backoffMs(failures, RETRY, Math.random()) };
    } finally {
      clearInterval(working);
    }
  };

  const enter = (frame: DeliverFrame, from: Origin): InHand => {
    const name = frame.fromAgentDid ?? frame.fromSubject ?? "";
    const sender = senders.get(name) ?? { tail: Promise.resolve(), failed: null, left: new Set() };
    const inHand: InHand = { ackId: frame.id, from, verdict: sender.tail.then(() => handle(frame, sender, inHand)) };
    const settled = Promise.allSettled([inHand.verdict]).then(([{ status, ...rest }]) => {
      const isAccepted = status === "fulfilled" && "value" in rest && rest.value?.accepted === true;
      // What was not taken may come again to be taken: as another attempt, or as a dead letter that is replayed.
      if (!isAccepted) remembered.delete(frame.deliveryId);
      if (sender.tail === settled && sender.failed === null) senders.delete(name);
    });
    sender.tail = settled;
    remember(senders, name, sender, SENDERS_MAX);
    remember(remembered, frame.deliveryId, inHand, REMEMBERED_MAX);
    return inHand;
  };

  return {
    take(frame, from) {
      const known = remembered.get(frame.deliveryId);
      const inHand = known ?? enter(frame, from);
      Object.assign(inHand, { ackId: frame.id, from });
      inHand.verdict
        .then((reached) => {
          // Without "not now" the server finds out by itself, when no acknowledgement has come.
          if (reached === null || ("retryAfterMs" in reached && !from.isV1)) return;
          from.reply(deliverAckFrame(frameHead(nowMs()), { ackId: frame.id, ...reached }));
        })
        .catch(onError);
    },
  };
}

/** Whether a message of a sender is left for later, since one before it is to be handled first. */
function mustLeave(sender: Sender, deliveryId: string): boolean {
  if (sender.failed === null) return false;
  // The failed one comes again before what was after it, unless it has become a dead letter.
  if (sender.failed.deliveryId === deliveryId || sender.left.has(deliveryId)) {
    sender.failed = null;
    sender.left.clear();
    return false;
  }
  if (sender.left.size < LEFT_MAX) sender.left.add(deliveryId);
  return true;
}

/** Sets an entry as the most recent one, and forgets the oldest of too many. */
function remember<T>(map: Map<string, T>, key: string, value: T, max: number): void {
  map.delete(key);
  map.set(key, value);
  const [oldest] = map.keys();
  if (map.size > max && oldest !== undefined) map.delete(oldest);
}

function messageOf(frame: DeliverFrame): IncomingMessage {
  const { v: _version, type: _type, id: _id, ts: _time, ...message } = frame;
  return message;
}
