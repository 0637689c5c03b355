/** What is done to a task that exists: canceled, deleted, shared, and what is sent to its agent. */
import { eq, sql } from "drizzle-orm";
import { auditOfEffectStatement, auditStatement } from "../audit/entry.ts";
import { actorOf } from "../authz/actor.ts";
import { agentObject, taskObject } from "../authz/grants.ts";
import { forgetWithdrawnStatement } from "../authz/sync/withdrawn-grants.ts";
import { deleteTuplesOf } from "../authz/store/tuples.ts";
import { commitWrite, dualWrite, pushToRemote } from "../authz/sync/dual-write.ts";
import { logDeferred } from "../authz/sync/outbox.ts";
import type { CallContext } from "../call/context.ts";
import { tasks } from "../database/schema.ts";
import { query } from "../database/statement.ts";
import { noSuchTask, permittedTask } from "./access.ts";
import { commitOn } from "./commit.ts";
import { type ShownTask, shownTask, type TaskKey } from "./store.ts";

/** Cancels a task; doing it twice answers the same. */
export async function cancelTask(ctx: CallContext, key: TaskKey, operatorsAgent: string | null): Promise<ShownTask> {
  const row = await permittedTask(ctx, actorOf(ctx.principal), key, "cancel", operatorsAgent);
  if (row.status === "canceled") return shownTask(row);
  const committed = await commitWrite(
    ctx,
    [
      query
        .update(tasks)
        .set({ status: "canceled", updatedAtMs: sql`MAX(${tasks.updatedAtMs}, ${ctx.now()})` })
        .where(eq(tasks.taskId, row.taskId))
        .returning(),
      auditOfEffectStatement(ctx, {
        action: "task.cancel",
        subject: taskObject(row.taskId),
        agentDid: row.agentDid,
        result: "ok",
        details: { name: row.name },
      }),
    ],
    null,
  );
  const canceled = committed.ok ? committed.value[0][0] : undefined;
  if (canceled === undefined) throw noSuchTask("deleted at the same moment");
  return shownTask(canceled);
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
