/** Ending the trust between two agents. */
import { auditOfEffectStatement } from "../audit/entry.ts";
import { commitUnder } from "../call/caller.ts";
import type { CallContext } from "../call/context.ts";
import { withDeadline } from "../resilience/deadline.ts";
import type { AgentDid } from "../wire/did.ts";
import { ProxyError } from "../wire/problem.ts";
import { placeFences } from "./fences.ts";
import { removeTrustStatements } from "./pairs.ts";
import { PEER_TIMEOUT_MS } from "./peer-gates.ts";

/**
 * Ends trust: commits to D1, then leaves a fence in both gates, so that no cached trust lets either in after the answer
 * and what they have queued for each other unpushed is dead-lettered. A removal that is repeated places its fences again.
 *
 * @returns whether there was trust to end
 * @throws ProxyError when the authority has ended, or 503 when a gate is out of reach: then the fences stay pending in D1
 */
export async function removeTrust(ctx: CallContext, a: AgentDid, b: AgentDid): Promise<boolean> {
  if (a === b) return false;
  const [update, select] = removeTrustStatements(a, b, ctx.now());
  const audit = auditOfEffectStatement(ctx, {
    action: "trust.remove",
    subject: `agent:${a}`,
    agentDid: a,
    result: "ok",
    details: { peerAgentDid: b },
  });
  const [updated, , [pair]] = await commitUnder(ctx, [update, audit, select]);
  if (pair === undefined) return false;
  const { epoch } = pair;
  try {
    await placeFences(ctx, { a, b, epoch }, async (at, peer) => {
      if (ctx.gate !== null && ctx.agentDid === at) ctx.gate.fencePeer(peer, epoch);
      else await withDeadline(PEER_TIMEOUT_MS, () => ctx.gates.of(at).fencePeer(peer, epoch));
    });
  } catch (error) {
    throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { reason: "trust-fence-failed", cause: error });
  }
  return updated.meta.changes > 0;
}
