/** What is done to a task that exists: updated, interrupted, canceled, deleted. */
import { eq } from "drizzle-orm";
import { auditStatement } from "../audit/entry.ts";
import { actorOf } from "../authz/actor.ts";
import { agentObject, taskObject } from "../authz/grants.ts";
import { forgetWithdrawnStatement } from "../authz/sync/withdrawn-grants.ts";
import { deleteTuplesOf } from "../authz/store/tuples.ts";
import { dualWrite, pushToRemote } from "../authz/sync/dual-write.ts";
import { logDeferred } from "../authz/sync/outbox.ts";
import type { CallContext } from "../call/context.ts";
import { tasks } from "../database/schema.ts";
import { query } from "../database/statement.ts";
import { ProxyError } from "../wire/problem.ts";
import { noSuchTask, ownTask, permittedTask } from "./access.ts";
import { changeState } from "./change.ts";
import { commitOn } from "./commit.ts";
import { type ReportedState, stateOf } from "./state.ts";
import { type ShownTask, shownTask, type TaskKey } from "./store.ts";

/** Cancels a task; one that is canceled already is shown as it is. @throws ProxyError PROXY_CONFLICT for one that ended otherwise */
export async function cancelTask(ctx: CallContext, key: TaskKey, operatorsAgent: string | null): Promise<ShownTask> {
  const row = await permittedTask(ctx, actorOf(ctx.principal), key, "cancel", operatorsAgent);
  if (stateOf(row) === "canceled") return shownTask(row);
  return changeState(ctx, row, { action: "task.cancel", state: "canceled" });
}

/** Interrupts a task, which a message to it continues. @throws ProxyError PROXY_CONFLICT for one that has ended */
export async function interruptTask(ctx: CallContext, key: TaskKey, operatorsAgent: string | null): Promise<ShownTask> {
  const row = await permittedTask(ctx, actorOf(ctx.principal), key, "update", operatorsAgent);
  if (stateOf(row) === "interrupted") return shownTask(row);
  return changeState(ctx, row, { action: "task.interrupt", state: "interrupted" });
}

/** What a task's agent says of it. */
export type Report = { state: ReportedState; statusMessage: string | undefined; result: string | undefined };

/**
 * Records what the task's own agent says of it. What is left out stays as it is.
 *
 * @throws ProxyError PROXY_CONFLICT for a task that has ended, and for one that was interrupted and is said to go on;
 *         PROXY_QUOTA_EXCEEDED
 */
export async function updateTask(ctx: CallContext, key: TaskKey, report: Report): Promise<ShownTask> {
  const actor = actorOf(ctx.principal);
  if (actor === null) throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "an operator is no task's agent" });
  const row = await ownTask(ctx, actor, key);
  return changeState(ctx, row, { action: "task.update", ...report });
}

/**
 * Deletes a task and every tuple it stands in. By name, the name is resolved first and the row is deleted by its id, so that
 * a task that takes the name meanwhile is not deleted in its place. A remote graph that is down is notified by the outbox.
 */
export async function deleteTask(ctx: CallContext, key: TaskKey, operatorsAgent: string | null): Promise<ShownTask> {
  const row = await permittedTask(ctx, actorOf(ctx.principal), key, "delete", operatorsAgent);
  const object = taskObject(row.taskId);
  const dual = dualWrite(ctx, "deregister", [
    { object, principal: null, parent: agentObject(row.agentDid), relation: null, tenantId: row.tenantId },
  ]);
  const [removed] = await commitOn(
    ctx,
    row,
    [
      query.delete(tasks).where(eq(tasks.taskId, row.taskId)).returning(),
      ...deleteTuplesOf(object),
      forgetWithdrawnStatement("task", row.taskId),
      auditStatement(ctx, {
        action: "task.delete",
        subject: object,
        agentDid: row.agentDid,
        result: "ok",
        details: { name: row.name },
      }),
    ],
    dual,
  );
  const deleted = removed[0];
  if (deleted === undefined) throw noSuchTask("deleted at the same moment");
  const failed = await pushToRemote(ctx, dual);
  if (failed !== null) logDeferred(ctx.log, object, failed);
  return shownTask(deleted);
}
