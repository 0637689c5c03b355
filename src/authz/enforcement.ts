/** Which tenants the graph decides for. It is turned on for a tenant only while nothing of that tenant is missing in it. */
import { eq, sql } from "drizzle-orm";
import { auditOfEffectStatement, auditOfNoEffectStatement } from "../audit/entry.ts";
import type { CallContext } from "../call/context.ts";
import { type Config, isOnFor } from "../config.ts";
import { excluded } from "../database/columns.ts";
import { readAll } from "../database/read.ts";
import { tenantEnforcement } from "../database/schema.ts";
import { query, type Store } from "../database/statement.ts";
import { ProxyError } from "../wire/problem.ts";
import { assertTenantExists } from "./existence.ts";
import { commitWrite } from "./sync/dual-write.ts";
import { tenantDrift } from "./sync/reconcile-queries.ts";

export type Enforcement = { tenantId: string; enforce: boolean; drift: number };

/**
 * Turns enforcement of one tenant on or off. The drift is counted in the statement that turns it on, so that nothing can come
 * between.
 *
 * @throws ProxyError PROXY_NOT_FOUND for a tenant that is not there; PROXY_CONFLICT with `data.drift` while it is above 0, or while the tenant's writes do not reach the graph
 */
export async function setEnforcement(
  ctx: CallContext,
  { tenantId, enforce }: { tenantId: string; enforce: boolean },
): Promise<Enforcement> {
  if (enforce && !writesBoth(ctx.config, tenantId)) {
    throw new ProxyError("PROXY_CONFLICT", {
      detail: "FGAC_TASKS_DUAL_WRITE and FGAC_AGENT_API_KEYS_DUAL_WRITE must be on for this tenant first.",
    });
  }
  await assertTenantExists(ctx.db.withSession("first-primary"), tenantId);
  const { enforce: column, changedAtMs } = tenantEnforcement;
  const entry = { action: "authz.enforce", subject: `tenant:${tenantId}`, agentDid: null } as const;
  const committed = await commitWrite(
    ctx,
    [
      query.all<{ drift: number }>(sql`SELECT ${tenantDrift(tenantId)} AS drift`),
      query
        .insert(tenantEnforcement)
        .select(
          sql`SELECT ${tenantId}, ${enforce ? 1 : 0}, ${ctx.now()} WHERE ${enforce ? sql`${tenantDrift(tenantId)} = 0` : sql`TRUE`}`,
        )
        .onConflictDoUpdate({
          target: tenantEnforcement.tenantId,
          set: { enforce: excluded(column), changedAtMs: excluded(changedAtMs) },
        }),
      auditOfEffectStatement(ctx, { ...entry, result: "ok", details: { enforce } }),
      // The entry of the effect is itself a change.
      auditOfNoEffectStatement(ctx, { ...entry, result: "refused", details: { enforce, why: "drift" } }),
    ],
    null,
  );
  if (!committed.ok) throw new ProxyError("PROXY_CONFLICT");
  const [counted, written] = committed.value;
  const drift = counted[0]?.drift ?? 0;
  if (written.meta.changes === 0) {
    throw new ProxyError("PROXY_CONFLICT", {
      detail: "The tenant's rows and tuples are apart: reconcile first.",
      data: { drift },
    });
  }
  ctx.log.warn("authz.enforcement_changed", { tenantId, enforce });
  return { tenantId, enforce, drift };
}

/** Tenants that one look at those without dual write goes through. */
const TENANTS_MAX = 10_000;

/**
 * @returns the tenants for which the graph was set to decide, and whose writes do not reach it by the settings of now; `isAll` is
 *          false where there are more tenants than one look goes through
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function findUnwrittenTenants(
  db: Store,
  config: Config,
): Promise<{ tenantIds: string[]; isAll: boolean }> {
  const { tenantId, enforce } = tenantEnforcement;
  const select = query
    .select({ tenantId })
    .from(tenantEnforcement)
    .where(eq(enforce, 1))
    .orderBy(tenantId)
    .limit(TENANTS_MAX);
  const enforced = await readAll(db, select);
  const tenantIds = enforced.map((row) => row.tenantId).filter((id) => !writesBoth(config, id));
  return { tenantIds, isAll: enforced.length < TENANTS_MAX };
}

/**
 * Refuses what nobody could reach: a row of a tenant for which the graph decides, without the tuples that it decides by.
 *
 * @param setting the dual write that the row needs
 * @throws ProxyError PROXY_CONFLICT naming the setting
 */
export function assertReachable(
  config: Config,
  setting: "FGAC_TASKS_DUAL_WRITE" | "FGAC_AGENT_API_KEYS_DUAL_WRITE",
  { tenantId, isEnforced }: { tenantId: string; isEnforced: boolean },
): void {
  const isWritten = setting === "FGAC_TASKS_DUAL_WRITE" ? config.fgacTasksDualWrite : config.fgacAgentApiKeysDualWrite;
  if (!isEnforced || isOnFor(isWritten, tenantId)) return;
  throw new ProxyError("PROXY_CONFLICT", {
    detail: `${setting} is off for this tenant, for which the relationship graph decides: nobody could reach what is made.`,
  });
}

function writesBoth(config: Config, tenantId: string): boolean {
  return isOnFor(config.fgacTasksDualWrite, tenantId) && isOnFor(config.fgacAgentApiKeysDualWrite, tenantId);
}
