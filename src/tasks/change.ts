/** A change of a task's state: decided by D1 in the statement that makes it, so that of several endings one wins. */
import { and, eq, type SQL, sql } from "drizzle-orm";
import { auditOfEffectStatement } from "../audit/entry.ts";
import { taskObject } from "../authz/grants.ts";
import { commitWrite } from "../authz/sync/dual-write.ts";
import type { CallContext } from "../call/context.ts";
import { type Made, quotaExceeded, quotaStatements } from "../call/quotas.ts";
import { isGuard } from "../database/batch.ts";
import { readFirst } from "../database/read.ts";
import { tasks } from "../database/schema.ts";
import { query } from "../database/statement.ts";
import { ProxyError } from "../wire/problem.ts";
import { noSuchTask } from "./access.ts";
import { announce } from "./announcement.ts";
import { columnsOf, isFinal, stateIn, stateOf, type TaskState } from "./state.ts";
import { type ShownTask, shownTask, type TaskRow } from "./store.ts";

/** A state, and what its agent says with it. */
export type StateChange = {
  /** As the audit names it. */
  action: "task.update" | "task.interrupt" | "task.cancel" | "task.resume";
  state: TaskState;
  statusMessage?: string | undefined;
  /** JSON text. */
  result?: string | undefined;
};

/**
 * Changes a task's state under its caller's fence, and tells the sockets of its agent and of its creator's.
 *
 * @throws ProxyError PROXY_CONFLICT where that state cannot follow; PROXY_NOT_FOUND where the task was deleted meanwhile;
 *         PROXY_QUOTA_EXCEEDED
 */
export async function changeState(ctx: CallContext, row: TaskRow, change: StateChange): Promise<ShownTask> {
  if (!mayFollow(change, stateOf(row))) throw cannotFollow(stateOf(row));
  const { agentDid, tenantId, taskId } = row;
  const made: Made = { kind: "results", agentDid, tenantId, bytes: addedBytes(row, change) };
  const quota = made.bytes > 0 ? quotaStatements(ctx, made) : [];
  const committed = await commitWrite(ctx, [...quota, updateOf(ctx, taskId, change), auditOf(ctx, row, change)], null);
  if (!committed.ok) {
    if (isGuard(committed.error, "quota_has_room")) throw await quotaExceeded(ctx, made);
    throw new ProxyError("PROXY_CONFLICT");
  }
  const changed = (committed.value.at(-2) as TaskRow[])[0];
  if (changed === undefined) throw await whyUnchanged(ctx, taskId);
  await announce(ctx, changed);
  return shownTask(changed);
}

/** What is interrupted goes on by a message alone, and a state that is final stays. */
function mayFollow({ action, state }: StateChange, before: TaskState): boolean {
  if (isFinal(before)) return false;
  if (action === "task.resume") return before === "interrupted";
  return isFinal(state) || before !== "interrupted";
}

function followable({ action, state }: StateChange): SQL {
  const before = stateIn(tasks);
  if (action === "task.resume") return sql`${before} = 'interrupted'`;
  return isFinal(state)
    ? sql`${before} IN ('running', 'input_required', 'interrupted')`
    : sql`${before} IN ('running', 'input_required')`;
}

function updateOf(ctx: CallContext, taskId: string, change: StateChange) {
  const { state, statusMessage, result } = change;
  const atMs = sql`MAX(${tasks.updatedAtMs}, ${ctx.now()})`;
  return query
    .update(tasks)
    .set({
      ...columnsOf(state),
      updatedAtMs: atMs,
      ...(isFinal(state) ? { endedAtMs: atMs } : {}),
      ...(statusMessage === undefined ? {} : { statusMessage }),
      ...(result === undefined ? {} : { result }),
    })
    .where(and(eq(tasks.taskId, taskId), followable(change)))
    .returning();
}

function auditOf(ctx: CallContext, row: TaskRow, { action, state }: StateChange) {
  const details = action === "task.update" ? { name: row.name, status: state } : { name: row.name };
  return auditOfEffectStatement(ctx, {
    action,
    subject: taskObject(row.taskId),
    agentDid: row.agentDid,
    result: "ok",
    details,
  });
}

/** What a change makes the row longer by, in bytes; no more than 0 where it makes it shorter. */
function addedBytes(row: TaskRow, { statusMessage, result }: StateChange): number {
  return grown(row.statusMessage, statusMessage) + grown(row.result, result);
}

const grown = (before: string | null, after: string | undefined): number =>
  after === undefined ? 0 : bytesOf(after) - bytesOf(before ?? "");

const bytesOf = (text: string): number => new TextEncoder().encode(text).length;

async function whyUnchanged(ctx: CallContext, taskId: string): Promise<ProxyError> {
  const session = ctx.db.withSession("first-primary");
  const row = await readFirst(session, query.select().from(tasks).where(eq(tasks.taskId, taskId)));
  return row === null ? noSuchTask("deleted at the same moment") : cannotFollow(stateOf(row));
}

function cannotFollow(state: TaskState): ProxyError {
  const detail = isFinal(state) ? `The task is ${state}, and stays so.` : `The task is ${state}.`;
  return new ProxyError("PROXY_CONFLICT", { detail });
}
