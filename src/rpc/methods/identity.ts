/** The registry's methods, contract §3: for the operator, and for the agent itself. Each stands behind its own route. */
/** The registry's methods, contract §3: for the operator, and for the agent itself. Each stands behind its own route. */
import * as z from "zod/mini";
import { listAgents, type ListedAgent } from "../../identity/agents.ts";
import type { IdentityHooks } from "../../identity/hooks.ts";
import { revokeSigningKey, rotateSigningKey } from "../../identity/keys/rotation.ts";
import { registerAgent } from "../../identity/lifecycle/register.ts";
import { rekeyAgent } from "../../identity/lifecycle/rekey.ts";
import { revokeAgent } from "../../identity/lifecycle/revoke.ts";
import { parsePublicKey } from "../../identity/public-key.ts";
import { AIT_TTL_SECONDS, registryOf } from "../../identity/registry.ts";
import { refreshAccess } from "../../identity/tokens/refresh.ts";
import { reissueAit } from "../../identity/tokens/reissue.ts";
import { parseAgentDid, parseHumanDid } from "../../wire/did.ts";
import { defineMethod, type Method } from "../method.ts";
import { PERMISSIONS } from "../permissions.ts";

/** Agents on one page of the list, at most and by default. */
const PAGE_MAX = 100;

const plainText = (minLength: number, maxLength: number) =>
  z.string().check(
    z.minLength(minLength),
    z.maxLength(maxLength),
    z.refine((text: string) => !/\p{Cc}/u.test(text), "has a control character"),
    // D1 and JSON would make two different texts of a lone surrogate.
    z.refine((text: string) => text.isWellFormed(), "is not well-formed Unicode"),
  );

const agentDid = z.string().check(
  z.maxLength(512),
  z.refine((text: string) => parseAgentDid(text) !== null, "is no agent DID"),
);
const humanDid = z.string().check(
  z.maxLength(512),
  z.refine((text: string) => parseHumanDid(text) !== null, "is no human DID"),
);
const publicKey = z.string().check(
  z.maxLength(64),
  z.refine((text: string) => parsePublicKey(text).ok, "is no usable Ed25519 public key, 32 bytes in base64url"),
);
const timeMs = z.int().check(z.nonnegative());

/** A page's size: a number, or the digits of a query string. */
const pageLimit = z.pipe(
  z.union([z.number(), z.pipe(z.string().check(z.regex(/^\d{1,6}$/)), z.transform(Number))]),
  z.int().check(z.minimum(1), z.maximum(PAGE_MAX)),
);

const credentials = z.object({
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
 * @param hooks what other rooms commit with a registration and with an end
 * @returns the methods, for the dispatcher
 */
export function identityMethods(hooks: IdentityHooks): Method[] {
  return [
    defineMethod({
      name: "identity.register",
      surface: "http",
      permission: PERMISSIONS["identity.register"],
      params: z.object({
        name: z.string().check(z.regex(/^[A-Za-z0-9._ -]{1,64}$/)),
        framework: plainText(1, 32),
        publicKey,
        ownerDid: z.optional(humanDid),
        tenantId: z.optional(z.string().check(z.regex(/^[A-Za-z0-9._-]{1,128}$/))),
        description: z.optional(plainText(0, 280)),
        ttlSeconds: z.optional(z.int().check(z.minimum(AIT_TTL_SECONDS.min), z.maximum(AIT_TTL_SECONDS.max))),
      }),
      result: credentials,
      handler: (ctx, params) => registerAgent(ctx, params, hooks),
    }),
    defineMethod({
      name: "identity.list",
      surface: "http",
      permission: PERMISSIONS["identity.list"],
      params: z.object({ cursor: z.optional(z.string().check(z.maxLength(1_024))), limit: z.optional(pageLimit) }),
      result: z.object({ agents: z.array(listedAgent), nextCursor: z.optional(z.string()) }),
      handler: async (ctx, { cursor, limit }) => {
        const { agents, ...rest } = await listAgents(registryOf(ctx), { cursor, limit: limit ?? PAGE_MAX });
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
        fenced: z.object({ sockets: timeMs, inFlight: timeMs }),
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
