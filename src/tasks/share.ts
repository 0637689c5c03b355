/** Sharing a task with a subject, and taking that back. */
import { and, eq, inArray, sql } from "drizzle-orm";
import { auditOfEffectStatement } from "../audit/entry.ts";
import { actorOf } from "../authz/actor.ts";
import { validateTuple } from "../authz/engine/model.ts";
import type { Tuple } from "../authz/engine/tuple.ts";
import { agentObject, taskObject } from "../authz/grants.ts";
import { graphUnavailable } from "../authz/permission.ts";
import { SALLYPORT_MODEL } from "../authz/store/sallyport-model.ts";
import { expiryStatement } from "../authz/store/expiries.ts";
import { deleteTuples, writeTuples } from "../authz/store/tuples.ts";
import { enforceOf, isEnforced, isMember } from "../authz/tenants.ts";
import { dualWrite, pushToRemote } from "../authz/sync/dual-write.ts";
import type { CallContext } from "../call/context.ts";
import { quotaExceeded, quotaStatements } from "../call/quotas.ts";
import { isGuard } from "../database/batch.ts";
import { type RowOf, selected } from "../database/columns.ts";
import { guard } from "../database/guard.ts";
import { readFirst } from "../database/read.ts";
import { relationships } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";
import { ProxyError } from "../wire/problem.ts";
import { permittedTask } from "./access.ts";
import { commitOn } from "./commit.ts";

/** `expiresAtMs`: when the share ends by itself; one without ends by `task/unshare` alone. */
export type Share = {
  taskId: string;
  subject: string;
  relation: "editor" | "viewer";
  expiresAtMs?: number | undefined;
};

/**
 * Shares a task with a subject, or takes it back.
 *
 * @throws ProxyError PROXY_BAD_REQUEST for a subject that cannot be one, or that the tenant's gate would refuse; PROXY_CONFLICT for one too many; PROXY_QUOTA_EXCEEDED
 */
export async function changeShare(ctx: CallContext, op: "register" | "deregister", share: Share): Promise<Share> {
  const { relation, subject } = share;
  const wellFormed = validateTuple(SALLYPORT_MODEL, { object: taskObject("any"), relation, subject });
  if (!wellFormed.ok) throw new ProxyError("PROXY_BAD_REQUEST", { detail: `subject: ${wellFormed.error}` });
  const row = await permittedTask(ctx, actorOf(ctx.principal), { taskId: share.taskId }, "delete");
  if (op === "register") assertCanExpire(ctx, share.expiresAtMs);
  if (op === "register") await assertPassesGate(ctx, row.tenantId, subject);
  const object = taskObject(row.taskId);
  const tuple = { object, relation, subject };
  const dual = dualWrite(ctx, op, [
    { object, principal: subject, parent: agentObject(row.agentDid), relation, tenantId: row.tenantId },
  ]);
  const nowMs = ctx.now();
  const made = { kind: "tuples" as const, agentDid: row.agentDid, tenantId: row.tenantId, bytes: SHARE_BYTES };
  await commitOn(
    ctx,
    row,
    [
      ...(op === "register" ? [...quotaStatements(ctx, made), roomForShare(share)] : []),
      ...changeStatements(op, tuple, share.expiresAtMs ?? null, nowMs),
      auditOfEffectStatement(ctx, {
        action: op === "register" ? "task.share" : "task.unshare",
        subject: object,
        agentDid: row.agentDid,
        result: "ok",
        details: {
          relation,
          with: subject,
          ...(share.expiresAtMs === undefined ? {} : { expiresAtMs: share.expiresAtMs }),
        },
      }),
    ],
    dual,
    // A tuple of one share is never an object's second tenant.
    (why) => (isGuard(why, "quota_has_room") ? quotaExceeded(ctx, made) : tooManyShares()),
  );
  const failed = await pushToRemote(ctx, dual);
  if (failed !== null) throw graphUnavailable(`the remote graph: ${failed}`, { taskId: row.taskId });
  const ends = op === "register" && share.expiresAtMs !== undefined ? { expiresAtMs: share.expiresAtMs } : {};
  return { taskId: row.taskId, relation, subject, ...ends };
}

/** The tuple and its end. What the audit has to note stands last: a new end, or else the tuple. */
function changeStatements(
  op: "register" | "deregister",
  tuple: Tuple,
  expiresAtMs: number | null,
  nowMs: number,
): Statement<D1Result>[] {
  if (op === "deregister") return [expiryStatement(tuple, null), ...deleteTuples([tuple])];
  const end = expiryStatement(tuple, expiresAtMs);
  const write = writeTuples([tuple], { nowMs });
  return expiresAtMs === null ? [end, ...write] : [...write, end];
}

/** @throws ProxyError PROXY_BAD_REQUEST for an end that has been, and where another graph decides, which would not know of it */
function assertCanExpire(ctx: CallContext, expiresAtMs: number | undefined): void {
  if (expiresAtMs === undefined) return;
  if (expiresAtMs <= ctx.now())
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: "expiresAtMs: must be in the future" });
  if (ctx.config.authzGraph === "d1") return;
  throw new ProxyError("PROXY_BAD_REQUEST", {
    detail: "expiresAtMs: a share ends by itself only where the graph is the database's own (AUTHZ_GRAPH).",
  });
}

/** A tuple and its entry in the audit. */
const SHARE_BYTES = 1_024;

/**
 * Refuses a share that would grant nothing: of a tenant for which the graph decides, only members reach tasks. Who is in a group
 * is known when the group's member asks.
 *
 * @throws ProxyError PROXY_BAD_REQUEST
 */
async function assertPassesGate(ctx: CallContext, tenantId: string, subject: string): Promise<void> {
  if (subject.includes("#")) return;
  const tenant = sql`${tenantId}`;
  const shown = { enforce: enforceOf(tenant), isMember: isMember(tenant, subject) };
  const select = query.all<RowOf<typeof shown>>(sql`SELECT ${selected(shown)}`);
  const found = await readFirst(ctx.db.withSession("first-primary"), select);
  if (found === null || found.isMember === 1 || !isEnforced(ctx.config, found.enforce)) return;
  throw new ProxyError("PROXY_BAD_REQUEST", {
    detail: "subject: is no member of the task's tenant, which alone may reach it; make it a member first.",
  });
}

/** Shares of one task, editors and viewers together. */
export const SHARES_MAX = 1_000;

/** Undoes its batch when a new share would be one too many; a share that stands already is none. */
function roomForShare(share: { taskId: string; relation: "editor" | "viewer"; subject: string }): Statement<D1Result> {
  const r = relationships;
  const ofTask = and(eq(r.objectType, "task"), eq(r.objectId, share.taskId));
  const isSubject = sql`${r.subjectType} || ':' || ${r.subjectId} || IIF(${r.subjectRelation} = '', '', '#' || ${r.subjectRelation}) = ${share.subject}`;
  return guard(
    sql`(SELECT COUNT(*) FROM (SELECT 1 FROM ${r} WHERE ${and(ofTask, inArray(r.relation, ["editor", "viewer"]))} LIMIT ${SHARES_MAX})) < ${SHARES_MAX}
      OR EXISTS (SELECT 1 FROM ${r} WHERE ${and(ofTask, eq(r.relation, share.relation), isSubject)})`,
    "task_has_room_for_a_share",
  );
}

function tooManyShares(): ProxyError {
  return new ProxyError("PROXY_CONFLICT", {
    detail: `subject: the task is shared with ${SHARES_MAX} already; take one back first.`,
  });
}
