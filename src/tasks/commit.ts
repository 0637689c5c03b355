/** A change of a task in D1, under the fence of its caller. */
import { commitWrite, type DualWrite, type Refused } from "../authz/sync/dual-write.ts";
import type { CallContext } from "../call/context.ts";
import { eq, sql } from "drizzle-orm";
import type { BatchItem, BatchResults } from "../database/batch.ts";
import { guard } from "../database/guard.ts";
import { tasks } from "../database/schema.ts";
import { ProxyError } from "../wire/problem.ts";
import { noSuchTask } from "./access.ts";
import type { TaskRow } from "./store.ts";

/**
 * Commits what is done to a task that was read before, and nothing of it where the task has been deleted since: no tuple may
 * outlive its object.
 *
 * @param refusal what the caller is told where another constraint undid the batch
 * @throws ProxyError the one for a task that does not exist, or `refusal`'s; else as `commitWrite`
 */
export async function commitOn<const Items extends readonly BatchItem[]>(
  ctx: CallContext,
  row: Pick<TaskRow, "taskId">,
  statements: Items,
  dual: DualWrite,
  refusal: (why: Refused) => ProxyError | Promise<ProxyError> = () => new ProxyError("PROXY_CONFLICT"),
): Promise<BatchResults<Items>> {
  const stands = guard(sql`EXISTS (SELECT 1 FROM ${tasks} WHERE ${eq(tasks.taskId, row.taskId)})`);
  const committed = await commitWrite(ctx, [stands, ...statements], dual);
  if (committed.ok) return committed.value.slice(1) as BatchResults<Items>;
  const why = committed.error;
  if ("guard" in why && why.guard === "registry_is_as_read") throw noSuchTask("deleted at the same moment");
  throw await refusal(why);
}
