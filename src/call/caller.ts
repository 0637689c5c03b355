/** The agent that calls about itself, and what it is told when its authority ended under the call. */
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
 * @returns the refusal for a caller whose gate has not heard of the end yet
 * @throws ProxyError the gate's own refusal when it has
 */
export function authorityEnded(ctx: Pick<CallContext, "authority">): ProxyError {
  ctx.authority.assertCurrent();
  return new ProxyError("PROXY_AUTH_REVOKED", { reason: "the authority ended before the commit" });
}
