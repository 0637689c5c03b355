/** `apikey/delete`, with the guarantee of contract §5: when it answers, the key is over, and so is everything under it. */
import { eq } from "drizzle-orm";
import { auditOfEffectStatement } from "../audit/entry.ts";
import type { Fenced } from "../authority/authority.ts";
import type { Lineage } from "../authority/lineage.ts";
import { apiKeyAuthority, ENDED_EPOCH } from "../authority/names.ts";
import { apiKeyGrants } from "../authz/grants.ts";
import { deleteTuples } from "../authz/store/tuples.ts";
import { commitWrite, dualWrite, pushToRemote } from "../authz/sync/dual-write.ts";
import { logDeferred } from "../authz/sync/outbox.ts";
import type { CallContext } from "../call/context.ts";
import type { GateLocal } from "../call/gate.ts";
import { apiKeys } from "../database/schema.ts";
import { query } from "../database/statement.ts";
import { ProxyError } from "../wire/problem.ts";
import { cleanUpAfterCall, noteEndedMaker } from "./cleanup.ts";
import { grantChange } from "./create.ts";
import { findApiKeyById } from "./store.ts";

export type DeletedApiKey = {
  apiKeyId: string;
  deletedAtMs: number;
  fenced: Fenced;
  /** The shared secret in force was handed out to the key, or to what descends from it: it stays, unless it is rotated. */
  sharedSecretKnown?: true;
};

/**
 * Ends a key of the agent whose gate this is, and every key that descends from it: in the gate and at the primary, with the calls
 * under them, then rows and grants. May be repeated until it has succeeded.
 *
 * @throws ProxyError PROXY_NOT_FOUND for a key that is not there or another agent's; DRAIN_TIMEOUT
 */
export async function deleteApiKey(ctx: CallContext, gate: GateLocal, apiKeyId: string): Promise<DeletedApiKey> {
  const row = await findApiKeyById(ctx.db, apiKeyId);
  if (row === null || row.agentDid !== ctx.agentDid)
    throw new ProxyError("PROXY_NOT_FOUND", { reason: "no such key of this agent" });
  const { principal } = ctx;
  const authority = apiKeyAuthority(apiKeyId);
  const { applied: sharedSecretKnown, fenced } = await gate.end({
    apply() {
      gate.apiKeys.end(apiKeyId);
      if (principal.kind === "apiKey" && endsWith(principal, apiKeyId)) ctx.authority.revokedItself(ENDED_EPOCH);
      return gate.shared.isKnownTo(authority);
    },
    raise: () => [{ authority, epoch: ENDED_EPOCH }],
    commitWith: () => [noteEndedMaker(authority, row.agentDid, ctx.now())],
  });
  const deletedAtMs = ctx.now();
  const change = grantChange(row);
  const dual = dualWrite(ctx, "deregister", [change]);
  await commitWrite(
    ctx,
    [
      query.delete(apiKeys).where(eq(apiKeys.apiKeyId, apiKeyId)),
      auditOfEffectStatement(ctx, {
        action: "apikey.delete",
        subject: `apikey:${apiKeyId}`,
        agentDid: row.agentDid,
        result: "ok",
        details: { name: row.name },
      }),
      ...deleteTuples(apiKeyGrants(row)),
    ],
    dual,
  );
  gate.apiKeys.gone(apiKeyId, deletedAtMs);
  const failed = await pushToRemote(ctx, dual);
  if (failed !== null) logDeferred(ctx.log, change.object, failed);
  await cleanUpAfterCall(ctx, row.agentDid);
  return { apiKeyId, deletedAtMs, fenced, ...(sharedSecretKnown ? { sharedSecretKnown: true as const } : {}) };
}

/** Whether a key ends with another: it is that one, or descends from it. */
function endsWith({ apiKeyId, lineage }: { apiKeyId: string; lineage: Lineage }, ended: string): boolean {
  return apiKeyId === ended || lineage.some((origin) => "apiKey" in origin && origin.apiKey === ended);
}
