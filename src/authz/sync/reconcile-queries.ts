/** The SQL of reconciliation: what a phase looks at in one page, what it repairs and removes, and one tenant's drift. */
import { type SQL, sql } from "drizzle-orm";
import { alias } from "drizzle-orm/sqlite-core";
import { agents, apiKeys, relationships, tasks } from "../../database/schema.ts";
import { query, type Statement } from "../../database/statement.ts";
import {
  a,
  AGENT_GRANTS,
  AGENT_LACKS,
  k,
  KEY_GRANTS,
  KEY_LACKS,
  t,
  TASK_GRANTS,
  TASK_IS_OWNERLESS,
  TASK_LACKS,
} from "./missing-grants.ts";
import { bulkOutboxStatements } from "./outbox.ts";
import { isWithdrawn, type TupleSql } from "./withdrawn-grants.ts";

export const PHASES = ["tasks", "apikeys", "agents", "task-tuples", "key-tuples"] as const;
export type Phase = (typeof PHASES)[number];

/** One row or object that was looked at: whether it lacks grants or an owner, and how many tuples of it have no row. */
export type LookRow = { id: string; lacks: 0 | 1; ownerless: 0 | 1; tuples: number };

export type LookOptions = {
  /** The id after which the page begins. */
  after: string;
  limit: number;
  /** Of which tenants; null for all. */
  tenants: readonly string[] | null;
  /** Tuples made later are left alone. */
  madeBeforeMs: number;
};

const r = alias(relationships, "r");
const isUlidLike = (id: SQL): SQL => sql`(length(${id}) = 26 AND ${id} NOT GLOB '*[^0-9A-HJKMNP-TV-Z]*')`;
/** The grants of a service account; what else it was given, its tasks included, is not the key's. */
const IS_KEY_GRANT = sql`(${r.subjectType} = 'service_account' AND ${r.subjectRelation} = ''
  AND ((${r.objectType} = 'tenant' AND ${r.relation} = 'member') OR (${r.objectType} = 'agent' AND ${r.relation} = 'executor')))`;
const IS_KEY_LESS = sql`NOT EXISTS (SELECT 1 FROM ${apiKeys} WHERE ${apiKeys.serviceAccountId} = ${r.subjectId})`;
const IS_TASK_LESS = sql`NOT EXISTS (SELECT 1 FROM ${tasks} WHERE ${tasks.taskId} = ${r.objectId})`;

/** Looks at one page of a phase, at the rows' own index. */
export function lookStatement(
  phase: Phase,
  { after, limit, tenants, madeBeforeMs }: LookOptions,
): Statement<LookRow[]> {
  const among = (column: SQL): SQL =>
    tenants === null ? sql`TRUE` : sql`${column} IN (SELECT value FROM json_each(${JSON.stringify(tenants)}))`;
  switch (phase) {
    case "tasks":
      return query.all<LookRow>(sql`SELECT ${t.taskId} AS id, ${TASK_LACKS} AS lacks, ${TASK_IS_OWNERLESS} AS ownerless, 0 AS tuples
        FROM ${tasks} AS t WHERE ${t.taskId} > ${after} AND ${among(sql`${t.tenantId}`)} ORDER BY ${t.taskId} LIMIT ${limit}`);
    case "apikeys":
      return query.all<LookRow>(sql`SELECT ${k.apiKeyId} AS id, ${KEY_LACKS} AS lacks, 0 AS ownerless, 0 AS tuples
        FROM ${apiKeys} AS k WHERE ${k.apiKeyId} > ${after} AND ${among(sql`${k.tenantId}`)} ORDER BY ${k.apiKeyId} LIMIT ${limit}`);
    case "agents":
      return query.all<LookRow>(sql`SELECT ${a.agentDid} AS id, ${AGENT_LACKS} AS lacks, 0 AS ownerless, 0 AS tuples
        FROM ${agents} AS a WHERE ${a.agentDid} > ${after} AND ${among(sql`${a.tenantId}`)} ORDER BY ${a.agentDid} LIMIT ${limit}`);
    case "task-tuples":
      return query.all<LookRow>(sql`SELECT id, 0 AS lacks, 0 AS ownerless,
          CASE WHEN EXISTS (SELECT 1 FROM ${tasks} WHERE ${tasks.taskId} = id) THEN 0 ELSE
            (SELECT COUNT(*) FROM ${relationships} AS r
              WHERE ${r.objectType} = 'task' AND ${r.objectId} = id AND ${r.createdAtMs} <= ${madeBeforeMs}) END AS tuples
        FROM (SELECT DISTINCT ${r.objectId} AS id FROM ${relationships} AS r
          WHERE ${r.objectType} = 'task' AND ${r.objectId} > ${after} ORDER BY ${r.objectId} LIMIT ${limit}) ORDER BY id`);
    case "key-tuples":
      return query.all<LookRow>(sql`SELECT id, 0 AS lacks, 0 AS ownerless,
          CASE WHEN EXISTS (SELECT 1 FROM ${apiKeys} WHERE ${apiKeys.serviceAccountId} = id) THEN 0 ELSE
            (SELECT COUNT(*) FROM ${relationships} AS r
              WHERE ${r.subjectId} = id AND ${IS_KEY_GRANT} AND ${r.createdAtMs} <= ${madeBeforeMs}) END AS tuples
        FROM (SELECT DISTINCT ${r.subjectId} AS id FROM ${relationships} AS r
          WHERE ${r.subjectType} = 'service_account' AND ${r.subjectId} > ${after} AND ${isUlidLike(sql`${r.subjectId}`)}
          ORDER BY ${r.subjectId} LIMIT ${limit}) ORDER BY id`);
  }
}

const named = (ids: string): SQL => sql`IN (SELECT value FROM json_each(${ids}))`;

/**
 * Repairs or removes what one page found, and nothing else: each statement looks at the rows again, and writes a grant only
 * where that very grant is missing.
 *
 * @param ids a JSON array
 */
export function repairStatements(
  phase: Phase,
  ids: string,
  { nowMs, madeBeforeMs }: { nowMs: number; madeBeforeMs: number },
): Statement<D1Result>[] {
  switch (phase) {
    case "tasks":
      return Object.values(TASK_GRANTS).map(({ tuple, isMissing }) =>
        granted(sql`${tasks} AS t`, tuple, nowMs, sql`${t.taskId} ${named(ids)} AND ${isMissing}`),
      );
    case "apikeys":
      return [allGranted(sql`${apiKeys} AS k`, KEY_GRANTS, nowMs, sql`${k.apiKeyId} ${named(ids)} AND ${KEY_LACKS}`)];
    case "agents":
      return [
        allGranted(sql`${agents} AS a`, AGENT_GRANTS, nowMs, sql`${a.agentDid} ${named(ids)} AND ${AGENT_LACKS}`),
      ];
    case "task-tuples":
      return [
        query.run(sql`DELETE FROM ${relationships} AS r
          WHERE ${r.objectType} = 'task' AND ${r.objectId} ${named(ids)} AND ${r.createdAtMs} <= ${madeBeforeMs} AND ${IS_TASK_LESS}`),
      ];
    case "key-tuples":
      return [
        query.run(sql`DELETE FROM ${relationships} AS r
          WHERE ${r.subjectId} ${named(ids)} AND ${IS_KEY_GRANT} AND ${r.createdAtMs} <= ${madeBeforeMs} AND ${IS_KEY_LESS}`),
      ];
  }
}

/** Notifies a remote graph of what one page repairs and removes, by the outbox; goes before that, as it looks at what is missing. */
export function notifyStatements(phase: Phase, ids: string, nowMs: number): Statement<D1Result>[] {
  const select = changesOf(phase, ids);
  return select === null ? [] : bulkOutboxStatements(select, nowMs);
}

/** The changes of a page: id, op, object, principal, parent, relation, tenant. */
function changesOf(phase: Phase, ids: string): SQL | null {
  const { tuple: owner, isMissing: hasNoOwner } = TASK_GRANTS.owner;
  switch (phase) {
    case "tasks":
      // An owner only where the task has none: the row's creator may have been taken out, and another put in.
      return sql`SELECT 'repair-task-' || ${t.taskId}, 'register', 'task:' || ${t.taskId},
        IIF(${hasNoOwner}, ${owner.subjectType} || ':' || ${owner.subjectId}, NULL), 'agent:' || ${t.agentDid}, NULL, ${t.tenantId}
        FROM ${tasks} AS t WHERE ${t.taskId} ${named(ids)} AND ${TASK_LACKS}`;
    case "apikeys":
      return sql`SELECT 'repair-key-' || ${k.apiKeyId}, 'register', 'agent:' || ${k.agentDid},
        'service_account:' || ${k.serviceAccountId}, 'tenant:' || ${k.tenantId}, 'executor', ${k.tenantId}
        FROM ${apiKeys} AS k WHERE ${k.apiKeyId} ${named(ids)} AND ${KEY_LACKS}`;
    case "agents":
      return sql`SELECT 'repair-agent-' || ${a.agentDid}, 'register', 'agent:' || ${a.agentDid}, 'user:' || ${a.ownerDid},
        'tenant:' || ${a.tenantId}, NULL, ${a.tenantId} FROM ${agents} AS a WHERE ${a.agentDid} ${named(ids)} AND ${AGENT_LACKS}`;
    case "task-tuples":
      // Its parent and its tenant are known by its tuples alone.
      return sql`SELECT 'remove-task-' || value, 'deregister', 'task:' || value, NULL, ${idOfTask("parent", "agent:")}, NULL,
        COALESCE(${idOfTask("tenant", "")}, '') FROM json_each(${ids})
        WHERE NOT EXISTS (SELECT 1 FROM ${tasks} WHERE ${tasks.taskId} = value)`;
    case "key-tuples":
      return null;
  }
}

function idOfTask(relation: "parent" | "tenant", prefix: "agent:" | ""): SQL {
  return sql`(SELECT ${prefix} || ${r.subjectId} FROM ${relationships} AS r
    WHERE ${r.objectType} = 'task' AND ${r.objectId} = value AND ${r.relation} = ${relation} LIMIT 1)`;
}

function selectOf(from: SQL, tuple: TupleSql, nowMs: number, condition: SQL): SQL {
  return sql`SELECT ${sql.raw(`'${tuple.objectType}'`)}, ${tuple.objectId}, ${sql.raw(`'${tuple.relation}'`)},
    ${tuple.subjectType}, ${tuple.subjectId}, '', ${nowMs} FROM ${from} WHERE ${condition}`;
}

function granted(from: SQL, tuple: TupleSql, nowMs: number, condition: SQL): Statement<D1Result> {
  return query
    .insert(relationships)
    .select(selectOf(from, tuple, nowMs, condition))
    .onConflictDoNothing();
}

/** Several grants of each row at once, since the first of them ends that the row lacks any. SQLite reads before it writes here. */
function allGranted(from: SQL, tuples: readonly TupleSql[], nowMs: number, condition: SQL): Statement<D1Result> {
  const selects = tuples.map((tuple) => selectOf(from, tuple, nowMs, sql`${condition} AND NOT ${isWithdrawn(tuple)}`));
  return query
    .insert(relationships)
    .select(sql`SELECT * FROM (${sql.join(selects, sql` UNION ALL `)}) WHERE TRUE`)
    .onConflictDoNothing();
}

/** A grant of a service account whose key is gone. */
const KEY_IS_GONE = sql`${IS_KEY_GRANT} AND ${isUlidLike(sql`${r.subjectId}`)} AND ${IS_KEY_LESS}`;

/** One tenant's drift as an SQL expression: what would be repaired, and tuples without a row. */
export function tenantDrift(tenantId: string): SQL<number> {
  const placed = alias(relationships, "placed");
  return sql<number>`(
    (SELECT COUNT(*) FROM ${tasks} AS t WHERE ${t.tenantId} = ${tenantId} AND ${TASK_LACKS})
    + (SELECT COUNT(*) FROM ${apiKeys} AS k WHERE ${k.tenantId} = ${tenantId} AND ${KEY_LACKS})
    + (SELECT COUNT(*) FROM ${agents} AS a WHERE ${a.tenantId} = ${tenantId} AND ${AGENT_LACKS})
    + (SELECT COUNT(*) FROM ${relationships} AS r WHERE ${r.objectType} = 'tenant' AND ${r.objectId} = ${tenantId} AND ${KEY_IS_GONE})
    + (SELECT COUNT(*) FROM ${relationships} AS r WHERE ${r.objectType} = 'agent' AND ${KEY_IS_GONE} AND ${r.objectId} IN (
        SELECT ${placed.objectId} FROM ${relationships} AS placed WHERE ${placed.subjectType} = 'tenant'
          AND ${placed.subjectId} = ${tenantId} AND ${placed.subjectRelation} = '' AND ${placed.objectType} = 'agent'
          AND ${placed.relation} = 'tenant'))
    + (SELECT COUNT(*) FROM ${relationships} AS r WHERE ${r.subjectType} = 'tenant' AND ${r.subjectId} = ${tenantId}
        AND ${r.subjectRelation} = '' AND ${r.objectType} = 'task' AND ${r.relation} = 'tenant' AND ${IS_TASK_LESS}))`;
}
