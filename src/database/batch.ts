/** One D1 batch: it is committed whole, or it is undone whole and says why. */
import { ProxyError } from "../wire/problem.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { isFenceFailure } from "./fencing.ts";
import { isGuardFailure } from "./guard.ts";
import { storeFailure } from "./read.ts";

/** Why a batch was undone: the caller's authority ended, what it was decided on changed, or a key is taken. */
export type Undone = "authority-ended" | "registry-moved" | "key-taken";

/**
 * Runs a batch.
 *
 * @returns its results, or why it was undone
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails; the batch may then have been committed
 */
export async function commit(
  db: D1Database,
  statements: readonly D1PreparedStatement[],
): Promise<Result<D1Result[], Undone>> {
  try {
    return ok(await db.batch([...statements]));
  } catch (error) {
    if (isFenceFailure(error)) return err("authority-ended");
    if (isGuardFailure(error)) return err("registry-moved");
    if (error instanceof Error && /UNIQUE constraint failed: (agents|agent_keys)\.public_key/.test(error.message)) {
      return err("key-taken");
    }
    throw storeFailure(error);
  }
}

/** The registry kept moving under every attempt: somebody else's writes won each time. */
export function contended(): ProxyError {
  return new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", {
    reason: "the registry changed under every attempt",
    retryAfterMs: 1_000,
  });
}
