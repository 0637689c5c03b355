/** The statements behind a list of tasks: a page is read in one, and what it leaves out is not read. */
import type { Actor } from "../authz/actor.ts";
import { enforceOf, isMember, ownerOf, subjectParts, tenantOf } from "../authz/tenants.ts";
import { MAX_SERVER_FRAME_BYTES } from "../wire/frames.ts";
import { columnsOf, type TaskRow } from "./store.ts";

/** Where an actor may find tasks at all: nothing is decided by it, it only spares asking where nothing can be found. */
export type Reach = {
  /** The tenant of the asking agent. */
  tenantId: string | null;
  /** Whether the graph decides for some tenant that the actor is a member of. */
  graphDecides: boolean;
  /** Whether creator and owner decide for the asking agent's tenant; for a device, which is in none, for some tenant. */
  creatorDecides: boolean;
};

/** Whether the graph decides for a tenant, as SQL; `fallback` says it where `authz/enforce` never spoke. */
const isEnforced = (tenant: string, fallback: string): string => `(COALESCE(${enforceOf(tenant)}, ${fallback}) = 1)`;

/** @param enforced whether the graph decides for a tenant of which `authz/enforce` never spoke */
export async function findReach(session: D1DatabaseSession, actor: Actor, enforced: boolean): Promise<Reach> {
  const somewhereOff = "?4 = 0 OR EXISTS (SELECT 1 FROM tenant_enforcement WHERE enforce = 0)";
  const select = session
    .prepare(
      `WITH caller (tenant_id) AS (SELECT ${tenantOf("?1")})
       SELECT tenant_id,
         EXISTS (SELECT 1 FROM relationships AS m
           WHERE m.subject_type = ?2 AND m.subject_id = ?3 AND m.subject_relation = '' AND m.object_type = 'tenant'
             AND m.relation = 'member' AND ${isEnforced("m.object_id", "?4")}) AS graph_decides,
         ${actor.kind === "device" ? somewhereOff : `NOT ${isEnforced("caller.tenant_id", "?4")}`} AS creator_decides
       FROM caller`,
    )
    .bind(actor.agentDid, ...subjectParts(actor.subject), enforced ? 1 : 0);
  const row = await select.first<{ tenant_id: string | null; graph_decides: 0 | 1; creator_decides: 0 | 1 }>();
  return {
    tenantId: row?.tenant_id ?? null,
    graphDecides: row?.graph_decides === 1,
    creatorDecides: row?.creator_decides === 1,
  };
}

/** Tasks of one page, and whether there are more behind them. */
export type TaskPage = { rows: TaskRow[]; hasMore: boolean };

export type PageLimits = { agentDid: string | null; cursor: string | null; limit: number };

/** Every task there is, for the operator. */
export async function listEverything(session: D1DatabaseSession, page: PageLimits): Promise<TaskPage> {
  const values = bindings(page.limit);
  const condition = page.agentDid === null ? "" : `AND t.agent_did = ${values.bind(page.agentDid)}`;
  const branch = `SELECT t.task_id FROM tasks AS t WHERE t.task_id > ${values.bind(page.cursor ?? "")} ${condition}`;
  return readPage(session, [branch], values);
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
  const values = bindings(page.limit);
  const branches = [
    ...(by.ids.length === 0 ? [] : [grantedBranch(by, page, values)]),
    ...(by.reach.creatorDecides ? creatorsBranches(by, page, values) : []),
  ];
  return branches.length === 0 ? { rows: [], hasMore: false } : readPage(session, branches, values);
}

function grantedBranch({ actor, ids, enforced }: Permitted, page: PageLimits, values: Bindings): string {
  const [type, id] = subjectParts(actor.subject);
  return `SELECT t.task_id FROM json_each(${values.bind(JSON.stringify(ids))}) AS wanted
    CROSS JOIN tasks AS t ON t.task_id = wanted.value
    WHERE ${isEnforced("t.tenant_id", values.bind(enforced ? 1 : 0))}
      AND ${isMember("t.tenant_id", values.bind(type), values.bind(id))} ${ofAgent(page, values)}`;
}

/** One branch for each index that leads to the actor's own tasks, so that nobody else's are passed on the way. */
function creatorsBranches(by: Permitted, page: PageLimits, values: Bindings): string[] {
  const { actor, reach, enforced, upTo } = by;
  const conditions = [
    `t.task_id > ${values.bind(page.cursor ?? "")}`,
    `NOT ${isEnforced("t.tenant_id", values.bind(enforced ? 1 : 0))}`,
    // Behind it the graph has more to say, and a page has no gaps.
    ...(upTo === null ? [] : [`t.task_id <= ${values.bind(upTo)}`]),
    ...(actor.kind === "device" ? [] : [`t.tenant_id = ${values.bind(reach.tenantId)}`]),
  ].join(" AND ");
  if (actor.serviceAccountId !== null) {
    return [
      `SELECT t.task_id FROM tasks AS t INDEXED BY tasks_by_creator_service_account
       WHERE t.creator_service_account_id = ${values.bind(actor.serviceAccountId)} AND ${conditions} ${ofAgent(page, values)}`,
    ];
  }
  const user = values.bind(actor.userId);
  return [
    `SELECT t.task_id FROM tasks AS t INDEXED BY tasks_by_creator_user
     WHERE t.creator_user_id = ${user} AND ${conditions} ${ofAgent(page, values)}`,
    `SELECT t.task_id FROM (${agentsOwnedBy(user)}) AS owned
     CROSS JOIN tasks AS t ON t.task_id IN (
       SELECT t.task_id FROM tasks AS t INDEXED BY tasks_by_agent
       WHERE t.agent_did = owned.agent_did AND ${conditions} ORDER BY t.task_id LIMIT ?1 + 1)
     WHERE TRUE ${ofAgent(page, values, "owned")}`,
  ];
}

/** A person's agents by index; the registry's word goes before the graph's, as in `ownerOf`. */
function agentsOwnedBy(user: string): string {
  return `SELECT agent_did FROM agents WHERE owner_did = ${user}
    UNION SELECT e.object_id FROM relationships AS e INDEXED BY relationships_by_subject
      WHERE e.subject_type = 'user' AND e.subject_id = ${user} AND e.subject_relation = '' AND e.object_type = 'agent'
        AND e.relation = 'owner' AND ${ownerOf("e.object_id")} = ${user}`;
}

function ofAgent({ agentDid }: PageLimits, values: Bindings, table = "t"): string {
  return agentDid === null ? "" : `AND ${table}.agent_did = ${values.bind(agentDid)}`;
}

/** A page has to fit into one frame of the relay socket, with what stands around it; one task fits always. */
const PAGE_BYTES_MAX = MAX_SERVER_FRAME_BYTES - 4_096;
/** More than what is shown of a task beside `params` and `metadata`. */
const HEAD_BYTES_MAX = 4_096;

/** The values of one statement. */
type Bindings = { bind(value: string | number | null): string; readonly all: readonly (string | number | null)[] };

/** @param limit stands first, as `?1` */
function bindings(limit: number): Bindings {
  const all: (string | number | null)[] = [limit];
  return { bind: (value) => `?${all.push(value)}`, all };
}

/**
 * Reads a page: so many tasks, and no more than fit.
 *
 * @param branches SQL that selects ids of tasks `t`, each task perhaps in several; no more of one are read than a page needs
 */
async function readPage(session: D1DatabaseSession, branches: readonly string[], values: Bindings): Promise<TaskPage> {
  const found = branches.map((branch) => `SELECT * FROM (${branch} ORDER BY t.task_id LIMIT ?1 + 1)`);
  const select = session
    .prepare(
      `WITH found (task_id) AS (${found.join(" UNION ")} ORDER BY 1 LIMIT ?1 + 1),
       page (task_id, bytes) AS (
         SELECT t.task_id, octet_length(t.params) + octet_length(t.metadata) + ${HEAD_BYTES_MAX}
         FROM found CROSS JOIN tasks AS t ON t.task_id = found.task_id),
       filled (task_id, bytes, upto) AS (SELECT task_id, bytes, SUM(bytes) OVER (ORDER BY task_id) FROM page)
       SELECT ${columnsOf("t")}, (SELECT COUNT(*) FROM page) AS found
       FROM filled CROSS JOIN tasks AS t ON t.task_id = filled.task_id
       WHERE filled.upto <= ${PAGE_BYTES_MAX} OR filled.upto = filled.bytes ORDER BY t.task_id LIMIT ?1`,
    )
    .bind(...values.all);
  const { results } = await select.all<TaskRow & { found: number }>();
  return { rows: results, hasMore: (results[0]?.found ?? 0) > results.length };
}
