/**
 * Dead letters: what could not be delivered to an agent, for that agent or the operator.
 *
 * @example
 * ```ts
 * const { deadLetters } = await agent.deadLetters.list({ limit: 10 });
 * for (const { id } of deadLetters) await agent.deadLetters.replay(id);
 * console.log(deadLetters.length); // 0
 * ```
 */
import * as z from "zod/mini";
import { parseAnswer } from "../transport/http-call.ts";
import type { Send } from "./rpc.ts";

const deadLetter = z.object({
  id: z.string(),
  deliveryId: z.string(),
  fromAgentDid: z.nullable(z.string()),
  reason: z.string(),
  attempts: z.number(),
  createdAtMs: z.number(),
  deadAtMs: z.number(),
  payload: z.optional(z.unknown()),
  /** The payload's own text, where it is nested too deeply to be a value. */
  payloadText: z.optional(z.string()),
});
const page = z.object({ deadLetters: z.array(deadLetter), nextCursor: z.optional(z.nullable(z.string())) });

/** A message that ended undelivered. */
export type DeadLetter = z.infer<typeof deadLetter>;
/** `nextCursor` is null on the last page. */
export type DeadLetterPage = { readonly deadLetters: readonly DeadLetter[]; readonly nextCursor: string | null };

export type DeadLetters = {
  list(query?: { readonly cursor?: string | undefined; readonly limit?: number | undefined }): Promise<DeadLetterPage>;
  /** Puts it back into the queue, with its attempts begun anew. */
  replay(id: string): Promise<void>;
  /** Throws it away. */
  purge(id: string): Promise<void>;
};

/** @param agentDid whose dead letters, where the caller is the operator; null for the calling agent's own */
export function createDeadLetters(send: Send, agentDid: string | null): DeadLetters {
  const query = (more: Record<string, string | number | undefined> = {}): string => {
    const search = new URLSearchParams();
    if (agentDid !== null) search.set("agentDid", agentDid);
    for (const [name, value] of Object.entries(more)) if (value !== undefined) search.set(name, String(value));
    return search.size === 0 ? "" : `?${search.toString()}`;
  };
  return {
    async list({ cursor, limit } = {}) {
      const json = await send({ method: "GET", path: `/v1/dead-letters${query({ cursor, limit })}` });
      const { deadLetters, nextCursor } = parseAnswer(page, json);
      return { deadLetters, nextCursor: nextCursor ?? null };
    },
    async replay(id) {
      await send({ method: "POST", path: `${pathOf(id)}/replay${query()}`, body: "{}" });
    },
    async purge(id) {
      await send({ method: "DELETE", path: pathOf(id) + query() });
    },
  };
}

function pathOf(id: string): string {
  return `/v1/dead-letters/${encodeURIComponent(id)}`;
}
