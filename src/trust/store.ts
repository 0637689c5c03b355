/** How trust reads and writes D1: one atomic batch under the caller's authority, and a failure that the caller may repeat. */
import type { Authority } from "../authority/authority.ts";
import { ProxyError } from "../wire/problem.ts";

/**
 * One atomic batch, the fence of the caller's authority first.
 *
 * @returns the results of `statements`, those of the fence left out
 * @throws ProxyError when the authority has ended, before the batch or by its fence; 503 when D1 fails, and then the
 *         batch may have been committed
 */
export async function commit(
  deps: { readonly db: D1Database; readonly authority: Authority },
  statements: D1PreparedStatement[],
): Promise<D1Result[]> {
  deps.authority.assertCurrent();
  const fence = deps.authority.fence(deps.db);
  try {
    return (await deps.db.batch([...fence, ...statements])).slice(fence.length);
  } catch (error) {
    deps.authority.assertCurrent();
    if (isFenceFailure(error)) throw new ProxyError("PROXY_AUTH_REVOKED", { reason: "authority-fenced", cause: error });
    throw storeFailure(error);
  }
}

/** @throws ProxyError 503 when D1 fails */
export async function read<T>(query: Promise<T>): Promise<T> {
  try {
    return await query;
  } catch (error) {
    throw storeFailure(error);
  }
}

/** Whether D1 undid a batch because the caller's epoch has passed (the constraint of `fence`). */
function isFenceFailure(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.message.includes("authority_is_current");
}

function storeFailure(cause: unknown): ProxyError {
  return new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { reason: "trust-store-failed", cause });
}
