/**
 * What an API key is given: membership of its agent's tenant and the right to make tasks for the agent, each as far as its maker
 * holds it at that moment. What it is not given is recorded as withdrawn, so that nothing gives it later by itself.
 */
import { sql } from "drizzle-orm";
import type { CallContext } from "../call/context.ts";
import { type RowOf, selected } from "../database/columns.ts";
import { readFirst } from "../database/read.ts";
import { query, type Statement } from "../database/statement.ts";
import type { Actor } from "./actor.ts";
import type { Tuple } from "./engine/tuple.ts";
import { agentObject, apiKeyGrants, tenantObject } from "./grants.ts";
import { isPermitted } from "./permission.ts";
import {
  type Grant,
  grantStatement,
  isTaken,
  isWithdrawn,
  notGrantedStatement,
  type TupleSql,
} from "./sync/withdrawn-grants.ts";
import { enforceOf, isEnforced, isMember, revokedAtOf, subjectParts, tenantOf } from "./tenants.ts";

/** The agent that a key is to be made for, and what its maker holds of what a key is given. */
export type KeyTarget = {
  /** null where there is no such agent. */
  tenantId: string | null;
  isRevoked: boolean;
  /** Whether the graph decides for the tenant. */
  isEnforced: boolean;
  /** Membership of the tenant. */
  member: boolean;
  /** The right to make tasks for the agent. */
  executor: boolean;
};

/**
 * Reads what a key for an agent may be given. Where the graph decides, its answer for the maker is what counts; where it does not
 * yet, what an operator took from the maker.
 *
 * @param actor null for the operator, who is above the graph
 * @throws ProxyError AUTHZ_UNAVAILABLE when the graph cannot say; PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function findKeyTarget(ctx: CallContext, actor: Actor | null, agentDid: string): Promise<KeyTarget> {
  const agent = sql`${agentDid}`;
  const tenant = sql<string | null>`target.tenant_id`;
  const no = sql<0 | 1>`0`;
  const maker = actor === null ? null : makerGrants(actor, agentDid);
  const shown = {
    tenantId: tenant,
    revokedAtMs: revokedAtOf(agent),
    enforce: enforceOf(tenant),
    isMember: isMember(tenant, actor?.subject ?? null),
    memberIsOut: maker === null ? no : sql<0 | 1>`${isWithdrawn({ ...maker.member, objectId: tenant })}`,
    executorIsOut: maker === null ? no : sql<0 | 1>`${isWithdrawn(maker.executor)}`,
    wasTaken:
      maker === null ? no : sql<0 | 1>`(${isTaken("agent", maker.id)} OR ${isTaken("service_account", maker.id)})`,
  };
  const select = query.all<RowOf<typeof shown>>(
    sql`WITH target (tenant_id) AS (SELECT ${tenantOf(agent)}) SELECT ${selected(shown)} FROM target`,
  );
  const found = await readFirst(ctx.db.withSession("first-primary"), select);
  const target = {
    tenantId: found?.tenantId ?? null,
    isRevoked: (found?.revokedAtMs ?? null) !== null,
    isEnforced: isEnforced(ctx.config, found?.enforce ?? null),
  };
  if (actor === null || found === null) return { ...target, member: true, executor: true };
  if (!target.isEnforced) {
    const isLeft = found.wasTaken === 0;
    return { ...target, member: isLeft && found.memberIsOut === 0, executor: isLeft && found.executorIsOut === 0 };
  }
  const mayCreate = { subject: actor.subject, relation: "create_task", object: agentObject(agentDid) };
  return { ...target, member: found.isMember === 1, executor: await isPermitted(ctx, mayCreate) };
}

/** The maker's own tuples that a key's grants rest on. */
function makerGrants(
  actor: Actor,
  agentDid: string,
): { id: TupleSql["subjectId"]; member: TupleSql; executor: TupleSql } {
  const [type, id] = subjectParts(actor.subject);
  const subject = { subjectType: sql`${type}`, subjectId: sql`${id}` };
  const relation = executorRelationOf(actor);
  return {
    id: subject.subjectId,
    member: { ...subject, objectType: "tenant", objectId: sql`NULL`, relation: "member" },
    executor: { ...subject, objectType: "agent", objectId: sql`${agentDid}`, relation },
  };
}

/** By which relation an actor makes tasks for its agent: a device acts for the owner. */
function executorRelationOf({ kind }: Actor): "owner" | "executor" {
  return kind === "device" ? "owner" : "executor";
}

/**
 * The statements that give a key what its maker holds. A grant that is taken from the maker until they are committed is not given
 * either.
 *
 * @param held see {@link findKeyTarget}
 * @param grants whether tuples are written at all for the tenant: what is not given is recorded in any case
 */
export function keyGrantStatements(
  key: { serviceAccountId: string; agentDid: string; tenantId: string },
  actor: Actor | null,
  held: Pick<KeyTarget, "member" | "executor">,
  { grants: isGranted, nowMs }: { grants: boolean; nowMs: number },
): Statement<D1Result>[] {
  const grants = apiKeyGrants(key);
  const isHeld = ({ relation }: Tuple): boolean => (relation === "member" ? held.member : held.executor);
  const given = grants.filter(isHeld).map((grant) => backedBy(grant, key, actor));
  if (!isGranted)
    return [
      notGrantedStatement(
        grants.filter((grant) => !isHeld(grant)),
        nowMs,
      ),
    ];
  return [grantStatement(given, nowMs), notGrantedStatement(grants, nowMs)];
}

function backedBy(grant: Tuple, key: { agentDid: string; tenantId: string }, actor: Actor | null): Grant {
  if (actor === null) return grant;
  const { subject } = actor;
  const own: Tuple =
    grant.relation === "member"
      ? { object: tenantObject(key.tenantId), relation: "member", subject }
      : { object: agentObject(key.agentDid), relation: executorRelationOf(actor), subject };
  return { ...grant, backedBy: own };
}
