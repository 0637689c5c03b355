/** One question to the graph that decides: D1's own, read at the primary, or the remote one. */
import type { CallContext } from "../call/context.ts";
import { ProxyError } from "../wire/problem.ts";
import { type AuthzError, isTooComplex } from "./engine/check.ts";
import { sallyportGraph } from "./store/graph.ts";
import { remoteGraphOf } from "./sync/remote.ts";

export type Question = { subject: string; relation: string; object: string };

/**
 * Asks the graph. In D1 it costs one read, whatever the answer. What is too complex to decide is not granted: as an error it
 * would tell those who may not know of an object that it is there.
 *
 * @throws ProxyError AUTHZ_UNAVAILABLE when the graph cannot say: neither yes nor no is guessed
 */
export async function isPermitted(ctx: Pick<CallContext, "db" | "config">, question: Question): Promise<boolean> {
  const remote = remoteGraphOf(ctx.config);
  if (remote !== null) {
    const answered = await remote.check(question);
    if (!answered.ok) throw graphUnavailable(answered.error);
    return answered.value;
  }
  const checked = await sallyportGraph.check(ctx.db, question).catch((cause: unknown) => {
    throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { reason: "D1 failed", cause });
  });
  if (checked.ok) return checked.value;
  if (isTooComplex(checked.error)) return false;
  throw graphUnavailable(checked.error.reason);
}

/** @returns the error of a question that this graph cannot answer: one that is too complex is the caller's to narrow down */
export function unanswered({ code, reason }: AuthzError): ProxyError {
  return new ProxyError("PROXY_BAD_REQUEST", { detail: reason.slice(0, 300), data: { reason: code } });
}

/** @returns the error of a graph that is out of reach, or has not taken a change yet; `data` tells what stands all the same */
export function graphUnavailable(reason: string, data: Record<string, unknown> = {}): ProxyError {
  return new ProxyError("AUTHZ_UNAVAILABLE", { reason, retryAfterMs: 1_000, data });
}
