/**
 * The operator's view of trust: every pair of agents that may write to each other.
 *
 * @example
 * ```ts
 * const { pairs } = await operator.trust.list();
 * for (const { agentDid, peerAgentDid } of pairs) await operator.trust.remove(agentDid, peerAgentDid);
 * console.log((await operator.trust.list()).pairs.length); // 0
 * ```
 */
import * as z from "zod/mini";
import { parseAnswer } from "../transport/http-call.ts";
import type { CallMethod } from "./rpc.ts";

const pair = z.object({ agentDid: z.string(), peerAgentDid: z.string(), epoch: z.number(), since: z.number() });
const page = z.object({ pairs: z.array(pair), nextCursor: z.optional(z.string()) });
const removed = z.object({ removed: z.boolean() });

/** Two agents that trust each other; `since` in milliseconds. */
export type TrustedPair = z.infer<typeof pair>;
/** `nextCursor` is null on the last page. */
export type TrustPage = { readonly pairs: readonly TrustedPair[]; readonly nextCursor: string | null };

/** The trust of all agents of an installation. */
export type Trust = {
  list(query?: { readonly cursor?: string | undefined; readonly limit?: number | undefined }): Promise<TrustPage>;
  /** Ends the trust of two agents, both ways; resolves to whether there was any. */
  remove(agentDid: string, peerAgentDid: string): Promise<boolean>;
};

/** @param call how the operator calls methods */
export function createTrust(call: CallMethod): Trust {
  return {
    async list(query = {}) {
      const { pairs, nextCursor } = parseAnswer(page, await call("trust/list", { ...query }));
      return { pairs, nextCursor: nextCursor ?? null };
    },
    remove: async (agentDid, peerAgentDid) =>
      parseAnswer(removed, await call("trust/remove", { agentDid, peerAgentDid })).removed,
  };
}
