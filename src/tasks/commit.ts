/** A change of a task in D1, under the fence of its caller. */
import { commitWrite, type DualWrite } from "../authz/sync/dual-write.ts";
import type { CallContext } from "../call/context.ts";
import { guard, isGuardFailure } from "../database/guard.ts";
import { ProxyError } from "../wire/problem.ts";
import { noSuchTask } from "./access.ts";
import type { TaskRow } from "./store.ts";

/**
 * Commits what is done to a task that was read before, and nothing of it where the task has been deleted since: no tuple may
 * outlive its object.
 *
 * @throws ProxyError the one for a task that does not exist; else as `commitWrite`
 */
export async function commitOn(
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
