/** `apikey/create`: a key for a service account of an agent. The grant comes first; without it there is no key. */
import { auditStatement } from "../audit/entry.ts";
import { scopesOf } from "../authority/principal.ts";
import type { Scope } from "../authority/scopes.ts";
import { hashSecret, newSecret, SECRET_PREFIXES } from "../authority/secrets.ts";
import { actorOf } from "../authz/actor.ts";
import { agentObject, serviceAccountSubject, tenantObject } from "../authz/grants.ts";
import { graphUnavailable } from "../authz/permission.ts";
import { commitWrite, dualWrite } from "../authz/sync/dual-write.ts";
import { logDeferred, outboxStatement, pending } from "../authz/sync/outbox.ts";
import { type GraphChange, remoteGraphOf } from "../authz/sync/remote.ts";
import type { CallContext } from "../call/context.ts";
import type { GateLocal } from "../call/gate.ts";
import { isOnFor } from "../config.ts";
import { findKeyTarget, keyGrantStatements } from "../authz/key-grants.ts";
import type { AgentDid } from "../wire/did.ts";
import { ProxyError } from "../wire/problem.ts";
import { newUlid } from "../wire/ulid.ts";
import { provenanceOf } from "./provenance.ts";
import { insertApiKey } from "./store.ts";

export type NewApiKey = { name: string; scopes: readonly Scope[]; expiresAtMs: number | null };
export type CreatedApiKey = { apiKeyId: string; serviceAccountId: string; key: string };

/**
 * Makes a key for the agent whose gate this is. The key is in the answer and nowhere else. One made with a key or a device
 * token ends with that at the latest, also where no end was asked for. Its service account may do what its maker may, and no more.
 *
 * @throws ProxyError PROXY_AUTH_FORBIDDEN for scopes beyond the creator's own, or an end after the creator's;
 *         PROXY_NOT_FOUND for an agent that is not there; AUTHZ_UNAVAILABLE when a remote graph does not take the grant: then
 *         there is no key
 */
export async function createApiKey(
  ctx: CallContext,
  gate: GateLocal,
  agentDid: AgentDid,
  wanted: NewApiKey,
): Promise<CreatedApiKey> {
  const held = scopesOf(ctx.principal);
  if (!wanted.scopes.every((scope) => held.includes(scope))) {
    throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "a key's scopes never exceed its creator's" });
  }
  const nowMs = ctx.now();
  if (wanted.expiresAtMs !== null && wanted.expiresAtMs <= nowMs) {
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: "expiresAtMs: is in the past." });
  }
  const { originator, endsAtMs } = await provenanceOf(ctx.db, ctx.principal);
  const expiresAtMs = wanted.expiresAtMs ?? endsAtMs;
  if (endsAtMs !== null && (expiresAtMs === null || expiresAtMs > endsAtMs)) {
    throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "a key never outlives what it was made with" });
  }
  const actor = actorOf(ctx.principal);
  const target = await findKeyTarget(ctx, actor, agentDid);
  if (target.tenantId === null || target.isRevoked)
    throw new ProxyError("PROXY_NOT_FOUND", { reason: "no such agent, or a revoked one" });

  const key = newSecret(SECRET_PREFIXES.apiKey);
  const keyHash = await hashSecret(key);
  const { tenantId } = target;
  const made = { apiKeyId: newUlid(nowMs), serviceAccountId: newUlid(nowMs), agentDid, tenantId };
  const generation = gate.apiKeys.generation();
  const writesBoth = isOnFor(ctx.config.fgacAgentApiKeysDualWrite, tenantId);
  const change = grantChange(made);
  const isRemote = writesBoth && target.executor && ctx.config.authzGraph !== "d1";
  if (isRemote) await grantAtRemote(ctx, change);
  try {
    const committed = await commitWrite(
      ctx,
      [
        insertApiKey(ctx.db, {
          ...made,
          keyHash,
          name: wanted.name,
          scopes: wanted.scopes,
          generation,
          creatorUserId: actor?.userId ?? null,
          creatorServiceAccountId: actor?.serviceAccountId ?? null,
          originator,
          createdAtMs: nowMs,
          expiresAtMs,
        }),
        ...keyGrantStatements(made, actor, target, { grants: writesBoth, nowMs }),
        auditStatement(ctx, {
          action: "apikey.create",
          subject: `apikey:${made.apiKeyId}`,
          agentDid,
          result: "ok",
          details: { name: wanted.name, scopes: wanted.scopes.join(" "), serviceAccountId: made.serviceAccountId },
        }),
      ],
      writesBoth && !isRemote ? dualWrite(ctx, "register", []) : null,
    );
    if (!committed.ok) throw new ProxyError("PROXY_CONFLICT");
  } catch (error) {
    if (isRemote) await takeBack(ctx, change);
    throw error;
  }
  // Everything of the agent may have been ended while this was committed; such a key never works.
  if (gate.apiKeys.generation() !== generation) {
    throw new ProxyError("PROXY_CONFLICT", { detail: "The agent's credentials were ended at the same moment." });
  }
  return { apiKeyId: made.apiKeyId, serviceAccountId: made.serviceAccountId, key };
}

/** What a remote graph hears of a key's service account. */
export function grantChange(key: { serviceAccountId: string; agentDid: string; tenantId: string }): GraphChange {
  return {
    op: "register",
    object: agentObject(key.agentDid),
    principal: serviceAccountSubject(key.serviceAccountId),
    parent: tenantObject(key.tenantId),
    relation: "executor",
  };
}

async function grantAtRemote(ctx: CallContext, change: GraphChange): Promise<void> {
  const granted = await remoteGraphOf(ctx.config)?.apply(change);
  if (granted !== undefined && !granted.ok) throw graphUnavailable(`the remote graph: ${granted.error}`);
}

/** The grant stands and the key does not: the outbox takes the grant back. */
async function takeBack(ctx: CallContext, change: GraphChange): Promise<void> {
  const statement = outboxStatement(ctx.db, pending({ ...change, op: "deregister" }, ctx.now()), ctx.now());
  await statement.run().catch((error: unknown) => logDeferred(ctx.log, change.object, error));
}
