/** The rows of groups in D1, the only store of who is in a group with whom: what is read, and the conditions of what is written. */
import { and, asc, eq, isNull, type SQL, sql } from "drizzle-orm";
import { readAll } from "../../database/read.ts";
import { agentGroups, groupMembers, groupTokens } from "../../database/schema.ts";
import { query, type Statement } from "../../database/statement.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { GroupId } from "../../wire/group-id.ts";

/** Contract §5. */
export const MEMBERS_MAX = 100;
export const GROUPS_OF_AGENT_MAX = 100;

export type Role = "member" | "admin";

/** One of a group, since a moment in milliseconds since 1970. */
export type Member = { agentDid: AgentDid; role: Role; since: number };

/** Who may send to whom in a group, and the epoch at which that was so. */
export type Membership = { readonly epoch: number; readonly members: ReadonlySet<AgentDid> };

/** A group as one of its members sees it. */
export type SeenGroup = { groupId: GroupId; name: string; role: Role; members: number };

/**
 * Reads at the primary: whoever joined a moment ago is in.
 *
 * @returns null for a group that does not exist
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function lookUpMembership(db: D1Database, groupId: GroupId): Promise<Membership | null> {
  const rows = await readAll(
    db.withSession("first-primary"),
    query
      .select({ epoch: agentGroups.epoch, agentDid: groupMembers.agentDid })
      .from(groupMembers)
      .innerJoin(agentGroups, eq(agentGroups.groupId, groupMembers.groupId))
      .where(and(eq(groupMembers.groupId, groupId), isNull(agentGroups.deletedAtMs))),
  );
  const [first] = rows;
  return first === undefined ? null : { epoch: first.epoch, members: new Set(rows.map(({ agentDid }) => agentDid)) };
}

/** The group as one of its members sees it: no row for anybody else, nor where there is none. */
export function seenStatement(groupId: string, me: AgentDid): Statement<SeenGroup[]> {
  return query.all<SeenGroup>(sql`
    SELECT ${agentGroups.groupId} AS "groupId", ${agentGroups.name} AS "name", ${groupMembers.role} AS "role",
      ${membersOf(sql`${agentGroups.groupId}`)} AS "members"
    FROM ${agentGroups} JOIN ${groupMembers} ON ${eq(groupMembers.groupId, agentGroups.groupId)}
    WHERE ${and(eq(agentGroups.groupId, groupId as GroupId), isNull(agentGroups.deletedAtMs), eq(groupMembers.agentDid, me))}`);
}

/** Its members, those who came first first: no row for whoever is none of them. */
export function membersStatement(groupId: string, me: AgentDid): Statement<Member[]> {
  return query
    .select({ agentDid: groupMembers.agentDid, role: groupMembers.role, since: groupMembers.joinedAtMs })
    .from(groupMembers)
    .where(and(eq(groupMembers.groupId, groupId as GroupId), isLive(sql`${groupId}`), isMember(groupId, me)))
    .orderBy(asc(groupMembers.joinedAtMs), asc(groupMembers.agentDid));
}

/** The groups that an agent is in, in the order of their ids. */
export function groupsOfStatement(me: AgentDid): Statement<(SeenGroup & { since: number })[]> {
  return query.all(sql`
    SELECT ${agentGroups.groupId} AS "groupId", ${agentGroups.name} AS "name", ${groupMembers.role} AS "role",
      ${groupMembers.joinedAtMs} AS "since",
      ${membersOf(sql`${agentGroups.groupId}`)} AS "members"
    FROM ${groupMembers} JOIN ${agentGroups} ON ${eq(agentGroups.groupId, groupMembers.groupId)}
    WHERE ${and(eq(groupMembers.agentDid, me), isNull(agentGroups.deletedAtMs))} ORDER BY ${agentGroups.groupId}`);
}

/** Whether a group is there and not deleted, as an SQL condition. @param groupId an expression */
export function isLive(groupId: SQL): SQL {
  return sql`EXISTS (SELECT 1 FROM ${agentGroups} AS live WHERE live.group_id = ${groupId} AND live.deleted_at_ms IS NULL)`;
}

/** Whether an agent is in a group, as an SQL condition. */
export function isMember(groupId: string, me: AgentDid): SQL {
  return sql`EXISTS (SELECT 1 FROM ${groupMembers} AS me WHERE me.group_id = ${groupId} AND me.agent_did = ${me})`;
}

/** Whether two agents are in one group, as an SQL condition. */
export function isFellow(me: AgentDid, other: AgentDid): SQL {
  return sql`EXISTS (SELECT 1 FROM ${groupMembers} AS mine JOIN ${groupMembers} AS theirs ON theirs.group_id = mine.group_id
    WHERE mine.agent_did = ${me} AND theirs.agent_did = ${other} AND ${isLive(sql`mine.group_id`)})`;
}

/** Whether an agent is an admin of a group, as an SQL condition on expressions. */
export function isAdmin(groupId: SQL, me: SQL): SQL {
  return sql`EXISTS (SELECT 1 FROM ${groupMembers} AS me WHERE me.group_id = ${groupId} AND me.agent_did = ${me} AND me.role = 'admin')`;
}

/** How many groups an agent is in, as an SQL expression. */
export function groupsOf(me: AgentDid): SQL {
  return sql`(SELECT COUNT(*) FROM ${groupMembers} AS mine WHERE mine.agent_did = ${me} AND ${isLive(sql`mine.group_id`)})`;
}

/** How many members a group has, as an SQL expression. @param groupId an expression */
export function membersOf(groupId: SQL): SQL {
  return sql`(SELECT COUNT(*) FROM ${groupMembers} AS each WHERE each.group_id = ${groupId})`;
}

/**
 * For the batch that revokes an agent: it is in no group any more, and a group that it was alone in is no more. Nothing is fenced:
 * whatever is revoked neither sends nor is sent to.
 */
export function leaveAllStatements(agentDid: AgentDid): Statement<D1Result>[] {
  const alone = sql`SELECT mine.group_id FROM ${groupMembers} AS mine WHERE mine.agent_did = ${agentDid}
    AND ${membersOf(sql`mine.group_id`)} = 1`;
  const mine = sql`SELECT mine.group_id FROM ${groupMembers} AS mine WHERE mine.agent_did = ${agentDid}`;
  return [
    query.delete(groupTokens).where(sql`${groupTokens.groupId} IN (${mine}) AND ${groupTokens.madeBy} = ${agentDid}`),
    query.delete(agentGroups).where(sql`${agentGroups.groupId} IN (${alone})`),
    query.delete(groupMembers).where(eq(groupMembers.agentDid, agentDid)),
  ];
}
