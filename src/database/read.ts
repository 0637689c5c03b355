/** Reads of D1, and the failure that a caller may repeat. */
import { ProxyError } from "../wire/problem.ts";

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

export function storeFailure(cause: unknown): ProxyError {
  return new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { reason: "D1 failed", cause });
}
