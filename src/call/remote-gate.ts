/** A method's call to a gate other than the one it runs in. */
import { errorFields } from "../telemetry/log.ts";
import { ProxyError, proxyErrorFrom } from "../wire/problem.ts";
import type { CallContext } from "../rpc/method.ts";

/**
 * Asks a gate. One that fails is out of reach, as it is for every request: whether it did what it was asked nobody knows, and
 * the same call may be made again.
 *
 * @throws ProxyError what the gate refused with; PROXY_AUTH_DEPENDENCY_UNAVAILABLE where it did not answer
 */
export async function askGate<T>({ log }: Pick<CallContext, "log">, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (thrown) {
    const error = proxyErrorFrom(thrown);
    if (error.code !== "PROXY_INTERNAL") throw error;
    log.error("gate.failed", errorFields(thrown));
    throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", {
      reason: "gate-unavailable",
      retryAfterMs: 1_000,
      cause: thrown,
    });
  }
}
