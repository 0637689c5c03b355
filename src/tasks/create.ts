/** `task/create`: the row, its creator, its tuples and what is pending for a remote graph, in one commit. */
import { auditStatement } from "../audit/entry.ts";
import { type Actor, actorOf } from "../authz/actor.ts";
import { agentObject, taskGrants, taskObject } from "../authz/grants.ts";
import { assertReachable } from "../authz/enforcement.ts";
import { graphUnavailable } from "../authz/permission.ts";
import { isEnforced } from "../authz/tenants.ts";
import { writeTuples } from "../authz/store/tuples.ts";
import { commitWrite, dualWrite, pushToRemote } from "../authz/sync/dual-write.ts";
import type { CallContext } from "../call/context.ts";
import { type Made, noteDatabaseSize, quotaExceeded, quotaStatements } from "../call/quotas.ts";
import { isOnFor } from "../config.ts";
import { isGuard, violates } from "../database/batch.ts";
import { tasks } from "../database/schema.ts";
import type { Statement } from "../database/statement.ts";
import { ProxyError } from "../wire/problem.ts";
import type { AgentDid } from "../wire/did.ts";
import { newUlid } from "../wire/ulid.ts";
import { mayCreate, mayReadExisting, noSuchTask } from "./access.ts";
import { findTarget, insertTask, type ShownTask, shownTask, type Target, type TaskRow } from "./store.ts";

export type NewTask = {
  agentDid: AgentDid;
  name: string | null;
  /** JSON text of an object each, as the caller wrote it. */
  params: string;
  metadata: string;
};

/**
 * Makes a task for an agent.
 *
 * @throws ProxyError PROXY_NOT_FOUND where the actor may not, whatever the reason; PROXY_CONFLICT for a name that is taken by
 *         a task that the actor may read; AUTHZ_UNAVAILABLE with `data.taskId` when a remote graph did not take it: the task
 *         stands, and the outbox goes on sending; PROXY_QUOTA_EXCEEDED
 */
export async function createTask(ctx: CallContext, wanted: NewTask): Promise<ShownTask> {
  const actor = actorOf(ctx.principal);
  const target = await findTarget(ctx.db, actor, wanted);
  if (actor !== null) await assertMayCreate(ctx, actor, wanted, target);
  if (target.tenantId === null || target.isRevoked) throw noSuchTask("no such agent, or a revoked one");
  if (target.existing !== null) throw await nameTaken(ctx, actor, target);
  const { tenantId } = target;
  const reach = { tenantId, isEnforced: isEnforced(ctx.config, target.enforce) };
  assertReachable(ctx.config, "FGAC_TASKS_DUAL_WRITE", reach);

  const row = rowOf(actor, wanted, tenantId, ctx.now());
  const owners = actor?.owners ?? [];
  const writesBoth = isOnFor(ctx.config.fgacTasksDualWrite, tenantId);
  const dual = writesBoth ? dualWrite(ctx, "register", registrations(row, owners)) : null;
  const made = madeBy(row);
  const committed = await commitWrite(
    ctx,
    [...quotaStatements(ctx, made), ...taskStatements(ctx, row, owners, writesBoth)],
    dual,
  );
  if (committed.ok) noteDatabaseSize(committed.value[0]);
  if (!committed.ok) {
    if (isGuard(committed.error, "quota_has_room")) throw await quotaExceeded(ctx, made);
    if (!violates(committed.error, tasks.name, tasks.tenantId)) throw new ProxyError("PROXY_CONFLICT");
    // Another call was faster with this name.
    throw await nameTaken(ctx, actor, await findTarget(ctx.db, actor, wanted));
  }
  if (dual !== null) {
    const failed = await pushToRemote(ctx, dual);
    if (failed !== null) throw graphUnavailable(`the remote graph: ${failed}`, { taskId: row.taskId });
  }
  return shownTask(row);
}

async function assertMayCreate(
  ctx: CallContext,
  actor: Actor,
  { agentDid, name }: NewTask,
  target: Target,
): Promise<void> {
  if (await mayCreate(ctx, actor, agentDid, target)) return;
  // As many reads as the refusal of a name that another task has.
  if (name !== null) await mayReadExisting(ctx, actor, { ...target, existing: null });
  throw noSuchTask("the graph does not grant create_task");
}

function rowOf(actor: Actor | null, wanted: NewTask, tenantId: string, nowMs: number): TaskRow {
  return {
    taskId: newUlid(nowMs),
    tenantId,
    name: wanted.name,
    agentDid: wanted.agentDid,
    status: "running",
    params: wanted.params,
    metadata: wanted.metadata,
    creatorUserId: actor?.userId ?? null,
    creatorServiceAccountId: actor?.serviceAccountId ?? null,
    createdAtMs: nowMs,
    updatedAtMs: nowMs,
    state: null,
    statusMessage: null,
    result: null,
    endedAtMs: null,
    creatorAgentDid: actor?.agentDid ?? null,
  };
}

/** The row, its tuples where the tenant's are written, and its entry in the audit. */
function taskStatements(
  ctx: CallContext,
  row: TaskRow,
  owners: readonly string[],
  writesBoth: boolean,
): Statement<D1Result>[] {
  const { taskId, tenantId, agentDid } = row;
  const grants = taskGrants({ taskId, tenantId, agentDid, owners });
  const entry = {
    action: "task.create",
    subject: taskObject(taskId),
    agentDid,
    result: "ok",
    details: { name: row.name },
  };
  return [
    insertTask(row),
    ...(writesBoth ? writeTuples(grants, { nowMs: row.createdAtMs }) : []),
    auditStatement(ctx, entry),
  ];
}

/** What the row counts for in the quotas. */
function madeBy({ agentDid, tenantId, params, metadata }: TaskRow): Made {
  return { kind: "tasks", agentDid, tenantId, bytes: bytesOf(params) + bytesOf(metadata) };
}

const bytesOf = (text: string): number => new TextEncoder().encode(text).length;

/** @returns what a remote graph is notified of for a task: each of its owners, or none where the operator made it */
export function registrations(row: Pick<TaskRow, "taskId" | "agentDid" | "tenantId">, owners: readonly string[]) {
  const principals = owners.length === 0 ? [null] : owners;
  const object = taskObject(row.taskId);
  const { tenantId } = row;
  return principals.map((principal) => ({
    object,
    principal,
    parent: agentObject(row.agentDid),
    relation: null,
    tenantId,
  }));
}

async function nameTaken(ctx: CallContext, actor: Actor | null, target: Target): Promise<ProxyError> {
  if (actor !== null && !(await mayReadExisting(ctx, actor, target))) return noSuchTask("the name is another's");
  return new ProxyError("PROXY_CONFLICT", { detail: "name: a task of this tenant has it already." });
}
