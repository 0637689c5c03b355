/** The rows of `tasks`, and what a decision about one reads beside it, in one statement. */
import { eq, getTableColumns, type SQL, sql } from "drizzle-orm";
import { alias } from "drizzle-orm/sqlite-core";
import type { Actor } from "../authz/actor.ts";
import { enforceOf, isMember, ownerOf, revokedAtOf, tenantOf } from "../authz/tenants.ts";
import { type RowOf, selected } from "../database/columns.ts";
import { readAll, readFirst } from "../database/read.ts";
import { tasks } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";
import { JsonText } from "../wire/json-text.ts";
import { stateOf, type TaskState } from "./state.ts";

export type TaskRow = typeof tasks.$inferSelect;

/** A task as the wire shows it. */
export type ShownTask = Pick<
  TaskRow,
  | "taskId"
  | "name"
  | "tenantId"
  | "agentDid"
  | "creatorUserId"
  | "creatorServiceAccountId"
  | "createdAtMs"
  | "updatedAtMs"
> & {
  status: TaskState;
  params: JsonText;
  metadata: JsonText;
  result?: JsonText;
  statusMessage?: string;
  endedAtMs?: number;
};

/** @returns a task as the wire shows it; `params`, `metadata` and `result` are the text that came */
export function shownTask(row: TaskRow): ShownTask {
  return {
    taskId: row.taskId,
    name: row.name,
    tenantId: row.tenantId,
    agentDid: row.agentDid,
    status: stateOf(row),
    params: new JsonText(row.params),
    metadata: new JsonText(row.metadata),
    creatorUserId: row.creatorUserId,
    creatorServiceAccountId: row.creatorServiceAccountId,
    createdAtMs: row.createdAtMs,
    updatedAtMs: row.updatedAtMs,
    ...(row.result === null ? {} : { result: new JsonText(row.result) }),
    ...(row.statusMessage === null ? {} : { statusMessage: row.statusMessage }),
    ...(row.endedAtMs === null ? {} : { endedAtMs: row.endedAtMs }),
  };
}

/** Whom a task is asked for by. */
export type TaskKey = { taskId: string } | { taskName: string };

const t = alias(tasks, "t");
const TASK = getTableColumns(t);
const callerTenant = sql<string | null>`caller.tenant_id`;
const targetTenant = sql<string | null>`target.tenant_id`;

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

/**
 * Reads a task for an actor, at the primary, in one statement; a task that does not exist costs the same.
 *
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function findTask(db: D1Database, actor: Actor, key: TaskKey): Promise<Found> {
  const shown = {
    ...TASK,
    callerTenantId: callerTenant,
    callerEnforce: enforceOf(callerTenant),
    taskEnforce: enforceOf(sql`${t.tenantId}`),
    agentOwner: ownerOf(sql`${t.agentDid}`),
    isMember: isMember(sql`${t.tenantId}`, actor.subject),
  };
  const isWanted =
    "taskId" in key
      ? sql`${t.taskId} = ${key.taskId}`
      : sql`${t.tenantId} = ${callerTenant} AND ${t.name} = ${key.taskName}`;
  const select = query.all<
    MaybeTask<typeof shown>
  >(sql`WITH caller (tenant_id) AS (SELECT ${tenantOf(sql`${actor.agentDid}`)})
    SELECT ${selected(shown)} FROM caller LEFT JOIN ${tasks} AS t ON ${isWanted}`);
  const found = await readFirst(db.withSession("first-primary"), select);
  return {
    row: taskIn(found),
    callerTenantId: found?.callerTenantId ?? null,
    callerEnforce: found?.callerEnforce ?? null,
    taskEnforce: found?.taskEnforce ?? null,
    agentOwner: found?.agentOwner ?? null,
    isMember: found?.isMember === 1,
  };
}

/** A row of a join in which the task may be missing: then its columns are null. */
type MaybeTask<Shown extends Record<string, SQL | (typeof TASK)[keyof typeof TASK]>> = Omit<
  RowOf<Shown>,
  keyof TaskRow
> & {
  [Column in keyof TaskRow]: TaskRow[Column] | null;
};

function taskIn(found: { [Column in keyof TaskRow]: TaskRow[Column] | null } | null): TaskRow | null {
  return found === null || found.taskId === null ? null : (found as TaskRow);
}

/**
 * Reads tasks for the operator, who is in no tenant: by name there may be several.
 *
 * @param agentDid narrows a name to this agent's tenant
 * @returns two at most
 */
export async function findTasksForOperator(db: D1Database, key: TaskKey, agentDid: string | null): Promise<TaskRow[]> {
  const session = db.withSession("first-primary");
  const select = query.select().from(tasks);
  if ("taskId" in key) return readAll(session, select.where(eq(tasks.taskId, key.taskId)));
  const inTenant = agentDid === null ? sql`TRUE` : sql`${tasks.tenantId} = ${tenantOf(sql`${agentDid}`)}`;
  return readAll(session, select.where(sql`${tasks.name} = ${key.taskName} AND ${inTenant}`).limit(2));
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

/** Reads the agent that a task is to be made for, and the task that has its name, in one statement. */
export async function findTarget(
  db: D1Database,
  actor: Actor | null,
  { agentDid, name }: { agentDid: string; name: string | null },
): Promise<Target> {
  const agent = sql`${agentDid}`;
  const shown = {
    ...TASK,
    targetTenantId: targetTenant,
    targetEnforce: enforceOf(targetTenant),
    owner: ownerOf(agent),
    revokedAtMs: revokedAtOf(agent),
    isMember: isMember(targetTenant, actor?.subject ?? null),
    callerTenantId: callerTenant,
    callerEnforce: enforceOf(callerTenant),
  };
  const select = query.all<MaybeTask<typeof shown>>(sql`WITH target (tenant_id) AS (SELECT ${tenantOf(agent)}),
      caller (tenant_id) AS (SELECT ${tenantOf(sql`${actor?.agentDid ?? null}`)})
    SELECT ${selected(shown)} FROM target CROSS JOIN caller
      LEFT JOIN ${tasks} AS t ON ${t.tenantId} = ${targetTenant} AND ${t.name} = ${name}`);
  const found = await readFirst(db.withSession("first-primary"), select);
  return {
    tenantId: found?.targetTenantId ?? null,
    enforce: found?.targetEnforce ?? null,
    owner: found?.owner ?? null,
    isRevoked: (found?.revokedAtMs ?? null) !== null,
    isMember: found?.isMember === 1,
    callerTenantId: found?.callerTenantId ?? null,
    callerEnforce: found?.callerEnforce ?? null,
    existing: taskIn(found),
  };
}

/** The statement that makes a task; it undoes its batch where the name is taken. */
export function insertTask(row: TaskRow): Statement<D1Result> {
  return query.insert(tasks).values(row);
}
