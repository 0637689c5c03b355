/** The registry's methods, contract §3: for the operator, and for the agent itself. Each stands behind its own route. */
import * as z from "zod/mini";
import { listAgents, type ListedAgent } from "../../identity/agents.ts";
import type { IdentityHooks } from "../../identity/hooks.ts";
import { revokeSigningKey, rotateSigningKey } from "../../identity/keys/rotation.ts";
import { registerAgent } from "../../identity/lifecycle/register.ts";
import { rekeyAgent } from "../../identity/lifecycle/rekey.ts";
import { revokeAgent } from "../../identity/lifecycle/revoke.ts";
import { AIT_TTL_SECONDS, registryOf } from "../../identity/registry.ts";
import { refreshAccess } from "../../identity/tokens/refresh.ts";
import { reissueAit } from "../../identity/tokens/reissue.ts";
import { defineMethod, type Method } from "../method.ts";
import { PERMISSIONS } from "../permissions.ts";
import { agentDid, cursor, fenced, humanDid, plainText, publicKey, queryPageLimit, timeMs } from "../schemas.ts";

/** Agents on one page of the list, at most and by default. */
const PAGE_MAX = 100;

/** How an agent is called, as its identity token carries it. */
export const agentName = z.string().check(z.regex(/^[A-Za-z0-9._ -]{1,64}$/));
export const tenantId = z.string().check(z.regex(/^[A-Za-z0-9._-]{1,128}$/));

/** What a newcomer says of itself. */
export const newcomer = {
  name: agentName,
  framework: plainText(1, 32),
  publicKey,
  description: z.optional(plainText(0, 280)),
};

/** What an agent starts with, shown once. */
export const credentials = z.object({
  agentDid: z.string(),
  ownerDid: z.string(),
  tenantId: z.string(),
  ait: z.string(),
  access: z.object({ token: z.string(), expiresAtMs: timeMs }),
  refreshToken: z.string(),
});

const listedAgent = z.object({
  agentDid: z.string(),
  ownerDid: z.string(),
  tenantId: z.string(),
  name: z.string(),
  framework: z.string(),
  description: z.optional(z.string()),
  publicKey: z.string(),
  status: z.enum(["active", "revoked"]),
  createdAtMs: timeMs,
  aitExpiresAtMs: z.nullable(timeMs),
  rekeyedAtMs: z.optional(timeMs),
  revokedAtMs: z.optional(timeMs),
});

/**
 * @param hooks what other folders commit with a registration and with an end
 * @returns the methods, for the dispatcher
 */
export function identityMethods(hooks: IdentityHooks): Method[] {
  return [
    defineMethod({
      name: "identity.register",
      surface: "http",
      permission: PERMISSIONS["identity.register"],
      params: z.object({
        ...newcomer,
        ownerDid: z.optional(humanDid),
        tenantId: z.optional(tenantId),
        ttlSeconds: z.optional(z.int().check(z.minimum(AIT_TTL_SECONDS.min), z.maximum(AIT_TTL_SECONDS.max))),
      }),
      result: credentials,
      handler: (ctx, params) => registerAgent(ctx, params, hooks),
    }),
    defineMethod({
      name: "identity.list",
      surface: "http",
      permission: PERMISSIONS["identity.list"],
      params: z.object({ cursor: cursor(), limit: queryPageLimit(PAGE_MAX) }),
      result: z.object({ agents: z.array(listedAgent), nextCursor: z.optional(z.string()) }),
      handler: async (ctx, { cursor: after, limit }) => {
        const { agents, ...rest } = await listAgents(registryOf(ctx), { cursor: after, limit: limit ?? PAGE_MAX });
        return { agents: agents.map(shown), ...rest };
      },
    }),
    defineMethod({
      name: "identity.revoke",
      surface: "http",
      permission: PERMISSIONS["identity.revoke"],
      params: z.object({ agentDid, reason: z.optional(plainText(1, 200)) }),
      result: z.object({
        agentDid: z.string(),
        revoked: z.literal(true),
        revokedAtMs: timeMs,
        fenced,
      }),
      handler: (ctx, params) => revokeAgent(ctx, params, hooks),
    }),
    defineMethod({
      name: "identity.rekey",
      surface: "http",
      permission: PERMISSIONS["identity.rekey"],
      params: z.object({ agentDid, publicKey }),
      result: credentials,
      handler: (ctx, params) => rekeyAgent(ctx, params, hooks),
    }),
    defineMethod({
      name: "identity.reissue",
      surface: "http",
      permission: PERMISSIONS["identity.reissue"],
      params: z.object({}),
      result: z.object({ ait: z.string() }),
      handler: (ctx) => reissueAit(ctx),
    }),
    defineMethod({
      name: "identity.refresh",
      surface: "http",
      permission: PERMISSIONS["identity.refresh"],
      params: z.object({ refreshToken: z.string().check(z.minLength(1), z.maxLength(256)) }),
      result: z.object({ access: z.object({ token: z.string(), expiresAtMs: timeMs }), refreshToken: z.string() }),
      handler: (ctx, { refreshToken }) => refreshAccess(ctx, refreshToken),
    }),
    defineMethod({
      name: "identity.keys.rotate",
      surface: "http",
      permission: PERMISSIONS["identity.keys.rotate"],
      params: z.object({}),
      result: z.object({ kid: z.string(), previousKid: z.nullable(z.string()) }),
      async handler(ctx) {
        const rotated = await rotateSigningKey(ctx);
        hooks.keysChanged?.();
        return rotated;
      },
    }),
    defineMethod({
      name: "identity.keys.revoke",
      surface: "http",
      permission: PERMISSIONS["identity.keys.revoke"],
      params: z.object({ kid: plainText(1, 256) }),
      result: z.object({ kid: z.string(), revokedAtMs: timeMs, currentKid: z.string() }),
      async handler(ctx, { kid }) {
        const revoked = await revokeSigningKey(ctx, kid);
        hooks.keysChanged?.();
        return revoked;
      },
    }),
  ];
}

function shown(agent: ListedAgent) {
  const { description, rekeyedAtMs, revokedAtMs } = agent;
  return {
    agentDid: agent.agentDid,
    ownerDid: agent.ownerDid,
    tenantId: agent.tenantId,
    name: agent.name,
    framework: agent.framework,
    publicKey: agent.publicKey,
    createdAtMs: agent.createdAtMs,
    aitExpiresAtMs: agent.aitExpiresAtMs,
    status: revokedAtMs === null ? ("active" as const) : ("revoked" as const),
    ...(description === null ? {} : { description }),
    ...(rekeyedAtMs === null ? {} : { rekeyedAtMs }),
    ...(revokedAtMs === null ? {} : { revokedAtMs }),
  };
}
