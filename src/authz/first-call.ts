/** Agents of an external registry are registered elsewhere: here they get their tuples at their first verified call. */
import { defaultTenantId } from "../identity/register.ts";
import type { CallContext } from "../rpc/method.ts";
import { errorFields } from "../telemetry/log.ts";
import { agentStatements } from "./registration.ts";

/**
 * Gives the calling agent its tenant, its owner and itself, once. A failure is logged and tried again at the next call; until
 * then the graph grants nothing.
 *
 * @returns whether the calling agent is in the graph now
 */
export async function joinGraph(
  ctx: Pick<CallContext, "db" | "config" | "now" | "log" | "authority" | "principal">,
): Promise<boolean> {
  const { principal } = ctx;
  if (principal.kind !== "agent") return false;
  const { agentDid, ownerDid } = principal;
  const tenantId = defaultTenantId(ownerDid);
  try {
    await ctx.db.batch([...ctx.authority.fence(ctx.db), ...agentStatements(ctx, { agentDid, ownerDid, tenantId })]);
    ctx.log.info("authz.agent_joined", { agentDid, tenantId });
    return true;
  } catch (error) {
    ctx.log.error("authz.join_failed", { agentDid, ...errorFields(error) });
    return false;
  }
}
