/** Messages that come in over the relay: in order per sender, each handled once, acknowledged when it is handled. */
import { deliverAckFrame, frameHead } from "../../wire/frame-encoder.ts";
import type { DeliverFrame } from "../../wire/frames.ts";
import { Refuse } from "../transport/errors.ts";

/** A message for this agent. */
export type IncomingMessage = {
  /** The same on every attempt. */
  readonly deliveryId: string;
  /** Null for a message of a service account, the operator or the proxy itself. */
  readonly fromAgentDid: string | null;
  readonly fromSubject?: string | undefined;
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
 * Handles a message. When it returns or resolves, the message is acknowledged; when it throws {@link Refuse}, it is
 * refused for good; when it throws anything else, it stays unacknowledged and is delivered again.
 */
export type OnMessage = (message: IncomingMessage) => void | Promise<void>;

type Verdict = { readonly accepted: true } | { readonly accepted: false; readonly reason: string };

/** Handled deliveries that are remembered, so that a repeat is acknowledged and not handled again. */
const REMEMBERED_MAX = 10_000;

export type Inbox = {
  /** Takes a delivery in; `reply` sends the acknowledgement over the socket that it came by. */
  take(frame: DeliverFrame, reply: (text: string) => void): void;
};

/** @param onError told about a handler that failed */
export function createInbox(onMessage: OnMessage, onError: (error: unknown) => void, nowMs: () => number): Inbox {
  const remembered = new Map<string, Promise<Verdict | null>>();
  const lanes = new Map<string, Promise<unknown>>();

  const handle = async (frame: DeliverFrame): Promise<Verdict | null> => {
    try {
      await onMessage(messageOf(frame));
      return { accepted: true };
    } catch (error) {
      if (error instanceof Refuse) return { accepted: false, reason: error.message };
      onError(error);
      return null;
    }
  };

  const enter = (frame: DeliverFrame): Promise<Verdict | null> => {
    const sender = frame.fromAgentDid ?? frame.fromSubject ?? "";
    const before = lanes.get(sender) ?? Promise.resolve();
    const verdict = before.then(() => handle(frame));
    lanes.set(sender, verdict);
    remembered.set(frame.deliveryId, verdict);
    const [oldest] = remembered.keys();
    if (remembered.size > REMEMBERED_MAX && oldest !== undefined) remembered.delete(oldest);
    return verdict.then((reached) => {
      // What was not taken may come again to be taken: as another attempt, or as a dead letter that is replayed.
      if (reached?.accepted !== true) remembered.delete(frame.deliveryId);
      if (lanes.get(sender) === verdict) lanes.delete(sender);
      return reached;
    });
  };

  return {
    take(frame, reply) {
      const verdict = remembered.get(frame.deliveryId) ?? enter(frame);
      verdict
        .then((reached) => {
          if (reached !== null) reply(deliverAckFrame(frameHead(nowMs()), { ackId: frame.id, ...reached }));
        })
        .catch(onError);
    },
  };
}

function messageOf(frame: DeliverFrame): IncomingMessage {
  const { v: _version, type: _type, id: _id, ts: _time, ...message } = frame;
  return message;
}
