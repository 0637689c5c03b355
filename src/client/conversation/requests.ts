/** Messages that wait for their answer: the next message of the same conversation, from whom they were sent to. */
import type { IncomingMessage } from "../relay/inbox.ts";
import type { Receipt } from "../relay/receipts.ts";
import { NoReplyError, NotAcceptedError } from "../transport/errors.ts";

/** A request that was sent. */
export type WaitingRequest<M> = {
  /** Rejects when the request becomes a dead letter, or no answer comes in time. */
  readonly reply: Promise<M>;
  /** Which message the request is; its receipt ends the wait. */
  sentAs(deliveryId: string): void;
  /** Forgets it: an answer that comes later is a message like any other. */
  forget(): void;
};

/** The requests of one agent. */
export type Requests<M> = {
  wait(peerDid: string, conversationId: string, timeoutMs: number): WaitingRequest<M>;
  /** @returns whether the message is an answer that somebody waits for */
  take(message: M): boolean;
  /** A receipt: the request that has become a dead letter gets no answer. */
  receipt(receipt: Receipt): void;
};

type Waiting<M> = {
  readonly peerDid: string;
  deliveryId: string | null;
  readonly resolve: (message: M) => void;
  readonly reject: (error: Error) => void;
};

/** @returns requests, of which none waits */
export function createRequests<M extends IncomingMessage>(): Requests<M> {
  const waiting = new Map<string, Waiting<M>>();
  return {
    wait(peerDid, conversationId, timeoutMs) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const reply = new Promise<M>((resolve, reject) => {
        timer = setTimeout(() => reject(new NoReplyError(timeoutMs)), timeoutMs);
        waiting.set(conversationId, { peerDid, deliveryId: null, resolve, reject });
      });
      const forget = (): void => {
        clearTimeout(timer);
        waiting.delete(conversationId);
      };
      // Where sending has failed nobody looks at it any more.
      reply.catch(() => undefined);
      return {
        reply,
        forget,
        sentAs(deliveryId) {
          const own = waiting.get(conversationId);
          if (own !== undefined) own.deliveryId = deliveryId;
        },
      };
    },

    take(message) {
      const { conversationId, fromAgentDid } = message;
      const asked = conversationId === undefined ? undefined : waiting.get(conversationId);
      if (asked === undefined || asked.peerDid !== fromAgentDid) return false;
      asked.resolve(message);
      waiting.delete(conversationId ?? "");
      return true;
    },

    receipt({ deliveryId, reason }) {
      for (const asked of waiting.values()) {
        if (asked.deliveryId === null || asked.deliveryId !== deliveryId) continue;
        const why = reason ?? "no reason given";
        asked.reject(new NotAcceptedError(reason ?? "REFUSED", `the request was not delivered: ${why}`));
      }
    },
  };
}
