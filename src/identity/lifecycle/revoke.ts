/** Revoking an agent: the end of everything issued to it, with the guarantee of contract §5. */
import { and, eq, isNull } from "drizzle-orm";
import { auditStatement } from "../../audit/entry.ts";
import type { Fenced } from "../../authority/authority.ts";
import type { CallContext } from "../../call/context.ts";
import { commitFenced } from "../../database/batch.ts";
import { agents } from "../../database/schema.ts";
import { query } from "../../database/statement.ts";
import type { IdentityHooks } from "../hooks.ts";
import { assertMoved, contended, registryOf } from "../registry.ts";
import { afterEnd, endedJtis, endStatements, knownAgent, requireGate } from "./end.ts";

/** What a revocation answers. */
export type Revoked = { agentDid: string; revoked: true; revokedAtMs: number; fenced: Fenced };

/**
 * Ends an agent permanently. May be repeated: after DRAIN_TIMEOUT the repetition finishes what the first call began.
 *
 * @param params `reason` is published in the revocation list
 * @throws ProxyError PROXY_NOT_FOUND for a DID that is none of this registry's; DRAIN_TIMEOUT
 */
export async function revokeAgent(
  ctx: CallContext,
  params: { agentDid: string; reason?: string | undefined },
  hooks: IdentityHooks,
): Promise<Revoked> {
  const registry = registryOf(ctx);
  const gate = requireGate(ctx, params.agentDid);
  const agent = await knownAgent(registry, params.agentDid);
  const reason = params.reason ?? "revoked";
  const revokedAtMs = agent.revokedAtMs ?? registry.now();
  const fenced = await gate.endAgent({
    reason,
    commit: async (raise) => {
      const outcome = await commitFenced(registry.db, null, [
        ...raise,
        ...endStatements(ctx, agent.agentDid, { cause: "revoked", reason, hooks }),
        query
          .update(agents)
          .set({ revokedAtMs, revokedReason: reason })
          .where(and(eq(agents.agentDid, agent.agentDid), isNull(agents.revokedAtMs))),
        auditStatement(ctx, {
          action: "identity.revoke",
          subject: `agent:${agent.agentDid}`,
          agentDid: agent.agentDid,
          result: agent.revokedAtMs === null ? "ok" : "repeated",
          details: { reason },
        }),
      ]);
      if (!outcome.ok) {
        assertMoved(outcome.error);
        throw contended();
      }
      return endedJtis(outcome.value, raise.length);
    },
  });
  await afterEnd(ctx, agent.agentDid, hooks);
  ctx.log.warn("identity.revoked", { agentDid: agent.agentDid, ...fenced });
  return { agentDid: agent.agentDid, revoked: true, revokedAtMs, fenced };
}
