/** Invites, contract §3: made, listed and revoked by the operator, used by whoever holds one. Each stands behind its own route. */
import * as z from "zod/mini";
import type { IdentityHooks } from "../../identity/hooks.ts";
import {
  createInvite,
  enrollAgent,
  INVITE_TTL_SECONDS,
  INVITE_USES,
  type ListedInvite,
  listInvites,
  revokeInvite,
} from "../../identity/invites.ts";
import { ProxyError } from "../../wire/problem.ts";
import { defineMethod, type Method } from "../method.ts";
import { PERMISSIONS } from "../permissions.ts";
import { count, cursor, humanDid, plainText, queryPageLimit, timeMs } from "../schemas.ts";
import { credentials, newcomer, tenantId } from "./identity.ts";

const PAGE_MAX = 100;
const inviteId = z.string().check(z.regex(/^[0-9A-HJKMNP-TV-Z]{26}$/));

const listed = z.object({
  inviteId: z.string(),
  ownerDid: z.string(),
  tenantId: z.string(),
  uses: count,
  usesLeft: count,
  agents: z.array(z.string()),
  note: z.optional(z.string()),
  createdBy: z.string(),
  createdAtMs: timeMs,
  expiresAtMs: timeMs,
  revokedAtMs: z.optional(timeMs),
});

/**
 * @param hooks what other folders commit with a registration
 * @returns the methods, for the dispatcher
 */
export function inviteMethods(hooks: IdentityHooks): Method[] {
  return [
    defineMethod({
      name: "invite.create",
      surface: "http",
      permission: PERMISSIONS["invite.create"],
      params: z.object({
        ownerDid: z.optional(humanDid),
        tenantId: z.optional(tenantId),
        uses: z.optional(z.int().check(z.minimum(INVITE_USES.min), z.maximum(INVITE_USES.max))),
        ttlSeconds: z.optional(z.int().check(z.minimum(INVITE_TTL_SECONDS.min), z.maximum(INVITE_TTL_SECONDS.max))),
        note: z.optional(plainText(1, 200)),
      }),
      result: z.object({
        inviteId: z.string(),
        invite: z.string(),
        ownerDid: z.string(),
        tenantId: z.string(),
        uses: count,
        expiresAtMs: timeMs,
      }),
      handler: (ctx, params) => createInvite(ctx, params),
    }),
    defineMethod({
      name: "invite.list",
      surface: "http",
      permission: PERMISSIONS["invite.list"],
      params: z.object({ cursor: cursor(), limit: queryPageLimit(PAGE_MAX) }),
      result: z.object({ invites: z.array(listed), nextCursor: z.optional(z.string()) }),
      handler: async (ctx, { cursor: after, limit }) => {
        const { invites, ...rest } = await listInvites(ctx, { cursor: after, limit: limit ?? PAGE_MAX });
        return { invites: invites.map(shown), ...rest };
      },
    }),
    defineMethod({
      name: "invite.revoke",
      surface: "http",
      permission: PERMISSIONS["invite.revoke"],
      params: z.object({ inviteId }),
      result: z.object({ inviteId: z.string(), revokedAtMs: timeMs }),
      handler: (ctx, params) => revokeInvite(ctx, params.inviteId),
    }),
    defineMethod({
      name: "identity.enroll",
      surface: "http",
      permission: PERMISSIONS["identity.enroll"],
      params: z.object(newcomer),
      result: credentials,
      async handler(ctx, params) {
        if (ctx.principal.kind !== "invite") throw new ProxyError("PROXY_AUTH_FORBIDDEN");
        return enrollAgent(ctx, ctx.principal, params, hooks);
      },
    }),
  ];
}

function shown({ note, revokedAtMs, used, ...invite }: ListedInvite) {
  return {
    ...invite,
    usesLeft: invite.uses - used,
    ...(note === null ? {} : { note }),
    ...(revokedAtMs === null ? {} : { revokedAtMs }),
  };
}
