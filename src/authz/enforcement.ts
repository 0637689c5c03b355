/** Which tenants the graph decides for. It is turned on for a tenant only while nothing of that tenant is missing in it. */
import { auditStatement } from "../audit/entry.ts";
import type { CallContext } from "../call/context.ts";
import { type Config, isOnFor } from "../config.ts";
import { ProxyError } from "../wire/problem.ts";
import { commitWrite } from "./sync/dual-write.ts";
import { TENANT_DRIFT } from "./sync/reconcile.ts";

export type Enforcement = { tenantId: string; enforce: boolean; drift: number };

/**
 * Turns enforcement of one tenant on or off. The drift is counted in the statement that turns it on, so that nothing can come
 * between.
 *
 * @throws ProxyError PROXY_CONFLICT with `data.drift` while it is above 0, or while the tenant's writes do not reach the graph
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
  const committed = await commitWrite(
    ctx,
    [
      ctx.db.prepare(`SELECT ${TENANT_DRIFT} AS drift`).bind(tenantId),
      ctx.db
        .prepare(
          `INSERT INTO tenant_enforcement (tenant_id, enforce, changed_at_ms)
           SELECT ?1, ?2, ?3 WHERE ?2 = 0 OR ${TENANT_DRIFT} = 0
           ON CONFLICT (tenant_id) DO UPDATE SET enforce = excluded.enforce, changed_at_ms = excluded.changed_at_ms RETURNING enforce`,
        )
        .bind(tenantId, enforce ? 1 : 0, ctx.now()),
      auditStatement(ctx, {
        action: "authz.enforce",
        subject: `tenant:${tenantId}`,
        agentDid: null,
        result: "asked",
        details: { enforce },
      }),
    ],
    null,
  );
  if (!committed.ok) throw new ProxyError("PROXY_CONFLICT");
  const [counted, written] = committed.value as unknown as [D1Result<{ drift: number }>, D1Result];
  const drift = counted.results[0]?.drift ?? 0;
  if (written.results.length === 0) {
    throw new ProxyError("PROXY_CONFLICT", {
      detail: "The tenant's rows and tuples are apart: reconcile first.",
      data: { drift },
    });
  }
  ctx.log.warn("authz.enforcement_changed", { tenantId, enforce });
  return { tenantId, enforce, drift };
}

function writesBoth(config: Config, tenantId: string): boolean {
  return isOnFor(config.fgacTasksDualWrite, tenantId) && isOnFor(config.fgacAgentApiKeysDualWrite, tenantId);
}
