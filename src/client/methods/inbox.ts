/**
 * Messages fetched over HTTP, for programs that hold no socket (contract §3).
 *
 * @example
 * ```ts
 * const messages = await agent.inbox.fetch({ limit: 10, waitSeconds: 5 });
 * const acks = messages.map(({ deliveryId }) => ({ deliveryId, accepted: true }));
 * console.log((await agent.inbox.acknowledge(acks)) === messages.length); // true
 * ```
 */
import * as z from "zod/mini";
import { rawAt } from "../../wire/json-text.ts";
import type { IncomingMessage } from "../relay/inbox.ts";
import { parseAnswer } from "../transport/http-call.ts";
import type { Send } from "./rpc.ts";

/** What is said of a message that was fetched; its reason is read by the sender. */
export type InboxAck = {
  readonly deliveryId: string;
  readonly accepted: boolean;
  readonly reason?: string | undefined;
  /** Beside `accepted: false`: not now, tried again after so long. */
  readonly retryAfterMs?: number | undefined;
};

/** The messages that wait for an agent. */
export type FetchedInbox = {
  /**
   * Fetches what waits, oldest first; each is this client's for 60 s, and comes again where it is not acknowledged by then.
   *
   * @param options.limit 1 to 100, 100 by default
   * @param options.waitSeconds how long to wait where there is nothing: 0 to 25, 0 by default
   */
  fetch(options?: { readonly limit?: number; readonly waitSeconds?: number }): Promise<readonly IncomingMessage[]>;
  /** @returns how many of them were this client's to acknowledge */
  acknowledge(acks: readonly InboxAck[]): Promise<number>;
};

const fetched = z.object({
  messages: z.array(
    z.looseObject({
      deliveryId: z.string(),
      fromAgentDid: z.nullable(z.string()),
      toAgentDid: z.string(),
      payload: z.unknown(),
    }),
  ),
});
const acknowledged = z.object({ acknowledged: z.number() });

/** @param send how a request of the agent is authorized */
export function createFetchedInbox(send: Send): FetchedInbox {
  return {
    async fetch({ limit = 100, waitSeconds = 0 } = {}) {
      const { json, text } = await send({ method: "GET", path: `/v1/inbox?limit=${limit}&waitSeconds=${waitSeconds}` });
      const { messages } = parseAnswer(fetched, json);
      return messages.map((message, index) => ({
        ...(message as Omit<IncomingMessage, "payloadText">),
        payloadText: rawAt(text, ["messages", index, "payload"]) ?? "null",
      }));
    },
    async acknowledge(acks) {
      const { json } = await send({ method: "POST", path: "/v1/inbox/ack", body: JSON.stringify({ acks }) });
      return parseAnswer(acknowledged, json).acknowledged;
    },
  };
}
