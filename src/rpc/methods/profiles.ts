/** Who an agent is, for those who know it. Contract §3. */
import * as z from "zod/mini";
import { agentCaller } from "../../call/caller.ts";
import { lookUpProfile } from "../../trust/agent-profile.ts";
import { ProxyError } from "../../wire/problem.ts";
import { defineMethod, type Method } from "../method.ts";
import { PERMISSIONS } from "../permissions.ts";
import { agentDid, timeMs } from "../schemas.ts";

/** `GET /v1/agents/profile` → 200, or the one 404. */
const agentProfile = defineMethod({
  name: "agent.profile",
  surface: "http",
  permission: PERMISSIONS["agent.profile"],
  params: z.object({ did: agentDid }),
  result: z.object({
    agentDid,
    name: z.string(),
    ownerName: z.optional(z.string()),
    framework: z.string(),
    since: timeMs,
  }),
  handler: async (ctx, { did }) => {
    // An operator knows everybody.
    const viewer = ctx.principal.kind === "operator" ? null : agentCaller(ctx).agentDid;
    const profile = await lookUpProfile(ctx.db, viewer, did);
    if (profile === null) throw new ProxyError("PROXY_NOT_FOUND", { reason: "no such agent, or not one it knows" });
    return profile;
  },
});

export const profileMethods: readonly Method[] = [agentProfile];
