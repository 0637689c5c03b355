/** `apikey/create`: a key for a service account of an agent. The grant comes first; without it there is no key. */
import { auditStatement } from "../audit/entry.ts";
import { issuedAuthority } from "../authority/names.ts";
import { originatorOf, type Principal, scopesOf } from "../authority/principal.ts";
import type { Scope } from "../authority/scopes.ts";
import { hashSecret, newSecret, SECRET_PREFIXES } from "../authority/secrets.ts";
import { type Actor, actorOf } from "../authz/actor.ts";
import { agentObject, serviceAccountSubject, tenantObject } from "../authz/grants.ts";
import { graphUnavailable } from "../authz/permission.ts";
import { commitWrite, dualWrite } from "../authz/sync/dual-write.ts";
import { logDeferred, nextVersion, outboxStatements, pending } from "../authz/sync/outbox.ts";
import { remoteGraphOf } from "../authz/sync/remote.ts";
import type { GraphChange } from "../authz/sync/remote-call.ts";
import type { CallContext } from "../call/context.ts";
import type { GateLocal } from "../call/gate.ts";
import { type Made, noteDatabaseSize, quotaExceeded, quotaStatements } from "../call/quotas.ts";
import { isOnFor } from "../config.ts";
import { isGuard, runBatch } from "../database/batch.ts";
import type { Statement } from "../database/statement.ts";
import { findKeyTarget, type KeyTarget, keyGrantStatements } from "../authz/key-grants.ts";
import { assertReachable } from "../authz/enforcement.ts";
import type { AgentDid } from "../wire/did.ts";
import { ProxyError, proxyErrorFrom } from "../wire/problem.ts";
import { newUlid } from "../wire/ulid.ts";
import { makerOf } from "./lineage.ts";
import { insertApiKey } from "./store.ts";

export type NewApiKey = { name: string; scopes: readonly Scope[]; expiresAtMs: number | null };
export type CreatedApiKey = { apiKeyId: string; serviceAccountId: string; key: string };

/**
 * Makes a key for the agent whose gate this is. The key is in the answer and nowhere else. One made with a key or a device
 * token ends with that, and by itself at the latest when that does. Its service account may do what its maker may, and no more.
 *
 * @throws ProxyError PROXY_AUTH_FORBIDDEN for scopes beyond the maker's own, or an end after the maker's;
 *         PROXY_NOT_FOUND for an agent that is not there; PROXY_CONFLICT where everything of the agent is ended at this moment;
 *         PROXY_QUOTA_EXCEEDED; AUTHZ_UNAVAILABLE when a remote graph does not take the grant: then there is no key
 */
export async function createApiKey(
  ctx: CallContext,
  gate: GateLocal,
  agentDid: AgentDid,
  wanted: NewApiKey,
): Promise<CreatedApiKey> {
  const nowMs = ctx.now();
  const { maker, lineage } = makerOf(ctx.principal, wanted.scopes);
  const expiresAtMs = endOfKey(ctx.principal, wanted, nowMs);
  const generation = gate.apiKeys.generation();
  const actor = actorOf(ctx.principal);
  const target = await findKeyTarget(ctx, actor, agentDid);
  const { tenantId } = target;
  if (tenantId === null || target.isRevoked)
    throw new ProxyError("PROXY_NOT_FOUND", { reason: "no such agent, or a revoked one" });

  const key = newSecret(SECRET_PREFIXES.apiKey);
  const keyHash = await hashSecret(key);
  assertReachable(ctx.config, "FGAC_AGENT_API_KEYS_DUAL_WRITE", { tenantId, isEnforced: target.isEnforced });
  const made = { apiKeyId: newUlid(nowMs), serviceAccountId: newUlid(nowMs), agentDid, tenantId };
  const row = insertApiKey({
    ...made,
    keyHash,
    name: wanted.name,
    scopes: wanted.scopes,
    generation,
    creatorUserId: actor?.userId ?? null,
    creatorServiceAccountId: actor?.serviceAccountId ?? null,
    firstMaker: originatorOf(ctx.principal),
    maker,
    lineage,
    createdAtMs: nowMs,
    expiresAtMs,
  });
  const audited = auditStatement(ctx, {
    action: "apikey.create",
    subject: `apikey:${made.apiKeyId}`,
    agentDid,
    result: "ok",
    details: { name: wanted.name, scopes: wanted.scopes.join(" "), serviceAccountId: made.serviceAccountId, maker },
  });
  await commitKey(underGeneration(ctx, agentDid, generation), gate, { made, actor, target }, [row, audited]);
  return { apiKeyId: made.apiKeyId, serviceAccountId: made.serviceAccountId, key };
}

/**
 * @returns when a key ends by itself; at the latest with what it is made with, null for never
 * @throws ProxyError PROXY_AUTH_FORBIDDEN, PROXY_BAD_REQUEST
 */
function endOfKey(principal: Principal, wanted: NewApiKey, nowMs: number): number | null {
  const held = scopesOf(principal);
  if (!wanted.scopes.every((scope) => held.includes(scope))) {
    throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "a key's scopes never exceed its maker's" });
  }
  if (wanted.expiresAtMs !== null && wanted.expiresAtMs <= nowMs) {
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: "expiresAtMs: is in the past." });
  }
  const makersEndMs = principal.kind === "device" || principal.kind === "apiKey" ? principal.expMs : null;
  const expiresAtMs = wanted.expiresAtMs ?? makersEndMs;
  if (makersEndMs !== null && (expiresAtMs === null || expiresAtMs > makersEndMs)) {
    throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "a key never outlives what it was made with" });
  }
  return expiresAtMs;
}

/** The call, whose batch is also undone when everything of the agent has been ended since: an operator's, too. */
function underGeneration(ctx: CallContext, agentDid: AgentDid, generation: number): CallContext {
  const { authority } = ctx;
  const issued = { authority: issuedAuthority(agentDid), epoch: generation };
  return { ...ctx, authority: { ...authority, fence: () => [...authority.fence(), issued] } };
}

type MadeKey = { apiKeyId: string; serviceAccountId: string; agentDid: AgentDid; tenantId: string };

/** Commits a key with its grants; those of a remote graph come first, and without them there is no key. */
async function commitKey(
  ctx: CallContext,
  gate: GateLocal,
  { made, actor, target }: { made: MadeKey; actor: Actor | null; target: KeyTarget },
  statements: readonly Statement<D1Result>[],
): Promise<void> {
  const writesBoth = isOnFor(ctx.config.fgacAgentApiKeysDualWrite, made.tenantId);
  const isRemote = writesBoth && target.executor && ctx.config.authzGraph !== "d1";
  const change = grantChange(made);
  const grants = keyGrantStatements(made, actor, target, { grants: writesBoth, nowMs: ctx.now() });
  if (isRemote) await grantAtRemote(ctx, change);
  try {
    const committed = await commitWrite(
      ctx,
      [...quotaStatements(ctx, quotaOf(made)), ...statements, ...grants],
      writesBoth && !isRemote ? dualWrite(ctx, "register", []) : null,
    );
    if (committed.ok) noteDatabaseSize(committed.value[0]);
    else
      throw isGuard(committed.error, "quota_has_room")
        ? await quotaExceeded(ctx, quotaOf(made))
        : new ProxyError("PROXY_CONFLICT");
  } catch (error) {
    if (isRemote) await takeBack(ctx, change);
    if (ctx.principal.kind === "operator" && proxyErrorFrom(error).code === "PROXY_AUTH_REVOKED")
      throw endedMeanwhile();
    throw error;
  }
  // Ended after the commit: the key is over with everything else, and its row goes with the others.
  if (gate.isEnded()) throw endedMeanwhile();
}

function quotaOf({ agentDid, tenantId }: MadeKey): Made {
  return { kind: "apiKeys", agentDid, tenantId, bytes: 0 };
}

function endedMeanwhile(): ProxyError {
  return new ProxyError("PROXY_CONFLICT", { detail: "The agent's credentials were ended at the same moment." });
}

type TenantChange = GraphChange & { tenantId: string };

/** @returns what a remote graph is notified of for a key's service account */
export function grantChange(key: { serviceAccountId: string; agentDid: string; tenantId: string }): TenantChange {
  return {
    op: "register",
    object: agentObject(key.agentDid),
    principal: serviceAccountSubject(key.serviceAccountId),
    parent: tenantObject(key.tenantId),
    relation: "executor",
    tenantId: key.tenantId,
  };
}

async function grantAtRemote(ctx: CallContext, change: TenantChange): Promise<void> {
  const granted = await remoteGraphOf(ctx.config)?.apply(change, await nextVersion(ctx.db));
  if (granted !== undefined && !granted.ok) throw graphUnavailable(`the remote graph: ${granted.error}`);
}

/** The grant stands and the key does not: the outbox takes the grant back. */
async function takeBack(ctx: CallContext, change: TenantChange): Promise<void> {
  const statements = outboxStatements([pending({ ...change, op: "deregister" }, ctx.now())], ctx.now());
  await runBatch(ctx.db, statements).catch((error: unknown) => logDeferred(ctx.log, change.object, error));
}
