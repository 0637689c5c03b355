/** What the operator does with tasks, who is above the graph: each call is in the audit before it has its effect or its answer. */
import { auditStatement } from "../audit/entry.ts";
import { taskObject } from "../authz/grants.ts";
import type { CallContext } from "../call/context.ts";
import { execute } from "../database/read.ts";
import type { TaskRow } from "./store.ts";

/**
 * Records that the operator reads a task or sends to its agent; nothing for any other caller. What changes a task is recorded
 * with its change.
 *
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails: then nothing is shown or sent
 */
export async function recordOperatorAccess(
  ctx: CallContext,
  action: "task.get" | "message.send" | "event.send",
  row: Pick<TaskRow, "taskId" | "agentDid">,
): Promise<void> {
  if (ctx.principal.kind !== "operator") return;
  const subject = taskObject(row.taskId);
  await execute(ctx.db, auditStatement(ctx, { action, subject, agentDid: row.agentDid, result: "permitted" }));
}

/** The same for a list of tasks. @param agentDid whose; null for everybody's */
export async function recordOperatorListing(ctx: CallContext, agentDid: string | null): Promise<void> {
  if (ctx.principal.kind !== "operator") return;
  await execute(ctx.db, auditStatement(ctx, { action: "task.list", subject: null, agentDid, result: "permitted" }));
}
