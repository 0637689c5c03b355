/** What registering an agent grants, in the registration's own commit. Agents of an external registry get it at their first call. */
import type { CallContext } from "../call/context.ts";
import type { RegistrationStatements } from "../identity/hooks.ts";
import { agentGrants, agentObject, tenantObject, userSubject } from "./grants.ts";
import { writeTuples } from "./store/tuples.ts";
import { dualWrite, outboxStatements } from "./sync/dual-write.ts";

export type NewAgent = { agentDid: string; ownerDid: string; tenantId: string };

/** @returns the statements that give an agent its tenant, its owner and itself; a remote graph hears of it by the outbox */
export function agentStatements(
  ctx: Pick<CallContext, "db" | "config" | "now">,
  agent: NewAgent,
): D1PreparedStatement[] {
  const nowMs = ctx.now();
  const dual = dualWrite(ctx, "register", [
    {
      object: agentObject(agent.agentDid),
      principal: userSubject(agent.ownerDid),
      parent: tenantObject(agent.tenantId),
      relation: null,
    },
  ]);
  return [...writeTuples(ctx.db, agentGrants(agent), { nowMs }), ...outboxStatements(ctx.db, dual, nowMs)];
}

export const agentRegistration: RegistrationStatements = (ctx, agent) => agentStatements(ctx, agent);
