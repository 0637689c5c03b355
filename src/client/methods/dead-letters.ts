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
import { rawElements, rawMember } from "../../wire/json-text.ts";
import { pathSegment } from "../transport/arguments.ts";
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
  payloadText: z.optional(z.string()),
});
const page = z.object({ deadLetters: z.array(deadLetter), nextCursor: z.optional(z.nullable(z.string())) });

/**
 * A message that ended undelivered. `payloadText` is its sender's own JSON text, `payload` the value that stands for; without
 * one where the text is nested too deeply to be a value.
 */
export type DeadLetter = z.infer<typeof deadLetter>;
/** `nextCursor` is null on the last page. */
export type DeadLetterPage = { readonly deadLetters: readonly DeadLetter[]; readonly nextCursor: string | null };

/** The dead letters of one agent. */
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
      const { json, text } = await send({ method: "GET", path: `/v1/dead-letters${query({ cursor, limit })}` });
      const { deadLetters, nextCursor } = parseAnswer(page, json);
      const texts = payloadTexts(text);
      const letters = deadLetters.map((letter, index) => {
        const payloadText = letter.payloadText ?? texts[index] ?? undefined;
        return payloadText === undefined ? letter : { ...letter, payloadText };
      });
      return { deadLetters: letters, nextCursor: nextCursor ?? null };
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
  return `/v1/dead-letters/${pathSegment("id", id)}`;
}

/** @returns the text of each letter's payload, null where it has none */
function payloadTexts(answer: string): (string | null)[] {
  const letters = rawMember(answer, "deadLetters");
  return rawElements((letters.ok ? letters.value : null) ?? "").map((letter) => {
    const payload = rawMember(letter, "payload");
    return payload.ok ? payload.value : null;
  });
}
