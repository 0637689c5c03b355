/** Who is in a group: invited by a token that works once, joined, gone by itself or removed. Contract §5. */
import { and, asc, eq, gt, inArray, isNull, lte, not, type SQL, sql } from "drizzle-orm";
import { derivedAuthority, issuedAuthority } from "../../authority/names.ts";
import { hashSecret, newSecret, SECRET_PREFIXES } from "../../authority/secrets.ts";
import { commitUnder } from "../../call/caller.ts";
import type { CallContext } from "../../call/context.ts";
import { assertDatabaseHasRoom } from "../../call/quotas.ts";
import { excluded, names } from "../../database/columns.ts";
import { isRaisedAbove, type FencingToken } from "../../database/fencing.ts";
import { execute, readFirst } from "../../database/read.ts";
import { agentGroups, groupMembers, groupTokens } from "../../database/schema.ts";
import { query, type Statement } from "../../database/statement.ts";
import { errorFields } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { GroupId } from "../../wire/group-id.ts";
import { ProxyError } from "../../wire/problem.ts";
import { newUlid } from "../../wire/ulid.ts";
import { gatesStatement, type PendingGroupFence, pendingStatement, selectPendingStatement } from "./fences.ts";
import { assertAdmin, assertSeen, audited, countChange, tooManyGroups } from "./groups.ts";
import { placeFences } from "./placing.ts";
import {
  GROUPS_OF_AGENT_MAX,
  groupsOf,
  isAdmin,
  isLive,
  type Member,
  MEMBERS_MAX,
  membersOf,
  membersStatement,
  type Role,
  seenStatement,
} from "./rows.ts";

/** Contract §5: `ttlSeconds` of `group/invite`. */
export const GROUP_TOKEN_TTL_SECONDS = { min: 60, max: 604_800, default: 86_400 } as const;
/** Tokens of one group that may be waiting for their use. */
export const PENDING_TOKENS_MAX = 100;
const TOKEN_TEXT_MAX = 128;

/**
 * Makes a token by which one agent may join. It ends with its maker's place as an admin, and with the device that made it.
 *
 * @returns the token, shown once
 * @throws ProxyError PROXY_NOT_FOUND; PROXY_AUTH_FORBIDDEN for a member who is no admin; PROXY_QUOTA_EXCEEDED for one too many
 */
export async function inviteToGroup(
  ctx: CallContext,
  me: AgentDid,
  invite: { groupId: string; role: Role; ttlSeconds: number },
): Promise<{ token: string; expiresAtMs: number }> {
  assertDatabaseHasRoom();
  const { groupId, role } = invite;
  const token = newSecret(SECRET_PREFIXES.groupInvite);
  const nowMs = ctx.now();
  const expiresAtMs = nowMs + invite.ttlSeconds * 1_000;
  const madeUnder = JSON.stringify(endsWith(ctx, me).map(({ authority, epoch }) => [authority, epoch]));
  const row = sql`${await hashSecret(token)}, ${groupId}, ${role}, ${me}, ${madeUnder}, ${nowMs}, ${expiresAtMs}, NULL, NULL`;
  const waiting = and(
    eq(groupTokens.groupId, groupId as GroupId),
    isNull(groupTokens.useId),
    gt(groupTokens.expiresAtMs, nowMs),
  );
  const mayInvite = and(
    isLive(sql`${groupId}`),
    isAdmin(sql`${groupId}`, sql`${me}`),
    sql`(SELECT COUNT(*) FROM ${groupTokens} WHERE ${waiting}) < ${PENDING_TOKENS_MAX}`,
  );
  const [made, , [seen]] = await commitUnder(ctx, [
    query.insert(groupTokens).select(sql`SELECT ${row} WHERE ${mayInvite}`),
    audited(ctx, "group.invite", groupId, { role, expiresAtMs }),
    seenStatement(groupId, me),
  ]);
  assertAdmin(seen);
  if (made.meta.changes > 0) return { token, expiresAtMs };
  const detail = `A group may have ${PENDING_TOKENS_MAX} join tokens waiting at a time.`;
  const data = { quota: "join tokens of a group", used: PENDING_TOKENS_MAX, limit: PENDING_TOKENS_MAX };
  throw new ProxyError("PROXY_QUOTA_EXCEEDED", { detail, data });
}

/** What a token made now ends with, beside its maker's place in the group. */
function endsWith({ principal, gate }: CallContext, me: AgentDid): FencingToken[] {
  const issued = { authority: issuedAuthority(me), epoch: gate?.apiKeys.generation() ?? 0 };
  if (principal.kind !== "device") return [issued];
  return [issued, { authority: derivedAuthority(me, principal.deviceId, "admin"), epoch: principal.epoch }];
}

/**
 * Uses a token, in one commit with the membership: of any number of calls with it one joins. A member becomes an admin by one for
 * admins. From the answer on everything that is
 * sent to all of the group is sent to the new member too, as far as the gates of the others could be reached.
 *
 * @throws ProxyError PROXY_NOT_FOUND for a token that is unknown, used, expired or ended, or whose group is no more; PROXY_CONFLICT
 *         for whoever is in the group; PROXY_QUOTA_EXCEEDED where group or agent have no room. The token is not used then.
 */
export async function joinGroup(
  ctx: CallContext,
  me: AgentDid,
  token: string,
): Promise<{ groupId: GroupId; name: string; members: Member[] }> {
  assertDatabaseHasRoom();
  const nowMs = ctx.now();
  const tokenSha256 = await hashSecret(token.slice(0, TOKEN_TEXT_MAX));
  const found = await readFirst(ctx.db.withSession("first-primary"), usableTokenStatement(tokenSha256, me, nowMs));
  const refused = refusalOf(found);
  if (refused !== null || found === null) throw refused ?? noSuchToken();
  const { groupId } = found;
  const useId = newUlid(nowMs);
  const [used, , , , , [left], [pending], gates, [seen], members] = await commitUnder(ctx, [
    query
      .update(groupTokens)
      .set({ useId, usedBy: me })
      .where(and(eq(groupTokens.tokenSha256, tokenSha256), mayBeUsed(nowMs), hasRoomFor(me))),
    query.run(sql`
      INSERT INTO ${groupMembers} (${names(groupMembers.groupId, groupMembers.agentDid, groupMembers.role, groupMembers.joinedAtMs)})
      SELECT ${groupTokens.groupId}, ${me}, ${groupTokens.role}, ${nowMs} FROM ${groupTokens} WHERE ${eq(groupTokens.useId, useId)}
      ON CONFLICT (${names(groupMembers.groupId, groupMembers.agentDid)}) DO UPDATE SET ${names(groupMembers.role)} = ${excluded(groupMembers.role)}`),
    query
      .update(agentGroups)
      .set({ epoch: sql`${agentGroups.epoch} + 1` })
      .where(and(eq(agentGroups.groupId, groupId), sql`changes() > 0`)),
    pendingStatement(groupId, "+", nowMs),
    audited(ctx, "group.join", groupId),
    usableTokenStatement(tokenSha256, me, nowMs),
    selectPendingStatement(groupId, "+"),
    gatesStatement(groupId),
    seenStatement(groupId, me),
    membersStatement(groupId, me),
  ]);
  // Somebody else was quicker, with this token or with the last place.
  if (used.meta.changes === 0) throw refusalOf(left ?? null) ?? noSuchToken();
  const { name } = assertSeen(seen);
  countChange(ctx, "joined");
  if (pending !== undefined) await announce(ctx, pending, gates);
  return { groupId, name, members };
}

/** The new member is in, whatever becomes of this: what cannot be reached now is notified later. */
async function announce(
  ctx: CallContext,
  pending: PendingGroupFence,
  gates: readonly { agentDid: AgentDid }[],
): Promise<void> {
  try {
    await placeFences(ctx, pending, gates);
  } catch (error) {
    ctx.log.warn("group.join_not_announced", { groupId: pending.groupId, ...errorFields(error) });
  }
}

/**
 * Leaves a group: from the answer on the agent neither sends nor is sent anything in it. One that is repeated places its fences again.
 *
 * @throws ProxyError PROXY_NOT_FOUND; PROXY_CONFLICT for the last admin; 503 where a gate is out of reach
 */
export async function leaveGroup(ctx: CallContext, me: AgentDid, groupId: string): Promise<{ left: true }> {
  const { seen, pending, gates, isOut } = await takeOut(ctx, groupId, me, null);
  if (pending === undefined) assertSeen(seen);
  if (seen !== undefined && !isOut) throw lastAdmin();
  if (isOut) countChange(ctx, "left");
  if (pending !== undefined) await placeFences(ctx, pending, gates);
  return { left: true };
}

/**
 * Removes a member, with the same effect. One that is repeated places its fences again.
 *
 * @returns whether that agent was in the group
 * @throws ProxyError PROXY_NOT_FOUND; PROXY_AUTH_FORBIDDEN for a member who is no admin; PROXY_CONFLICT for an admin who is the last
 *         and removes itself; 503 where a gate is out of reach
 */
export async function removeMember(
  ctx: CallContext,
  me: AgentDid,
  groupId: string,
  member: AgentDid,
): Promise<{ removed: boolean }> {
  const { seen, pending, gates, isOut } = await takeOut(ctx, groupId, member, me);
  if (member !== me || pending === undefined) assertAdmin(seen);
  if (member === me && seen !== undefined && !isOut) throw lastAdmin();
  if (isOut) countChange(ctx, "removed");
  if (pending !== undefined) await placeFences(ctx, pending, gates);
  return { removed: isOut };
}

/**
 * Takes a member out, in one commit with the fence that is pending from then on.
 *
 * @param admin who removes it; null where it leaves by itself
 * @returns the group as the caller saw it before, and what is pending for whom
 */
async function takeOut(ctx: CallContext, groupId: string, member: AgentDid, admin: AgentDid | null) {
  const nowMs = ctx.now();
  const id = groupId as GroupId;
  const isLast = sql`(SELECT COUNT(*) FROM ${groupMembers} AS each WHERE each.group_id = ${groupId} AND each.role = 'admin') = 1`;
  const may = and(
    eq(groupMembers.groupId, id),
    eq(groupMembers.agentDid, member),
    isLive(sql`${groupId}`),
    admin === null ? undefined : isAdmin(sql`${groupId}`, sql`${admin}`),
    not(sql`(${eq(groupMembers.role, "admin")} AND ${isLast})`),
  );
  const isGone = sql`NOT EXISTS (SELECT 1 FROM ${groupMembers} WHERE ${and(eq(groupMembers.groupId, id), eq(groupMembers.agentDid, member))})`;
  const [[seen], removed, , , , , , [pending], gates] = await commitUnder(ctx, [
    seenStatement(groupId, admin ?? member),
    query.delete(groupMembers).where(may),
    query
      .update(agentGroups)
      .set({ epoch: sql`${agentGroups.epoch} + 1` })
      .where(and(eq(agentGroups.groupId, id), sql`changes() > 0`)),
    pendingStatement(id, member, nowMs),
    audited(ctx, admin === null ? "group.leave" : "group.remove", groupId, { member }),
    query.delete(groupTokens).where(and(eq(groupTokens.groupId, id), eq(groupTokens.madeBy, member), isGone)),
    // Where no admin was left, the last member closes the door.
    query
      .delete(agentGroups)
      .where(and(eq(agentGroups.groupId, id), isNull(agentGroups.deletedAtMs), sql`${membersOf(sql`${groupId}`)} = 0`)),
    selectPendingStatement(id, member),
    gatesStatement(id),
  ]);
  return { seen, pending, gates, isOut: removed.meta.changes > 0 };
}

function lastAdmin(): ProxyError {
  return new ProxyError("PROXY_CONFLICT", {
    detail: "The last admin cannot leave: make another one by an invite, or delete the group.",
  });
}

/** What a token is found to be for an agent: no row where it may not be used. */
type UsableToken = { groupId: GroupId; standing: Standing; members: number; groups: number };

/** What an agent is to the group of a token: not in it, a member whom the token makes an admin, or in it for all that the token gives. */
type Standing = "outside" | "below" | "in";

function usableTokenStatement(tokenSha256: string, me: AgentDid, nowMs: number): Statement<UsableToken[]> {
  const { groupId } = groupTokens;
  return query.all(sql`
    SELECT ${groupId} AS "groupId", ${standingOf(me)} AS "standing", ${membersOf(sql`${groupId}`)} AS "members",
      ${groupsOf(me)} AS "groups"
    FROM ${groupTokens} WHERE ${and(eq(groupTokens.tokenSha256, tokenSha256), mayBeUsed(nowMs))}`);
}

/**
 * Whether a row's token may be used by somebody: each reason why not looks the same from outside. Those of an admin who goes are
 * deleted with the place in the group.
 */
function mayBeUsed(nowMs: number): SQL | undefined {
  const { groupId, madeUnder, expiresAtMs, useId } = groupTokens;
  const hasEnded = sql`EXISTS (SELECT 1 FROM json_each(${madeUnder}) AS made
    WHERE ${isRaisedAbove(sql`(made.value ->> 0)`, sql`(made.value ->> 1)`)})`;
  return and(isNull(useId), gt(expiresAtMs, nowMs), isLive(sql`${groupId}`), not(hasEnded));
}

/** The {@link Standing} of an agent towards a row's token, as an SQL expression. */
function standingOf(me: AgentDid): SQL {
  const { groupId, role } = groupTokens;
  return sql`COALESCE((SELECT CASE WHEN me.role = 'member' AND ${role} = 'admin' THEN 'below' ELSE 'in' END
    FROM ${groupMembers} AS me WHERE me.group_id = ${groupId} AND me.agent_did = ${me}), 'outside')`;
}

/** Whether a row's token gives an agent anything, and the group has room for it and it for the group where it is not in. */
function hasRoomFor(me: AgentDid): SQL {
  return sql`CASE ${standingOf(me)} WHEN 'below' THEN TRUE WHEN 'in' THEN FALSE
    ELSE ${membersOf(sql`${groupTokens.groupId}`)} < ${MEMBERS_MAX} AND ${groupsOf(me)} < ${GROUPS_OF_AGENT_MAX} END`;
}

/** Why a token does not let an agent in, or null. */
function refusalOf(found: UsableToken | null): ProxyError | null {
  if (found === null) return noSuchToken();
  if (found.standing === "below") return null;
  if (found.standing === "in") {
    return new ProxyError("PROXY_CONFLICT", { detail: "This agent is in the group already." });
  }
  if (found.groups >= GROUPS_OF_AGENT_MAX) return tooManyGroups();
  if (found.members < MEMBERS_MAX) return null;
  const detail = `A group may have ${MEMBERS_MAX} members.`;
  const data = { quota: "members of a group", used: found.members, limit: MEMBERS_MAX };
  return new ProxyError("PROXY_QUOTA_EXCEEDED", { detail, data });
}

function noSuchToken(): ProxyError {
  return new ProxyError("PROXY_NOT_FOUND", { reason: "group-token-not-usable" });
}

/** Forgets tokens that have expired. @returns how many went, at most `limit` */
export async function pruneGroupTokens(db: D1Database, nowMs: number, limit: number): Promise<number> {
  const { tokenSha256, expiresAtMs } = groupTokens;
  const expired = query
    .select({ tokenSha256 })
    .from(groupTokens)
    .where(lte(expiresAtMs, nowMs))
    .orderBy(asc(expiresAtMs))
    .limit(limit);
  const { meta } = await execute(db, query.delete(groupTokens).where(inArray(tokenSha256, expired)));
  return meta.changes;
}
