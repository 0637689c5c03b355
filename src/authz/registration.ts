/** What registering an agent grants, in the registration's own commit. Agents of an external registry get it at their first call. */
import type { CallContext } from "../call/context.ts";
import type { BatchItem } from "../database/batch.ts";
import type { RegistrationStatements } from "../identity/hooks.ts";
import { agentGrants, agentObject, tenantObject, userSubject } from "./grants.ts";
import { dualWrite } from "./sync/dual-write.ts";
import { outboxStatements } from "./sync/outbox.ts";
import { type Grant, grantStatement } from "./sync/withdrawn-grants.ts";

export type NewAgent = { agentDid: string; ownerDid: string; tenantId: string };

/**
 * @param joins whether the agent joins by itself, and not by an operator's hand: then it is no member of a tenant that its owner
 *        was taken out of
 * @returns the statements that give an agent its tenant, its owner and itself, but for what an operator took; a remote graph is
 *          notified by the outbox
 */
export function agentStatements(
  ctx: Pick<CallContext, "db" | "config" | "now">,
  agent: NewAgent,
  joins = false,
): BatchItem[] {
  const nowMs = ctx.now();
  const dual = dualWrite(ctx, "register", [
    {
      object: agentObject(agent.agentDid),
      principal: userSubject(agent.ownerDid),
      parent: tenantObject(agent.tenantId),
      relation: null,
      tenantId: agent.tenantId,
    },
  ]);
  const grants = agentGrants(agent);
  return [
    grantStatement(joins ? grants.map((grant) => backedByOwner(grant, agent)) : grants, nowMs),
    ...outboxStatements(dual.changes, nowMs),
  ];
}

/** The agent's own membership, which rests on its owner's. */
function backedByOwner(grant: Grant, { agentDid, ownerDid }: NewAgent): Grant {
  const isOwnMembership = grant.relation === "member" && grant.subject === agentObject(agentDid);
  return isOwnMembership ? { ...grant, backedBy: { ...grant, subject: userSubject(ownerDid) } } : grant;
}

/** What registering an agent here commits with its row. */
export const agentRegistration: RegistrationStatements = (ctx, agent) => agentStatements(ctx, agent);
