/** The rows of `tasks`, and what a decision about one reads beside it, in one statement. */
import type { Actor } from "../authz/actor.ts";
import { enforceOf, isMember, ownerOf, subjectParts, tenantOf } from "../authz/tenants.ts";
import { read } from "../database/read.ts";
import { JsonText } from "../wire/json-text.ts";

export type TaskRow = {
  task_id: string;
  tenant_id: string;
  name: string | null;
  agent_did: string;
  status: "running" | "canceled";
  params: string;
  metadata: string;
  creator_user_id: string | null;
  creator_service_account_id: string | null;
  created_at_ms: number;
  updated_at_ms: number;
};

export const TASK_COLUMNS = `task_id, tenant_id, name, agent_did, status, params, metadata, creator_user_id,
  creator_service_account_id, created_at_ms, updated_at_ms`;
export const columnsOf = (table: string): string => TASK_COLUMNS.replaceAll(/\w+/g, (column) => `${table}.${column}`);

/** A task as the wire shows it. */
export function shownTask(row: TaskRow) {
  return {
    taskId: row.task_id,
    name: row.name,
    tenantId: row.tenant_id,
    agentDid: row.agent_did,
    status: row.status,
    params: new JsonText(row.params),
    metadata: new JsonText(row.metadata),
    creatorUserId: row.creator_user_id,
    creatorServiceAccountId: row.creator_service_account_id,
    createdAtMs: row.created_at_ms,
    updatedAtMs: row.updated_at_ms,
  };
}
export type ShownTask = ReturnType<typeof shownTask>;

/** Whom a task is asked for by. */
export type TaskKey = { taskId: string } | { taskName: string };

/** What is known of a task and of who asks for it; `row` is null where there is no such task. */
export type Found = {
  row: TaskRow | null;
  /** The tenant of the asking agent. */
  callerTenantId: string | null;
  /** As it was set by `authz/enforce`; null where it never was. */
  callerEnforce: 0 | 1 | null;
  taskEnforce: 0 | 1 | null;
  /** The owner of the task's agent. */
  agentOwner: string | null;
  /** Whether the asking subject is a member of the task's tenant. */
  isMember: boolean;
};

type FoundRow = { [Column in keyof TaskRow]: TaskRow[Column] | null } & {
  caller_tenant_id: string | null;
  caller_enforce: 0 | 1 | null;
  task_enforce: 0 | 1 | null;
  agent_owner: string | null;
  is_member: 0 | 1;
};

/**
 * Reads a task for an actor, at the primary, in one statement; a task that does not exist costs the same.
 *
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function findTask(db: D1Database, actor: Actor, key: TaskKey): Promise<Found> {
  const condition = "taskId" in key ? "t.task_id = ?2" : "t.tenant_id = caller.tenant_id AND t.name = ?2";
  const [type, id] = subjectParts(actor.subject);
  const select = db
    .withSession("first-primary")
    .prepare(
      `WITH caller (tenant_id) AS (SELECT ${tenantOf("?1")})
       SELECT ${columnsOf("t")}, caller.tenant_id AS caller_tenant_id, ${enforceOf("caller.tenant_id")} AS caller_enforce,
         ${enforceOf("t.tenant_id")} AS task_enforce, ${ownerOf("t.agent_did")} AS agent_owner,
         ${isMember("t.tenant_id", "?3", "?4")} AS is_member
       FROM caller LEFT JOIN tasks AS t ON ${condition}`,
    )
    .bind(actor.agentDid, "taskId" in key ? key.taskId : key.taskName, type, id);
  const found = await read(select.first<FoundRow>());
  return {
    row: found === null || found.task_id === null ? null : (found as TaskRow),
    callerTenantId: found?.caller_tenant_id ?? null,
    callerEnforce: found?.caller_enforce ?? null,
    taskEnforce: found?.task_enforce ?? null,
    agentOwner: found?.agent_owner ?? null,
    isMember: found?.is_member === 1,
  };
}

/**
 * Reads tasks for the operator, who is in no tenant: by name there may be several.
 *
 * @param agentDid narrows a name to this agent's tenant
 */
export async function findTasksForOperator(db: D1Database, key: TaskKey, agentDid: string | null): Promise<TaskRow[]> {
  const session = db.withSession("first-primary");
  if ("taskId" in key) {
    const select = session.prepare(`SELECT ${TASK_COLUMNS} FROM tasks WHERE task_id = ?1`).bind(key.taskId);
    return (await read(select.all<TaskRow>())).results;
  }
  const select = session
    .prepare(
      `SELECT ${TASK_COLUMNS} FROM tasks WHERE name = ?1 AND (?2 IS NULL OR tenant_id = ${tenantOf("?2")}) LIMIT 2`,
    )
    .bind(key.taskName, agentDid);
  return (await read(select.all<TaskRow>())).results;
}

/** The agent that a task is to be made for. */
export type Target = {
  /** null where there is no such agent. */
  tenantId: string | null;
  enforce: 0 | 1 | null;
  owner: string | null;
  isRevoked: boolean;
  isMember: boolean;
  callerTenantId: string | null;
  callerEnforce: 0 | 1 | null;
  /** The task that has the name already. */
  existing: TaskRow | null;
};

type TargetRow = { [Column in keyof TaskRow]: TaskRow[Column] | null } & {
  target_tenant_id: string | null;
  target_enforce: 0 | 1 | null;
  target_owner: string | null;
  revoked_at_ms: number | null;
  is_member: 0 | 1;
  caller_tenant_id: string | null;
  caller_enforce: 0 | 1 | null;
};

/** Reads the agent that a task is to be made for, and the task that has its name, in one statement. */
export async function findTarget(
  db: D1Database,
  actor: Actor | null,
  { agentDid, name }: { agentDid: string; name: string | null },
): Promise<Target> {
  const [type, id] = actor === null ? [null, null] : subjectParts(actor.subject);
  const select = db
    .withSession("first-primary")
    .prepare(
      `WITH target (tenant_id) AS (SELECT ${tenantOf("?1")}), caller (tenant_id) AS (SELECT ${tenantOf("?5")})
       SELECT ${columnsOf("t")}, target.tenant_id AS target_tenant_id, ${enforceOf("target.tenant_id")} AS target_enforce,
         ${ownerOf("?1")} AS target_owner, (SELECT revoked_at_ms FROM agents WHERE agent_did = ?1) AS revoked_at_ms,
         ${isMember("target.tenant_id", "?3", "?4")} AS is_member,
         caller.tenant_id AS caller_tenant_id, ${enforceOf("caller.tenant_id")} AS caller_enforce
       FROM target CROSS JOIN caller LEFT JOIN tasks AS t ON t.tenant_id = target.tenant_id AND t.name = ?2`,
    )
    .bind(agentDid, name, type, id, actor?.agentDid ?? null);
  const found = await read(select.first<TargetRow>());
  return {
    tenantId: found?.target_tenant_id ?? null,
    enforce: found?.target_enforce ?? null,
    owner: found?.target_owner ?? null,
    isRevoked: (found?.revoked_at_ms ?? null) !== null,
    isMember: found?.is_member === 1,
    callerTenantId: found?.caller_tenant_id ?? null,
    callerEnforce: found?.caller_enforce ?? null,
    existing: found === null || found.task_id === null ? null : (found as TaskRow),
  };
}

/** The statement that makes a task; it fails its batch where the name is taken. */
export function insertTask(db: D1Database, row: TaskRow): D1PreparedStatement {
  return db
    .prepare(`INSERT INTO tasks (${TASK_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)`)
    .bind(
      row.task_id,
      row.tenant_id,
      row.name,
      row.agent_did,
      row.status,
      row.params,
      row.metadata,
      row.creator_user_id,
      row.creator_service_account_id,
      row.created_at_ms,
      row.updated_at_ms,
    );
}
