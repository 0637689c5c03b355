/** Agents of an external registry are registered elsewhere: here they get their tuples at their first verified call. */
import { and, eq } from "drizzle-orm";
import type { CallContext } from "../call/context.ts";
import { commitFenced } from "../database/batch.ts";
import { readFirst } from "../database/read.ts";
import { relationships } from "../database/schema.ts";
import { query } from "../database/statement.ts";
import { defaultTenantId } from "../identity/lifecycle/register.ts";
import { errorFields } from "../telemetry/log.ts";
import { agentStatements } from "./registration.ts";

/**
 * Gives the calling agent its tenant, its owner and itself, once, and never what an operator took, from its owner either. Where the operator has placed it in a tenant before, it joins
 * that one. A failure is logged and tried again at the next call; until then the graph grants nothing.
 *
 * @returns whether the calling agent is in the graph now
 */
export async function registerExternalAgent(
  ctx: Pick<CallContext, "db" | "config" | "now" | "log" | "authority" | "principal">,
): Promise<boolean> {
  const { principal } = ctx;
  if (principal.kind !== "agent") return false;
  const { agentDid, ownerDid } = principal;
  try {
    const tenantId = (await standingTenant(ctx.db, agentDid)) ?? defaultTenantId(ownerDid);
    // Placed between the read and this, it is refused whole, and joins at the next call.
    const statements = agentStatements(ctx, { agentDid, ownerDid, tenantId }, true);
    const joined = await commitFenced(ctx.db, ctx.authority, statements);
    if (!joined.ok) throw new Error(`undone: ${JSON.stringify(joined.error)}`);
    ctx.log.info("authz.agent_joined", { agentDid, tenantId });
    return true;
  } catch (error) {
    ctx.log.error("authz.join_failed", { agentDid, ...errorFields(error) });
    return false;
  }
}

/** @returns the tenant that an agent stands in, read at the primary */
async function standingTenant(db: D1Database, agentDid: string): Promise<string | null> {
  const { objectType, objectId, relation, subjectType, subjectId } = relationships;
  const isItsTenant = and(
    eq(objectType, "agent"),
    eq(objectId, agentDid),
    eq(relation, "tenant"),
    eq(subjectType, "tenant"),
  );
  const select = query.select({ tenantId: subjectId }).from(relationships).where(isItsTenant);
  return (await readFirst(db.withSession("first-primary"), select))?.tenantId ?? null;
}
