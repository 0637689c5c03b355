/** What a row lacks in the graph: the grants that stand by themselves, but for those that were withdrawn. Conditions in SQL. */
import { type SQL, sql } from "drizzle-orm";
import { alias } from "drizzle-orm/sqlite-core";
import { agents, apiKeys, relationships, tasks } from "../../database/schema.ts";
import { isTaken, isWithdrawn, type TupleSql } from "./withdrawn-grants.ts";

/** The rows that conditions speak of: `FROM tasks AS t`, `FROM api_keys AS k`, `FROM agents AS a`. */
export const t = alias(tasks, "t");
export const k = alias(apiKeys, "k");
export const a = alias(agents, "a");
const g = alias(relationships, "g");

const AGENT = sql`'agent'`;
const TENANT = sql`'tenant'`;
const USER = sql`'user'`;
const SERVICE_ACCOUNT = sql`'service_account'`;

/** The creator of a task, whose owner it is. */
const HAS_CREATOR = sql`(${t.creatorUserId} IS NOT NULL OR ${t.creatorServiceAccountId} IS NOT NULL)`;
const TASK_OWNER: TupleSql = {
  objectType: "task",
  objectId: sql`${t.taskId}`,
  relation: "owner",
  subjectType: sql`IIF(${t.creatorUserId} IS NOT NULL, 'user', 'service_account')`,
  subjectId: sql`COALESCE(${t.creatorUserId}, ${t.creatorServiceAccountId})`,
};
const TASK_TENANT: TupleSql = { ...TASK_OWNER, relation: "tenant", subjectType: TENANT, subjectId: sql`${t.tenantId}` };
const TASK_PARENT: TupleSql = { ...TASK_OWNER, relation: "parent", subjectType: AGENT, subjectId: sql`${t.agentDid}` };

const NOT_OWNED = sql`NOT ${hasAny(TASK_OWNER)}`;
/** A task that has no owner, and whose row does not say who made it. */
export const TASK_IS_OWNERLESS = sql`(${NOT_OWNED} AND NOT ${HAS_CREATOR})`;

/** What a task may lack, each with when it does: an object of its own stands in one tenant and has one parent, whichever they are. */
export const TASK_GRANTS = {
  tenant: { tuple: TASK_TENANT, isMissing: isLacking(TASK_TENANT) },
  parent: { tuple: TASK_PARENT, isMissing: isLacking(TASK_PARENT) },
  owner: { tuple: TASK_OWNER, isMissing: sql`(${HAS_CREATOR} AND ${isLacking(TASK_OWNER)})` },
} as const;
export const TASK_LACKS = either(Object.values(TASK_GRANTS).map(({ isMissing }) => isMissing));

/** An API key: its service account as a member of the tenant and executor of the agent. */
export const KEY_GRANTS: readonly TupleSql[] = [
  {
    objectType: "tenant",
    objectId: sql`${k.tenantId}`,
    relation: "member",
    subjectType: SERVICE_ACCOUNT,
    subjectId: sql`${k.serviceAccountId}`,
  },
  {
    objectType: "agent",
    objectId: sql`${k.agentDid}`,
    relation: "executor",
    subjectType: SERVICE_ACCOUNT,
    subjectId: sql`${k.serviceAccountId}`,
  },
];
const HAS_KEY_GRANT = sql`EXISTS (SELECT 1 FROM ${relationships} AS g WHERE ${g.subjectType} = 'service_account'
  AND ${g.subjectId} = ${k.serviceAccountId} AND ${g.subjectRelation} = '' AND ${g.objectType} IN ('tenant', 'agent'))`;
export const KEY_LACKS = sql`(NOT ${HAS_KEY_GRANT} AND NOT ${isTaken("service_account", sql`${k.serviceAccountId}`)}
  AND ${anyLeft(KEY_GRANTS)})`;

const OF_AGENT = { objectType: "agent", objectId: sql`${a.agentDid}` } as const;
const OF_ITS_TENANT = { objectType: "tenant", objectId: sql`${a.tenantId}`, relation: "member" } as const;
/** An agent: its tenant, its owner, itself, and the membership of its owner and of itself. */
export const AGENT_GRANTS: readonly TupleSql[] = [
  { ...OF_AGENT, relation: "tenant", subjectType: TENANT, subjectId: sql`${a.tenantId}` },
  { ...OF_AGENT, relation: "owner", subjectType: USER, subjectId: sql`${a.ownerDid}` },
  { ...OF_AGENT, relation: "executor", subjectType: AGENT, subjectId: sql`${a.agentDid}` },
  { ...OF_ITS_TENANT, subjectType: USER, subjectId: sql`${a.ownerDid}` },
  { ...OF_ITS_TENANT, subjectType: AGENT, subjectId: sql`${a.agentDid}` },
];
/** The grants of an agent. What others were granted on it, and what it was given elsewhere, is not its own. */
const HAS_AGENT_GRANT = sql`(EXISTS (SELECT 1 FROM ${relationships} AS g WHERE ${g.objectType} = 'agent' AND ${g.objectId} = ${a.agentDid}
    AND (${g.relation} IN ('tenant', 'owner')
      OR (${g.relation} = 'executor' AND ${g.subjectType} = 'agent' AND ${g.subjectId} = ${a.agentDid})))
  OR EXISTS (SELECT 1 FROM ${relationships} AS g WHERE ${g.subjectType} = 'agent' AND ${g.subjectId} = ${a.agentDid}
    AND ${g.subjectRelation} = '' AND ${g.objectType} = 'tenant' AND ${g.relation} = 'member'))`;
/** An agent that never was in the graph. */
export const AGENT_LACKS = sql`(${a.revokedAtMs} IS NULL AND NOT ${HAS_AGENT_GRANT} AND NOT ${isTaken("agent", sql`${a.agentDid}`)}
  AND ${anyLeft(AGENT_GRANTS)})`;

function hasAny({ objectType, objectId, relation }: TupleSql): SQL {
  return sql`EXISTS (SELECT 1 FROM ${relationships} AS g WHERE ${g.objectType} = ${literal(objectType)}
    AND ${g.objectId} = ${objectId} AND ${g.relation} = ${literal(relation)})`;
}

/** Whether no subject stands in this relation, and what the row would give was not withdrawn. */
function isLacking(tuple: TupleSql): SQL {
  return sql`(NOT ${hasAny(tuple)} AND NOT ${isWithdrawn(tuple)})`;
}

function anyLeft(grants: readonly TupleSql[]): SQL {
  return either(grants.map((grant) => sql`NOT ${isWithdrawn(grant)}`));
}

function either(conditions: readonly SQL[]): SQL {
  return sql`(${sql.join([...conditions], sql` OR `)})`;
}

function literal(name: string): SQL {
  return sql.raw(`'${name}'`);
}
