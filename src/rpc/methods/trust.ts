/** The methods of trust: pairing for agents (behind their own routes), and the operator's view of all of it. */
import * as z from "zod/mini";
import type { CallContext } from "../../call/context.ts";
import { confirmPairing, pairingStatus, startPairing } from "../../trust/pairing.ts";
import { listPeers, listTrust } from "../../trust/pairs.ts";
import { profileSchema } from "../../trust/profile.ts";
import { removeTrust } from "../../trust/removal.ts";
import { PAIR_TICKET_TTL_SECONDS } from "../../trust/ticket.ts";
import type { AgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import { defineMethod, type Method } from "../method.ts";
import { PERMISSIONS } from "../permissions.ts";
import { agentDid, count, cursor, pageLimit, timeMs } from "../schemas.ts";

const PAGE_MAX = 1_000;

/** `POST /pair/start` → 200. */
export const pairStart = defineMethod({
  name: "pair.start",
  surface: "http",
  permission: PERMISSIONS["pair.start"],
  invalidParams: "PROXY_PAIR_INVALID_BODY",
  params: z.object({
    initiatorProfile: profileSchema,
    ttlSeconds: z.optional(
      z.int().check(z.minimum(PAIR_TICKET_TTL_SECONDS.min), z.maximum(PAIR_TICKET_TTL_SECONDS.max)),
    ),
    allowResponderAgentDid: z.optional(agentDid),
  }),
  result: z.object({
    ticket: z.string(),
    expiresAtMs: timeMs,
    expiresAt: z.string(),
    initiatorAgentDid: agentDid,
    initiatorProfile: profileSchema,
  }),
  handler: (ctx, params) =>
    startPairing(ctx, {
      initiatorDid: callingAgent(ctx),
      profile: params.initiatorProfile,
      ttlSeconds: params.ttlSeconds ?? PAIR_TICKET_TTL_SECONDS.default,
      allowedResponderDid: params.allowResponderAgentDid ?? null,
    }),
});

/** `POST /pair/confirm` → 201. */
export const pairConfirm = defineMethod({
  name: "pair.confirm",
  surface: "http",
  permission: PERMISSIONS["pair.confirm"],
  invalidParams: "PROXY_PAIR_INVALID_BODY",
  params: z.object({ ticket: z.string(), responderProfile: profileSchema }),
  result: z.object({
    paired: z.literal(true),
    initiatorAgentDid: agentDid,
    initiatorProfile: profileSchema,
    responderAgentDid: agentDid,
    responderProfile: profileSchema,
    notified: z.boolean(),
  }),
  handler: async (ctx, params) => {
    const confirmed = await confirmPairing(ctx, {
      responderDid: callingAgent(ctx),
      profile: params.responderProfile,
      ticket: params.ticket,
    });
    return { paired: true as const, ...confirmed };
  },
});

/** `POST /pair/status` → 200, for participants. */
export const pairStatus = defineMethod({
  name: "pair.status",
  surface: "http",
  permission: PERMISSIONS["pair.status"],
  invalidParams: "PROXY_PAIR_INVALID_BODY",
  params: z.object({ ticket: z.string() }),
  result: z.object({
    status: z.enum(["pending", "confirmed"]),
    expiresAt: z.string(),
    initiatorAgentDid: agentDid,
    initiatorProfile: profileSchema,
    responderAgentDid: z.optional(agentDid),
    responderProfile: z.optional(profileSchema),
    confirmedAt: z.optional(z.string()),
  }),
  handler: (ctx, params) => pairingStatus(ctx, { agentDid: callingAgent(ctx), ticket: params.ticket }),
});

/** `POST /pair/remove` → 200. */
export const pairRemove = defineMethod({
  name: "pair.remove",
  surface: "http",
  permission: PERMISSIONS["pair.remove"],
  invalidParams: "PROXY_PAIR_INVALID_BODY",
  params: z.object({ peerAgentDid: agentDid }),
  result: z.object({ removed: z.boolean() }),
  handler: async (ctx, params) => ({ removed: await removeTrust(ctx, callingAgent(ctx), params.peerAgentDid) }),
});

/** `GET /pair/peers` → 200; the peer to go on after is the last of the page. */
export const pairPeers = defineMethod({
  name: "pair.peers",
  surface: "http",
  permission: PERMISSIONS["pair.peers"],
  params: z.object({ after: z.optional(z.string().check(z.maxLength(512))) }),
  result: z.object({ peers: z.array(z.object({ agentDid, agentName: z.string(), since: timeMs })) }),
  handler: async (ctx, params) => ({
    peers: await listPeers(ctx.db, callingAgent(ctx), { after: params.after ?? "", limit: PAGE_MAX }),
  }),
});

/** Every trusted pair. */
export const trustList = defineMethod({
  name: "trust/list",
  surface: "rpc",
  permission: PERMISSIONS["trust/list"],
  params: z.object({ cursor: cursor(), limit: pageLimit(PAGE_MAX) }),
  result: z.object({
    pairs: z.array(z.object({ agentDid, peerAgentDid: agentDid, epoch: count, since: timeMs })),
    nextCursor: z.optional(z.string()),
  }),
  handler: async (ctx, params) => {
    const { pairs, nextCursor } = await listTrust(ctx.db, {
      cursor: params.cursor ?? null,
      limit: params.limit ?? PAGE_MAX,
    });
    return nextCursor === null ? { pairs } : { pairs, nextCursor };
  },
});

/** Ends the trust of two agents, whoever made it. */
export const trustRemove = defineMethod({
  name: "trust/remove",
  surface: "rpc",
  permission: PERMISSIONS["trust/remove"],
  params: z.object({ agentDid, peerAgentDid: agentDid }),
  result: z.object({ removed: z.boolean() }),
  handler: async (ctx, params) => ({ removed: await removeTrust(ctx, params.agentDid, params.peerAgentDid) }),
});

export const trustMethods: readonly Method[] = [
  pairStart,
  pairConfirm,
  pairStatus,
  pairRemove,
  pairPeers,
  trustList,
  trustRemove,
];

function callingAgent(ctx: CallContext): AgentDid {
  if (ctx.principal.kind !== "agent") throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "not-an-agent" });
  return ctx.principal.agentDid;
}
