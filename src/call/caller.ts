/** The agent that calls about itself, and what it is answered when its authority ended under the call. */
import { type BatchItem, type BatchResults, commitFenced } from "../database/batch.ts";
import type { AgentDid } from "../wire/did.ts";
import { ProxyError } from "../wire/problem.ts";
import type { CallContext } from "./context.ts";

/**
 * @returns the calling agent and the key that its proof was made with
 * @throws ProxyError PROXY_AUTH_FORBIDDEN for any other credential
 */
export function agentCaller(ctx: CallContext): { agentDid: AgentDid; keyX: string } {
  const { principal } = ctx;
  if (principal.kind !== "agent") {
    throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: `an agent calls this itself, not ${principal.kind}` });
  }
  return { agentDid: principal.agentDid, keyX: principal.keyX };
}

/**
 * The database's fence undid a batch.
 *
 * @returns the refusal for a caller whose gate does not know of the end yet
 * @throws ProxyError the gate's own refusal when it has
 */
export function authorityEnded(ctx: Pick<CallContext, "authority">): ProxyError {
  ctx.authority.assertCurrent();
  return new ProxyError("PROXY_AUTH_REVOKED", { reason: "the authority ended before the commit" });
}

/**
 * Commits a batch under the caller's authority that nothing but the end of that authority undoes.
 *
 * @throws ProxyError when the authority has ended; PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails, and the batch may then have
 *         been committed
 */
export async function commitUnder<const Items extends readonly BatchItem[]>(
  ctx: Pick<CallContext, "db" | "authority">,
  statements: Items,
): Promise<BatchResults<Items>> {
  const committed = await commitFenced(ctx.db, ctx.authority, statements);
  if (committed.ok) return committed.value;
  if (committed.error === "authority-ended") throw authorityEnded(ctx);
  throw new Error(`a batch without a guard was undone: ${JSON.stringify(committed.error)}`);
}
