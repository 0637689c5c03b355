/** Sharing a task with a subject, and taking that back. */
import { auditOfEffectStatement } from "../audit/entry.ts";
import { actorOf } from "../authz/actor.ts";
import { validateTuple } from "../authz/engine/model.ts";
import { agentObject, taskObject } from "../authz/grants.ts";
import { graphUnavailable } from "../authz/permission.ts";
import { SALLYPORT_MODEL } from "../authz/store/sallyport-model.ts";
import { deleteTuples, writeTuples } from "../authz/store/tuples.ts";
import { dualWrite, pushToRemote } from "../authz/sync/dual-write.ts";
import type { CallContext } from "../call/context.ts";
import { ProxyError } from "../wire/problem.ts";
import { permittedTask } from "./access.ts";
import { commitOn } from "./commit.ts";

export type Share = { taskId: string; subject: string; relation: "editor" | "viewer" };

/**
 * Shares a task with a subject, or takes it back.
 *
 * @throws ProxyError PROXY_BAD_REQUEST for a subject that cannot be one, PROXY_CONFLICT for one too many
 */
export async function changeShare(ctx: CallContext, op: "register" | "deregister", share: Share): Promise<Share> {
  const { relation, subject } = share;
  const wellFormed = validateTuple(SALLYPORT_MODEL, { object: taskObject("any"), relation, subject });
  if (!wellFormed.ok) throw new ProxyError("PROXY_BAD_REQUEST", { detail: `subject: ${wellFormed.error}` });
  const row = await permittedTask(ctx, actorOf(ctx.principal), { taskId: share.taskId }, "delete");
  const object = taskObject(row.task_id);
  const tuple = { object, relation, subject };
  const dual = dualWrite(ctx, op, [{ object, principal: subject, parent: agentObject(row.agent_did), relation }]);
  const nowMs = ctx.now();
  const committing = commitOn(
    ctx,
    row,
    [
      ...(op === "register" ? [roomForShare(ctx.db, share)] : []),
      ...(op === "register" ? writeTuples(ctx.db, [tuple], { nowMs }) : deleteTuples(ctx.db, [tuple])),
      auditOfEffectStatement(ctx, {
        action: op === "register" ? "task.share" : "task.unshare",
        subject: object,
        agentDid: row.agent_did,
        result: "ok",
        details: { relation, with: subject },
      }),
    ],
    dual,
  );
  await withinShareLimit(committing);
  const failed = await pushToRemote(ctx, dual);
  if (failed !== null) throw graphUnavailable(`the remote graph: ${failed}`, { taskId: row.task_id });
  return { taskId: row.task_id, relation, subject };
}

/** Shares of one task, editors and viewers together. */
export const SHARES_MAX = 1_000;

/** A statement that undoes its batch when a new share would be one too many; a share that stands already is none. */
export function roomForShare(
  db: D1Database,
  share: { taskId: string; relation: "editor" | "viewer"; subject: string },
): D1PreparedStatement {
  return db
    .prepare(
      `INSERT INTO share_guard (has_room) SELECT 0
       WHERE (SELECT COUNT(*) FROM (SELECT 1 FROM relationships
           WHERE object_type = 'task' AND object_id = ?1 AND relation IN ('editor', 'viewer') LIMIT ?2)) >= ?2
         AND NOT EXISTS (SELECT 1 FROM relationships
           WHERE object_type = 'task' AND object_id = ?1 AND relation = ?3
             AND subject_type || ':' || subject_id || IIF(subject_relation = '', '', '#' || subject_relation) = ?4)`,
    )
    .bind(share.taskId, SHARES_MAX, share.relation, share.subject);
}

/** @throws ProxyError PROXY_CONFLICT when a batch was undone for want of room; otherwise what `committing` throws */
export async function withinShareLimit<T>(committing: Promise<T>): Promise<T> {
  try {
    return await committing;
  } catch (error) {
    const cause = error instanceof ProxyError ? error.cause : error;
    if (!(cause instanceof Error && cause.message.includes("task_has_room_for_a_share"))) throw error;
    throw new ProxyError("PROXY_CONFLICT", {
      detail: `subject: the task is shared with ${SHARES_MAX} already; take one back first.`,
    });
  }
}
