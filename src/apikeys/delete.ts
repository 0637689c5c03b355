/** `apikey/delete`, with the guarantee of contract §5: when it answers, the key is over, and so is everything under it. */
import { eq, sql } from "drizzle-orm";
import { auditOfEffectStatement } from "../audit/entry.ts";
import type { Fenced } from "../authority/authority.ts";
import { apiKeyAuthority, ENDED_EPOCH } from "../authority/names.ts";
import { apiKeyGrants } from "../authz/grants.ts";
import { deleteTuples } from "../authz/store/tuples.ts";
import { commitWrite, dualWrite, pushToRemote } from "../authz/sync/dual-write.ts";
import { logDeferred } from "../authz/sync/outbox.ts";
import type { CallContext } from "../call/context.ts";
import type { GateLocal } from "../call/gate.ts";
import type { BatchItem } from "../database/batch.ts";
import { raiseForStatement } from "../database/fencing.ts";
import { apiKeys } from "../database/schema.ts";
import type { AgentDid } from "../wire/did.ts";
import { ProxyError } from "../wire/problem.ts";
import { grantChange } from "./create.ts";
import { type ApiKeyRow, findApiKeyById } from "./store.ts";

export type DeletedApiKey = { apiKeyId: string; deletedAtMs: number; fenced: Fenced };

/**
 * Ends a key of the agent whose gate this is: in the gate and at the primary, with the calls under it, then its row and its
 * grants. May be repeated until it has succeeded.
 *
 * @throws ProxyError PROXY_NOT_FOUND for a key that is not there or another agent's; DRAIN_TIMEOUT
 */
export async function deleteApiKey(ctx: CallContext, gate: GateLocal, apiKeyId: string): Promise<DeletedApiKey> {
  const row = await findApiKeyById(ctx.db, apiKeyId);
  if (row === null || row.agent_did !== ctx.agentDid)
    throw new ProxyError("PROXY_NOT_FOUND", { reason: "no such key of this agent" });
  const { principal } = ctx;
  const { fenced } = await gate.end({
    apply() {
      gate.apiKeys.end(apiKeyId);
      if (principal.kind === "apiKey" && principal.apiKeyId === apiKeyId) ctx.authority.revokedItself(ENDED_EPOCH);
    },
    raise: () => [{ authority: apiKeyAuthority(apiKeyId), epoch: ENDED_EPOCH }],
  });
  const deletedAtMs = ctx.now();
  const change = changeOf(row);
  const dual = dualWrite(ctx, "deregister", [change]);
  await commitWrite(
    ctx,
    [
      ctx.db.prepare("DELETE FROM api_keys WHERE api_key_id = ?1").bind(apiKeyId),
      auditOfEffectStatement(ctx, {
        action: "apikey.delete",
        subject: `apikey:${apiKeyId}`,
        agentDid: row.agent_did,
        result: "ok",
        details: { name: row.name },
      }),
      ...deleteTuples(grantsOf(row)),
    ],
    dual,
  );
  gate.apiKeys.gone(apiKeyId, deletedAtMs);
  const failed = await pushToRemote(ctx, dual);
  if (failed !== null) logDeferred(ctx.log, change.object, failed);
  return { apiKeyId, deletedAtMs, fenced };
}

function changeOf(row: ApiKeyRow) {
  return grantChange({ serviceAccountId: row.service_account_id, agentDid: row.agent_did, tenantId: row.tenant_id });
}

function grantsOf(row: ApiKeyRow) {
  return apiKeyGrants({ serviceAccountId: row.service_account_id, agentDid: row.agent_did, tenantId: row.tenant_id });
}

/**
 * What ends every key of an agent, for the commit that ends the agent: fencing tokens, grants, rows. The gate has raised its
 * generation by then. A remote graph hears of it by the outbox.
 */
export function endApiKeysStatements(
  { db, config, now }: Pick<CallContext, "db" | "config" | "now">,
  agentDid: AgentDid,
): BatchItem[] {
  const told = db
    .prepare(
      `INSERT INTO authz_outbox (id, op, object, principal, parent, relation, created_at_ms, due_at_ms)
       SELECT 'end-' || api_key_id, 'deregister', 'agent:' || agent_did, 'service_account:' || service_account_id,
         'tenant:' || tenant_id, 'executor', ?2, ?2 FROM api_keys WHERE agent_did = ?1
       ON CONFLICT (id) DO NOTHING`,
    )
    .bind(agentDid, now());
  return [
    ...(config.authzGraph === "d1" ? [] : [told]),
    raiseForStatement(
      sql`SELECT 'apikey:' || ${apiKeys.apiKeyId}, ${ENDED_EPOCH} FROM ${apiKeys} WHERE ${eq(apiKeys.agentDid, agentDid)}`,
    ),
    db
      .prepare(
        `DELETE FROM relationships WHERE subject_type = 'service_account' AND relation IN ('member', 'executor')
           AND object_type IN ('tenant', 'agent') AND subject_relation = ''
           AND subject_id IN (SELECT service_account_id FROM api_keys WHERE agent_did = ?1)`,
      )
      .bind(agentDid),
    db.prepare("DELETE FROM api_keys WHERE agent_did = ?1").bind(agentDid),
  ];
}
