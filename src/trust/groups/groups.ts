/** Groups of agents, contract §5: made, looked at, renamed and deleted. To whoever is not in a group it does not exist. */
import { and, eq, isNull, sql } from "drizzle-orm";
import { type AuditEvent, auditOfEffectStatement } from "../../audit/entry.ts";
import { commitUnder } from "../../call/caller.ts";
import type { CallContext } from "../../call/context.ts";
import { assertDatabaseHasRoom } from "../../call/quotas.ts";
import { runBatch } from "../../database/batch.ts";
import { readAll } from "../../database/read.ts";
import { agentGroups, groupMembers } from "../../database/schema.ts";
import { query, type Statement } from "../../database/statement.ts";
import { count, flushSoon } from "../../telemetry/metrics.ts";
import type { AgentDid } from "../../wire/did.ts";
import { type GroupId, newGroupId } from "../../wire/group-id.ts";
import { ProxyError } from "../../wire/problem.ts";
import { gatesStatement, pendingStatement, selectPendingStatement } from "./fences.ts";
import { placeFences } from "./placing.ts";
import {
  GROUPS_OF_AGENT_MAX,
  groupsOf,
  groupsOfStatement,
  isAdmin,
  type Member,
  membersStatement,
  type Role,
  type SeenGroup,
  seenStatement,
} from "./rows.ts";

/** Code points of a group's name. */
export const GROUP_NAME_MAX = 64;

/** A group in a list. `members` counts them, `since` is when the caller came, in milliseconds since 1970. */
export type ListedGroup = { groupId: GroupId; name: string; role: Role; since: number; members: number };

/**
 * Makes a group with its maker as admin.
 *
 * @throws ProxyError PROXY_QUOTA_EXCEEDED for an agent that is in {@link GROUPS_OF_AGENT_MAX} groups
 */
export async function createGroup(
  ctx: CallContext,
  me: AgentDid,
  name: string,
): Promise<{ groupId: GroupId; name: string }> {
  assertDatabaseHasRoom();
  const nowMs = ctx.now();
  const groupId = newGroupId(nowMs);
  const row = sql`SELECT ${groupId}, ${name}, 1, ${me}, ${nowMs}, NULL WHERE ${groupsOf(me)} < ${GROUPS_OF_AGENT_MAX}`;
  const member = sql`SELECT ${groupId}, ${me}, 'admin', ${nowMs} WHERE changes() > 0`;
  const [made] = await commitUnder(ctx, [
    query.insert(agentGroups).select(row),
    query.insert(groupMembers).select(member),
    audited(ctx, "group.create", groupId, { name }),
  ]);
  if (made.meta.changes === 0) throw tooManyGroups();
  countChange(ctx, "created");
  return { groupId, name };
}

/** @returns the groups that an agent is in */
export async function listGroups(ctx: CallContext, me: AgentDid): Promise<ListedGroup[]> {
  return readAll(ctx.db.withSession("first-primary"), groupsOfStatement(me));
}

/** @returns a group with its members @throws ProxyError PROXY_NOT_FOUND for whoever is none of them */
export async function getGroup(
  ctx: CallContext,
  me: AgentDid,
  groupId: string,
): Promise<{ groupId: GroupId; name: string; role: Role; members: Member[] }> {
  const [[seen], members] = await runBatch(ctx.db.withSession("first-primary"), [
    seenStatement(groupId, me),
    membersStatement(groupId, me),
  ]);
  const { name, role } = assertSeen(seen);
  return { groupId: groupId as GroupId, name, role, members };
}

/** Gives a group another name. @throws ProxyError PROXY_NOT_FOUND; PROXY_AUTH_FORBIDDEN for a member who is no admin */
export async function renameGroup(
  ctx: CallContext,
  me: AgentDid,
  groupId: string,
  name: string,
): Promise<{ groupId: GroupId; name: string }> {
  const [, , [seen]] = await commitUnder(ctx, [
    query.update(agentGroups).set({ name }).where(isMine(groupId, me)),
    audited(ctx, "group.rename", groupId, { name }),
    seenStatement(groupId, me),
  ]);
  assertAdmin(seen);
  return { groupId: groupId as GroupId, name };
}

/**
 * Deletes a group: from the answer on nothing is sent in it and nothing of it delivered. One that is repeated places its fences again.
 *
 * @throws ProxyError PROXY_NOT_FOUND; PROXY_AUTH_FORBIDDEN for a member who is no admin; 503 where a gate is out of reach
 */
export async function deleteGroup(ctx: CallContext, me: AgentDid, groupId: string): Promise<{ deleted: true }> {
  const nowMs = ctx.now();
  const id = groupId as GroupId;
  const [[seen], deleted, , , [pending], gates, admins] = await commitUnder(ctx, [
    seenStatement(groupId, me),
    query
      .update(agentGroups)
      .set({ deletedAtMs: nowMs, epoch: sql`${agentGroups.epoch} + 1` })
      .where(isMine(groupId, me)),
    pendingStatement(id, "", nowMs),
    audited(ctx, "group.delete", groupId),
    selectPendingStatement(id, ""),
    gatesStatement(id),
    query.all<{ is: number }>(sql`SELECT 1 AS "is" WHERE ${isAdmin(sql`${groupId}`, sql`${me}`)}`),
  ]);
  // Deleted before, and its fences are not known to stand: only whoever could delete it is told that it was there.
  if (seen !== undefined || pending === undefined || admins.length === 0) assertAdmin(seen);
  if (deleted.meta.changes > 0) countChange(ctx, "deleted");
  if (pending !== undefined) await placeFences(ctx, pending, gates);
  return { deleted: true };
}

/** Whether a group is there and an agent may manage it, for an UPDATE of its row. */
function isMine(groupId: string, me: AgentDid) {
  return and(
    eq(agentGroups.groupId, groupId as GroupId),
    isNull(agentGroups.deletedAtMs),
    isAdmin(sql`${groupId}`, sql`${me}`),
  );
}

/** An entry of the audit, where the statement right before it in the batch changed a row. */
export function audited(
  ctx: CallContext,
  action: string,
  groupId: string,
  details: NonNullable<AuditEvent["details"]> = {},
): Statement<D1Result> {
  return auditOfEffectStatement(ctx, {
    action,
    subject: `group:${groupId}`,
    agentDid: ctx.agentDid,
    result: "ok",
    details,
  });
}

/** Counts a change of a group. A gate may share its isolate with no request that would send its numbers on. */
export function countChange(ctx: CallContext, change: "created" | "joined" | "left" | "removed" | "deleted"): void {
  count("sallyport_group_changes", { change });
  flushSoon(ctx.env, () => undefined);
}

/** @throws ProxyError PROXY_NOT_FOUND where the caller is in no such group */
export function assertSeen(seen: SeenGroup | undefined): SeenGroup {
  if (seen === undefined) throw new ProxyError("PROXY_NOT_FOUND", { reason: "not a member of such a group" });
  return seen;
}

/** @throws ProxyError PROXY_NOT_FOUND; PROXY_AUTH_FORBIDDEN for a member who is no admin */
export function assertAdmin(seen: SeenGroup | undefined): SeenGroup {
  if (assertSeen(seen).role !== "admin") {
    throw new ProxyError("PROXY_AUTH_FORBIDDEN", { detail: "Only an admin of the group may do that." });
  }
  return assertSeen(seen);
}

/** The refusal of one group too many. */
export function tooManyGroups(): ProxyError {
  const detail = `An agent may be in ${GROUPS_OF_AGENT_MAX} groups; leave one first.`;
  const data = { quota: "groups of an agent", used: GROUPS_OF_AGENT_MAX, limit: GROUPS_OF_AGENT_MAX };
  return new ProxyError("PROXY_QUOTA_EXCEEDED", { detail, data });
}
