/** One D1 batch: it is committed whole, or it is undone whole and says why. */
import { ProxyError } from "../wire/problem.ts";
import { err, ok, type Result } from "../wire/result.ts";

/** Why a batch was undone: the caller's authority ended, what it was decided on changed, or a key is taken. */
export type Undone = "authority-ended" | "registry-moved" | "key-taken";

/** @returns whether D1 undid a batch because its fence found the caller's authority ended (constraint of migration 0003). */
export function isFenceFailure(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.message.includes("authority_is_current");
}

/** @returns whether D1 undid a batch because a {@link guard} of it did not hold (constraint of migration 0001). */
export function isGuardFailure(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.message.includes("registry_is_as_read");
}

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

/**
 * Runs a read.
 *
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function read<T>(query: Promise<T>): Promise<T> {
  try {
    return await query;
  } catch (error) {
    throw storeFailure(error);
  }
}

/**
 * A statement that undoes its batch unless the condition holds at commit.
 *
 * @param condition SQL that is true when the registry is as it was read
 */
export function guard(db: D1Database, condition: string, ...bindings: (string | number | null)[]): D1PreparedStatement {
  return db.prepare(`INSERT INTO registry_guard (holds) SELECT 0 WHERE NOT (${condition})`).bind(...bindings);
}

/** The registry kept moving under every attempt: somebody else's writes won each time. */
export function contended(): ProxyError {
  return new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", {
    reason: "the registry changed under every attempt",
    retryAfterMs: 1_000,
  });
}

function storeFailure(cause: unknown): ProxyError {
  return new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { reason: "D1 failed", cause });
}
