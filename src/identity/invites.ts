/**
 * Invites (contract §2, §3): an operator makes one, whoever holds it registers an agent with a key of its own. One use is taken in
 * the commit that makes the agent, so it is neither lost by a crash nor taken twice.
 */
import { and, asc, between, eq, gt, inArray, isNull, lt, lte, sql } from "drizzle-orm";
import { auditOfEffectStatement, auditStatement, subjectOf } from "../audit/entry.ts";
import { hashSecret, newSecret, SECRET_PREFIXES } from "../authority/secrets.ts";
import { authorityEnded } from "../call/caller.ts";
import type { CallContext } from "../call/context.ts";
import { commitFenced } from "../database/batch.ts";
import { guard } from "../database/guard.ts";
import { readAll, readFirst } from "../database/read.ts";
import { invites, inviteUses } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";
import { type AgentDid, type HumanDid, newDid } from "../wire/did.ts";
import { ProxyError } from "../wire/problem.ts";
import { newUlid } from "../wire/ulid.ts";
import type { IdentityHooks } from "./hooks.ts";
import { type Credentials, defaultTenantId, ownerDidOf, registerAgent } from "./lifecycle/register.ts";
import { contended, registryOf } from "./registry.ts";

/** Contract §3: bounds of what an invite may say of itself. */
export const INVITE_USES = { default: 1, min: 1, max: 100 } as const;
export const INVITE_TTL_SECONDS = { default: 604_800, min: 60, max: 7_776_000 } as const;
/** Agents of one invite that a list names. */
const AGENTS_SHOWN_MAX = 100;

/** What an operator says of a new invite. */
export type NewInvite = {
  ownerDid?: string | undefined;
  tenantId?: string | undefined;
  uses?: number | undefined;
  ttlSeconds?: number | undefined;
  note?: string | undefined;
};

/** A new invite. Its secret is shown once. */
export type CreatedInvite = {
  inviteId: string;
  invite: string;
  ownerDid: HumanDid;
  tenantId: string;
  uses: number;
  expiresAtMs: number;
};

/** An invite in a list, without its secret, and the agents that came by it. */
export type ListedInvite = Omit<typeof invites.$inferSelect, "inviteSha256"> & { agents: AgentDid[] };

/** Whoever holds an invite, as the registry knows it. */
export type InvitePrincipal = Extract<CallContext["principal"], { kind: "invite" }>;

/**
 * Makes an invite; owner and tenant of whoever comes by it are settled now.
 *
 * @throws ProxyError PROXY_BAD_REQUEST for an owner of another authority
 */
export async function createInvite(ctx: CallContext, wanted: NewInvite): Promise<CreatedInvite> {
  const registry = registryOf(ctx);
  const nowMs = registry.now();
  const invite = newSecret(SECRET_PREFIXES.invite);
  const ownerDid =
    wanted.ownerDid === undefined
      ? newDid(registry.authority, "human", newUlid(nowMs))
      : ownerDidOf(registry, wanted.ownerDid);
  const row = {
    inviteId: newUlid(nowMs),
    inviteSha256: await hashSecret(invite),
    ownerDid,
    tenantId: wanted.tenantId ?? defaultTenantId(ownerDid),
    uses: wanted.uses ?? INVITE_USES.default,
    used: 0,
    note: wanted.note ?? null,
    createdBy: subjectOf(ctx.principal),
    createdAtMs: nowMs,
    expiresAtMs: nowMs + (wanted.ttlSeconds ?? INVITE_TTL_SECONDS.default) * 1_000,
    revokedAtMs: null,
  };
  const { inviteId, tenantId, uses, expiresAtMs } = row;
  const audited = auditStatement(ctx, {
    action: "invite.create",
    subject: `invite:${inviteId}`,
    agentDid: null,
    result: "ok",
    details: { ownerDid, tenantId, uses, expiresAtMs },
  });
  const committed = await commitFenced(ctx.db, ctx.authority, [query.insert(invites).values(row), audited]);
  if (!committed.ok) throw committed.error === "authority-ended" ? authorityEnded(ctx) : contended();
  ctx.authority.assertCurrent();
  return { inviteId, invite, ownerDid, tenantId, uses, expiresAtMs };
}

/**
 * A page of invites, oldest first.
 *
 * @param page `cursor` is the last id of the page before
 */
export async function listInvites(
  ctx: CallContext,
  page: { cursor?: string | undefined; limit: number },
): Promise<{ invites: ListedInvite[]; nextCursor?: string }> {
  const found = await readAll(
    ctx.db,
    query
      .select()
      .from(invites)
      .where(gt(invites.inviteId, page.cursor ?? ""))
      .orderBy(asc(invites.inviteId))
      .limit(page.limit + 1),
  );
  const shown = found.slice(0, page.limit);
  const uses = await readAll(
    ctx.db,
    query
      .select({ inviteId: inviteUses.inviteId, agentDid: inviteUses.agentDid })
      .from(inviteUses)
      .where(
        // By their range: a statement takes a hundred values in all.
        between(inviteUses.inviteId, shown[0]?.inviteId ?? "", shown.at(-1)?.inviteId ?? ""),
      )
      .limit(AGENTS_SHOWN_MAX * page.limit),
  );
  const listed = shown.map(({ inviteSha256: _secret, ...invite }) => ({
    ...invite,
    agents: uses.filter(({ inviteId }) => inviteId === invite.inviteId).map(({ agentDid }) => agentDid),
  }));
  const last = shown.at(-1);
  return found.length > page.limit && last !== undefined
    ? { invites: listed, nextCursor: last.inviteId }
    : { invites: listed };
}

/**
 * Ends an invite: over when answered, since every use of it is decided in the commit that would make its agent.
 *
 * @returns when it ended; repeated, the same
 * @throws ProxyError PROXY_NOT_FOUND for an invite that is not there
 */
export async function revokeInvite(
  ctx: CallContext,
  inviteId: string,
): Promise<{ inviteId: string; revokedAtMs: number }> {
  const nowMs = ctx.now();
  const end = query
    .update(invites)
    .set({ revokedAtMs: nowMs })
    .where(and(eq(invites.inviteId, inviteId), isNull(invites.revokedAtMs)));
  const audited = auditOfEffectStatement(ctx, {
    action: "invite.revoke",
    subject: `invite:${inviteId}`,
    agentDid: null,
    result: "ok",
  });
  const select = query.select({ revokedAtMs: invites.revokedAtMs }).from(invites).where(eq(invites.inviteId, inviteId));
  const committed = await commitFenced(ctx.db, ctx.authority, [end, audited, select]);
  if (!committed.ok) throw committed.error === "authority-ended" ? authorityEnded(ctx) : contended();
  ctx.authority.assertCurrent();
  const revokedAtMs = committed.value[2][0]?.revokedAtMs ?? null;
  if (revokedAtMs === null) throw new ProxyError("PROXY_NOT_FOUND", { reason: "no such invite" });
  return { inviteId, revokedAtMs };
}

/**
 * @param inviteSha256 base64url of the SHA-256 of the presented invite
 * @returns its holder, or null for an invite that is unknown, used up, expired or revoked
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function findInvite(db: D1Database, inviteSha256: string, nowMs: number): Promise<InvitePrincipal | null> {
  const { inviteId, ownerDid, tenantId } = invites;
  const select = query
    .select({ inviteId, ownerDid, tenantId })
    .from(invites)
    .where(and(eq(invites.inviteSha256, inviteSha256), mayBeUsed(nowMs)));
  const found = await readFirst(db.withSession("first-primary"), select);
  return found === null ? null : { kind: "invite", ...found };
}

/**
 * Registers the agent of an invite's holder.
 *
 * @throws ProxyError PROXY_AUTH_INVALID_TOKEN where the invite was used up, expired or revoked meanwhile; else as `registerAgent`
 */
export async function enrollAgent(
  ctx: CallContext,
  invite: InvitePrincipal,
  params: { name: string; framework: string; publicKey: string; description?: string | undefined },
  hooks: IdentityHooks,
): Promise<Credentials> {
  const { ownerDid, tenantId } = invite;
  const useOfInvite = (_ctx: CallContext, { agentDid }: { agentDid: AgentDid }): Statement[] =>
    useStatements(ctx, invite.inviteId, agentDid);
  return registerAgent(
    ctx,
    { ...params, ownerDid, tenantId },
    { ...hooks, atRegistration: [useOfInvite, ...hooks.atRegistration] },
  );
}

function useStatements(ctx: CallContext, inviteId: string, agentDid: AgentDid): Statement[] {
  const nowMs = ctx.now();
  const usable = and(eq(invites.inviteId, inviteId), mayBeUsed(nowMs));
  return [
    guard(sql`EXISTS (SELECT 1 FROM ${invites} WHERE ${usable})`, "invite_may_be_used"),
    query
      .update(invites)
      .set({ used: sql`${invites.used} + 1` })
      .where(eq(invites.inviteId, inviteId)),
    query.insert(inviteUses).values({ inviteId, agentDid, usedAtMs: nowMs }),
    auditStatement(ctx, { action: "invite.use", subject: `invite:${inviteId}`, agentDid, result: "ok" }),
  ];
}

const mayBeUsed = (nowMs: number) =>
  and(isNull(invites.revokedAtMs), gt(invites.expiresAtMs, nowMs), lt(invites.used, invites.uses));

/** Deletes invites that have been over for long, and who came by them; the audit has both. */
export function pruneInvitesStatements(beforeMs: number, limit: number): Statement<D1Result>[] {
  const expired = query
    .select({ inviteId: invites.inviteId })
    .from(invites)
    .where(lte(invites.expiresAtMs, beforeMs))
    .orderBy(asc(invites.expiresAtMs))
    .limit(limit);
  return [
    query.delete(inviteUses).where(inArray(inviteUses.inviteId, expired)),
    query.delete(invites).where(inArray(invites.inviteId, expired)),
  ];
}
