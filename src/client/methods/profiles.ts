/**
 * Who an agent is, for those who know it.
 *
 * @example
 * ```ts
 * console.log((await agent.profileOf(peerDid)).name); // peer
 * ```
 */
import * as z from "zod/mini";
import { parseAnswer } from "../transport/http-call.ts";
import type { Send } from "./rpc.ts";

const profile = z.object({
  agentDid: z.string(),
  name: z.string(),
  ownerName: z.optional(z.string()),
  framework: z.string(),
  since: z.number(),
});

/** `ownerName` as the agent gave it when it paired; `since` in milliseconds since 1970. */
export type AgentProfile = z.infer<typeof profile>;

/**
 * Looks an agent up: a peer, a fellow of a group, or the caller itself; for an operator anybody.
 *
 * @throws ProblemError PROXY_NOT_FOUND for everybody else, and for nobody
 */
export type LookUpProfile = (agentDid: string) => Promise<AgentProfile>;

/** @param send how a request is authorized */
export function createLookUpProfile(send: Send): LookUpProfile {
  return async (agentDid) => {
    const path = `/v1/agents/profile?did=${encodeURIComponent(agentDid)}`;
    return parseAnswer(profile, (await send({ method: "GET", path })).json);
  };
}
