/** The statements behind a list of tasks: a page is read in one, and what it leaves out is not read. */
import { getTableColumns, type SQL, sql } from "drizzle-orm";
import { alias } from "drizzle-orm/sqlite-core";
import type { Actor } from "../authz/actor.ts";
import { enforceOf, isMember, ownerOf, subjectParts, tenantOf } from "../authz/tenants.ts";
import { type RowOf, selected } from "../database/columns.ts";
import { readAll, readFirst } from "../database/read.ts";
import { agents, relationships, tasks, tenantEnforcement } from "../database/schema.ts";
import { query } from "../database/statement.ts";
import { MAX_SERVER_FRAME_BYTES } from "../wire/frames.ts";
import { stateIn, type TaskState } from "./state.ts";
import type { TaskRow } from "./store.ts";

/** Where an actor may find tasks at all: nothing is decided by it, it only spares asking where nothing can be found. */
export type Reach = {
  /** The tenant of the asking agent. */
  tenantId: string | null;
  /** Whether the graph decides for some tenant that the actor is a member of. */
  graphDecides: boolean;
  /** Whether creator and owner decide for the asking agent's tenant; for a device, which is in none, for some tenant. */
  creatorDecides: boolean;
};

const t = alias(tasks, "t");
const m = alias(relationships, "m");
const e = alias(relationships, "e");

/** Whether the graph decides for a tenant, as SQL; `fallback` says it where `authz/enforce` never spoke. */
const isEnforced = (tenant: SQL, fallback: boolean): SQL<0 | 1> =>
  sql<0 | 1>`(COALESCE(${enforceOf(tenant)}, ${fallback ? 1 : 0}) = 1)`;

/**
 * @param enforced whether the graph decides for a tenant of which `authz/enforce` never spoke
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function findReach(session: D1DatabaseSession, actor: Actor, enforced: boolean): Promise<Reach> {
  const [type, id] = subjectParts(actor.subject);
  const tenant = sql<string | null>`caller.tenant_id`;
  const somewhereOff = sql<
    0 | 1
  >`(${enforced ? 0 : 1} OR EXISTS (SELECT 1 FROM ${tenantEnforcement} WHERE ${tenantEnforcement.enforce} = 0))`;
  const shown = {
    tenantId: tenant,
    graphDecides: sql<
      0 | 1
    >`EXISTS (SELECT 1 FROM ${relationships} AS m WHERE ${m.subjectType} = ${type} AND ${m.subjectId} = ${id}
      AND ${m.subjectRelation} = '' AND ${m.objectType} = 'tenant' AND ${m.relation} = 'member'
      AND ${isEnforced(sql`${m.objectId}`, enforced)})`,
    creatorDecides: actor.kind === "device" ? somewhereOff : sql<0 | 1>`NOT ${isEnforced(tenant, enforced)}`,
  };
  const select = query.all<RowOf<typeof shown>>(
    sql`WITH caller (tenant_id) AS (SELECT ${tenantOf(sql`${actor.agentDid}`)}) SELECT ${selected(shown)} FROM caller`,
  );
  const row = await readFirst(session, select);
  return {
    tenantId: row?.tenantId ?? null,
    graphDecides: row?.graphDecides === 1,
    creatorDecides: row?.creatorDecides === 1,
  };
}

/** Tasks of one page, and whether there are more behind them. */
export type TaskPage = { rows: TaskRow[]; hasMore: boolean };

export type PageLimits = { agentDid: string | null; status: TaskState | null; cursor: string | null; limit: number };

/** Every task there is, for the operator. */
export async function listEverything(session: D1DatabaseSession, page: PageLimits): Promise<TaskPage> {
  const branch = sql`SELECT ${t.taskId} FROM ${tasks} AS t WHERE ${t.taskId} > ${page.cursor ?? ""}${ofAgent(page)}${atStatus(page)}`;
  return readPage(session, [branch], page.limit);
}

/** What a list for an actor is made of. */
export type Permitted = {
  actor: Actor;
  reach: Reach;
  /** Whether the graph decides for a tenant of which `authz/enforce` never spoke. */
  enforced: boolean;
  /** What the graph grants, and the last id it has looked at; null where it has come to its end. */
  ids: readonly string[];
  upTo: string | null;
};

/**
 * What an actor may read: in a tenant for which the graph decides what the graph grants, in another what the actor created
 * and what belongs to its owner's agents. The tenant is the task's own, as it is for a decision on one task.
 */
export async function listPermitted(session: D1DatabaseSession, by: Permitted, page: PageLimits): Promise<TaskPage> {
  const branches = [
    ...(by.ids.length === 0 ? [] : [grantedBranch(by, page)]),
    ...(by.reach.creatorDecides ? creatorsBranches(by, page) : []),
  ];
  return branches.length === 0 ? { rows: [], hasMore: false } : readPage(session, branches, page.limit);
}

function grantedBranch({ actor, ids, enforced }: Permitted, page: PageLimits): SQL {
  return sql`SELECT ${t.taskId} FROM json_each(${JSON.stringify(ids)}) AS wanted
    CROSS JOIN ${tasks} AS t ON ${t.taskId} = wanted.value
    WHERE ${isEnforced(sql`${t.tenantId}`, enforced)} AND ${isMember(sql`${t.tenantId}`, actor.subject)}${ofAgent(page)}${atStatus(page)}`;
}

/** One branch for each index that leads to the actor's own tasks, so that no other's are passed on the way. */
function creatorsBranches(by: Permitted, page: PageLimits): SQL[] {
  const { actor, reach, enforced, upTo } = by;
  const conditions = sql.join(
    [
      sql`${t.taskId} > ${page.cursor ?? ""}`,
      sql`NOT ${isEnforced(sql`${t.tenantId}`, enforced)}`,
      // Behind it the graph has more to say, and a page has no gaps.
      ...(upTo === null ? [] : [sql`${t.taskId} <= ${upTo}`]),
      ...(actor.kind === "device" ? [] : [sql`${t.tenantId} = ${reach.tenantId}`]),
      ...(page.status === null ? [] : [sql`${stateIn(t)} = ${page.status}`]),
    ],
    sql` AND `,
  );
  if (actor.serviceAccountId !== null) {
    return [
      sql`SELECT ${t.taskId} FROM ${tasks} AS t INDEXED BY tasks_by_creator_service_account
        WHERE ${t.creatorServiceAccountId} = ${actor.serviceAccountId} AND ${conditions}${ofAgent(page)}`,
    ];
  }
  return [
    sql`SELECT ${t.taskId} FROM ${tasks} AS t INDEXED BY tasks_by_creator_user
      WHERE ${t.creatorUserId} = ${actor.userId} AND ${conditions}${ofAgent(page)}`,
    sql`SELECT ${t.taskId} FROM (${agentsOwnedBy(actor.userId)}) AS owned
      CROSS JOIN ${tasks} AS t ON ${t.taskId} IN (
        SELECT ${t.taskId} FROM ${tasks} AS t INDEXED BY tasks_by_agent
        WHERE ${t.agentDid} = owned.agent_did AND ${conditions} ORDER BY ${t.taskId} LIMIT ${page.limit + 1})
      WHERE TRUE${ofAgent(page, sql`owned.agent_did`)}`,
  ];
}

/** A person's agents by index; the registry's word goes before the graph's, as in `ownerOf`. */
function agentsOwnedBy(user: string | null): SQL {
  return sql`SELECT ${agents.agentDid} AS agent_did FROM ${agents} WHERE ${agents.ownerDid} = ${user}
    UNION SELECT ${e.objectId} FROM ${relationships} AS e INDEXED BY relationships_by_subject
      WHERE ${e.subjectType} = 'user' AND ${e.subjectId} = ${user} AND ${e.subjectRelation} = '' AND ${e.objectType} = 'agent'
        AND ${e.relation} = 'owner' AND ${ownerOf(sql`${e.objectId}`)} = ${user}`;
}

function ofAgent({ agentDid }: PageLimits, column: SQL = sql`${t.agentDid}`): SQL {
  return agentDid === null ? sql`` : sql` AND ${column} = ${agentDid}`;
}

function atStatus({ status }: PageLimits): SQL {
  return status === null ? sql`` : sql` AND ${stateIn(t)} = ${status}`;
}

/** A page has to fit into one frame of the relay socket, with what stands around it; one task fits always. */
const PAGE_BYTES_MAX = MAX_SERVER_FRAME_BYTES - 4_096;
/** More than what is shown of a task beside its texts. */
const HEAD_BYTES_MAX = 4_096;

/**
 * Reads a page: so many tasks, and no more than fit.
 *
 * @param branches SQL that selects ids of tasks `t`, each task perhaps in several; no more of one are read than a page needs
 */
async function readPage(session: D1DatabaseSession, branches: readonly SQL[], limit: number): Promise<TaskPage> {
  const found = branches.map((branch) => sql`SELECT * FROM (${branch} ORDER BY ${t.taskId} LIMIT ${limit + 1})`);
  const shown = { ...getTableColumns(t), found: sql<number>`(SELECT COUNT(*) FROM page)` };
  const select = query.all<RowOf<typeof shown>>(sql`WITH found (task_id) AS (
      ${sql.join(found, sql` UNION `)} ORDER BY 1 LIMIT ${limit + 1}),
    page (task_id, bytes) AS (
      SELECT ${t.taskId}, octet_length(${t.params}) + octet_length(${t.metadata})
        + COALESCE(octet_length(${t.result}), 0) + COALESCE(octet_length(${t.statusMessage}), 0) + ${HEAD_BYTES_MAX}
      FROM found CROSS JOIN ${tasks} AS t ON ${t.taskId} = found.task_id),
    filled (task_id, bytes, upto) AS (SELECT task_id, bytes, SUM(bytes) OVER (ORDER BY task_id) FROM page)
    SELECT ${selected(shown)} FROM filled CROSS JOIN ${tasks} AS t ON ${t.taskId} = filled.task_id
    WHERE filled.upto <= ${PAGE_BYTES_MAX} OR filled.upto = filled.bytes ORDER BY ${t.taskId} LIMIT ${limit}`);
  const rows = await readAll(session, select);
  return { rows, hasMore: (rows[0]?.found ?? 0) > rows.length };
}
