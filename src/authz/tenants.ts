/** Tenants in SQL: whose an agent is, who belongs to it, and whether its graph decides. Expressions over other expressions. */
import { type SQL, sql } from "drizzle-orm";
import { alias } from "drizzle-orm/sqlite-core";
import { agents, relationships, tenantEnforcement } from "../database/schema.ts";

const member = alias(relationships, "member");
const placed = alias(relationships, "placed");
const owned = alias(relationships, "owned");

/** An agent's tenant: as the graph has it, since an operator may have moved it; then the registry's. */
export function tenantOf(did: SQL): SQL<string | null> {
  return sql<string | null>`COALESCE(
    (SELECT ${placed.subjectId} FROM ${relationships} AS placed
      WHERE ${placed.objectType} = 'agent' AND ${placed.objectId} = ${did} AND ${placed.relation} = 'tenant'),
    (SELECT ${agents.tenantId} FROM ${agents} WHERE ${agents.agentDid} = ${did}))`;
}

/** An agent's owner: the registry's first; then the graph's. */
export function ownerOf(did: SQL): SQL<string | null> {
  return sql<string | null>`COALESCE(
    (SELECT ${agents.ownerDid} FROM ${agents} WHERE ${agents.agentDid} = ${did}),
    (SELECT ${owned.subjectId} FROM ${relationships} AS owned WHERE ${owned.objectType} = 'agent' AND ${owned.objectId} = ${did}
      AND ${owned.relation} = 'owner' AND ${owned.subjectType} = 'user' ORDER BY ${owned.subjectId} LIMIT 1))`;
}

/** What `authz/enforce` set for a tenant; NULL where it never did. */
export function enforceOf(tenant: SQL): SQL<0 | 1 | null> {
  return sql<
    0 | 1 | null
  >`(SELECT ${tenantEnforcement.enforce} FROM ${tenantEnforcement} WHERE ${tenantEnforcement.tenantId} = ${tenant})`;
}

/** When an agent was revoked in the embedded registry; NULL while it is not, and for an agent of another registry. */
export function revokedAtOf(did: SQL): SQL<number | null> {
  return sql<number | null>`(SELECT ${agents.revokedAtMs} FROM ${agents} WHERE ${agents.agentDid} = ${did})`;
}

/** Whether a subject is a member of a tenant by a tuple of its own. @param subject `type:id`; null for nobody */
export function isMember(tenant: SQL, subject: string | null): SQL<0 | 1> {
  const [type, id] = subject === null ? [null, null] : subjectParts(subject);
  return sql<0 | 1>`EXISTS (SELECT 1 FROM ${relationships} AS member WHERE ${member.objectType} = 'tenant'
    AND ${member.objectId} = ${tenant} AND ${member.relation} = 'member' AND ${member.subjectType} = ${type}
    AND ${member.subjectId} = ${id} AND ${member.subjectRelation} = '')`;
}

/** @returns type and id of a subject that is no userset */
export function subjectParts(subject: string): [type: string, id: string] {
  const colon = subject.indexOf(":");
  return [subject.slice(0, colon), subject.slice(colon + 1)];
}

/** @param enforce what `authz/enforce` set for a tenant; null where it never did */
export function isEnforced(config: { fgacEnforce: boolean }, enforce: 0 | 1 | null): boolean {
  return enforce === null ? config.fgacEnforce : enforce === 1;
}
