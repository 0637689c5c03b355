/** What is done to a task that exists: canceled, deleted, shared, and what is sent to its agent. */
import { commitWrite, type DualWrite, dualWrite, tellRemote } from "../authz/sync/dual-write.ts";
import { agentObject, taskObject } from "../authz/grants.ts";
import { validateTuple } from "../authz/engine/model.ts";
import { leftToOutbox } from "../authz/sync/outbox.ts";
import { graphUnavailable } from "../authz/permission.ts";
import { SALLYPORT_MODEL } from "../authz/store/sallyport-model.ts";
import { deleteTuples, deleteTuplesOf, writeTuples } from "../authz/store/tuples.ts";
import { auditOfEffectStatement, auditStatement } from "../audit/entry.ts";
import { guard, isGuardFailure } from "../database/batch.ts";
import { askGate } from "../call/remote-gate.ts";
import type { CallContext, LocalMessage } from "../rpc/method.ts";
import { type AgentDid, parseAgentDid } from "../wire/did.ts";
import { ProxyError } from "../wire/problem.ts";
import { actorOf, senderSubject } from "../authz/actor.ts";
import { noSuchTask, permittedTask } from "./access.ts";
import { roomForShare, withinShareLimit } from "./share-limit.ts";
import { type ShownTask, shownTask, TASK_COLUMNS, type TaskKey, type TaskRow } from "./store.ts";

const PAYLOAD_BYTES_MAX = 1_048_576;

/** Cancels a task; doing it twice answers the same. */
export async function cancelTask(ctx: CallContext, key: TaskKey, operatorsAgent: string | null): Promise<ShownTask> {
  const row = await permittedTask(ctx, actorOf(ctx.principal), key, "cancel", operatorsAgent);
  if (row.status === "canceled") return shownTask(row);
  const committed = await commitWrite(
    ctx,
    [
      ctx.db
        .prepare(
          `UPDATE tasks SET status = 'canceled', updated_at_ms = MAX(updated_at_ms, ?2) WHERE task_id = ?1 RETURNING ${TASK_COLUMNS}`,
        )
        .bind(row.task_id, ctx.now()),
    ],
    null,
  );
  const canceled = committed.ok ? (committed.value[0]?.results[0] as TaskRow | undefined) : undefined;
  if (canceled === undefined) throw noSuchTask("deleted at the same moment");
  return shownTask(canceled);
}

/**
 * Deletes a task and every tuple it stands in. By name, the name is resolved first and the row is deleted by its id, so that
 * a task that takes the name meanwhile is not deleted in its place. A remote graph that is down hears of it by the outbox.
 */
export async function deleteTask(ctx: CallContext, key: TaskKey, operatorsAgent: string | null): Promise<ShownTask> {
  const row = await permittedTask(ctx, actorOf(ctx.principal), key, "delete", operatorsAgent);
  const object = taskObject(row.task_id);
  const dual = dualWrite(ctx, "deregister", [
    { object, principal: null, parent: agentObject(row.agent_did), relation: null },
  ]);
  const [removed] = await commitOn(
    ctx,
    row,
    [
      ctx.db.prepare(`DELETE FROM tasks WHERE task_id = ?1 RETURNING ${TASK_COLUMNS}`).bind(row.task_id),
      ...deleteTuplesOf(ctx.db, object),
      auditStatement(ctx, {
        action: "task.delete",
        subject: object,
        agentDid: row.agent_did,
        result: "ok",
        details: { name: row.name },
      }),
    ],
    dual,
  );
  const deleted = removed?.results[0] as TaskRow | undefined;
  if (deleted === undefined) throw noSuchTask("deleted at the same moment");
  const failed = await tellRemote(ctx, dual);
  if (failed !== null) leftToOutbox(ctx.log, object, failed);
  return shownTask(deleted);
}

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
  const failed = await tellRemote(ctx, dual);
  if (failed !== null) throw graphUnavailable(`the remote graph: ${failed}`, { taskId: row.task_id });
  return { taskId: row.task_id, relation, subject };
}

/**
 * Delivers a message or an event to the task's agent, at least once. Needs `update` on the task and nothing else: pairing is
 * not consulted, and a task that cannot be found is not made.
 */
export async function sendToTask(
  ctx: CallContext,
  kind: "message" | "event",
  key: TaskKey,
  content: unknown,
  operatorsAgent: string | null,
): Promise<{ deliveryId: string }> {
  const row = await permittedTask(ctx, actorOf(ctx.principal), key, "update", operatorsAgent);
  const to = parseAgentDid(row.agent_did);
  if (to === null) throw new ProxyError("PROXY_INTERNAL", { reason: "a task's agent is no agent DID" });
  const payload = JSON.stringify({ kind, taskId: row.task_id, content });
  if (new TextEncoder().encode(payload).length > PAYLOAD_BYTES_MAX) throw new ProxyError("PROXY_BODY_TOO_LARGE");
  const message: LocalMessage = { ...senderOf(ctx), payload };
  ctx.authority.assertCurrent();
  if (ctx.gate !== null) return ctx.gate.send(to, message);
  return askGate(ctx, () => ctx.gates.of(to).notify(message));
}

/**
 * Commits what is done to a task that was read before, and nothing of it where the task has been deleted since: no tuple may
 * outlive its object.
 *
 * @throws ProxyError the one for a task that does not exist; else as `commitWrite`
 */
async function commitOn(
  ctx: CallContext,
  row: TaskRow,
  statements: readonly D1PreparedStatement[],
  dual: DualWrite,
): Promise<D1Result[]> {
  const stands = guard(ctx.db, "EXISTS (SELECT 1 FROM tasks WHERE task_id = ?1)", row.task_id);
  try {
    const committed = await commitWrite(ctx, [stands, ...statements], dual);
    if (!committed.ok) throw new ProxyError("PROXY_CONFLICT");
    return committed.value.slice(1);
  } catch (error) {
    if (error instanceof ProxyError && isGuardFailure(error.cause)) throw noSuchTask("deleted at the same moment");
    throw error;
  }
}

function senderOf({ principal }: CallContext): { fromAgentDid: AgentDid | null; fromSubject?: string } {
  if (principal.kind === "agent" || principal.kind === "device") return { fromAgentDid: principal.agentDid };
  return { fromAgentDid: null, fromSubject: senderSubject(principal) };
}
