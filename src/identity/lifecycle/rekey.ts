/** Re-keying: a new key for a known agent; everything issued before is revoked. */
import { auditStatement } from "../../audit/entry.ts";
import type { CallContext } from "../../call/context.ts";
import { commit, contended } from "../../database/batch.ts";
import { guard } from "../../database/guard.ts";
import { ProxyError } from "../../wire/problem.ts";
import { newUlid } from "../../wire/ulid.ts";
import { type Agent, guardAgentHolds, insertAgentKey, ownerOfKey } from "../agents.ts";
import type { IdentityHooks } from "../hooks.ts";
import { currentSigningKey, guardKeyIsActive } from "../keys/signing-keys.ts";
import { ATTEMPTS_MAX, type Registry, registryOf } from "../registry.ts";
import { insertAit, issueAit, type IssuedAit } from "../tokens/identity-token.ts";
import { insertFamily, newFamilyId, newTokenPair, type TokenPair } from "../tokens/token-pairs.ts";
import { endedJtis, endStatements, requireGate, knownAgent, revokedConflict } from "./end.ts";
import { checkPublicKey, type Credentials, credentialsOf, keyTaken } from "./register.ts";

/**
 * Gives an agent another key, or new tokens for the same one: same DID, same trust, everything issued before is revoked.
 *
 * @throws ProxyError PROXY_BAD_REQUEST for a bad key; PROXY_NOT_FOUND for a DID that is none of this registry's;
 *         PROXY_CONFLICT for a revoked agent, a key that is not the agent's own and was ever registered, or another
 *         re-key at the same moment; DRAIN_TIMEOUT, after which it may be repeated with the same key
 */
export async function rekeyAgent(
  ctx: CallContext,
  params: { agentDid: string; publicKey: string },
  hooks: IdentityHooks,
): Promise<Credentials> {
  const registry = registryOf(ctx);
  const gate = requireGate(ctx, params.agentDid);
  checkPublicKey(params.publicKey);
  const before = await knownAgent(registry, params.agentDid);
  if (before.revokedAtMs !== null) throw revokedConflict();
  const isSameKey = before.publicKey === params.publicKey;
  if (!isSameKey && (await ownerOfKey(registry, params.publicKey)) !== null) throw keyTaken();
  // Strictly later than the last one, so that it tells two re-keys of the same millisecond apart.
  const rekeyedAtMs = Math.max(registry.now(), (before.rekeyedAtMs ?? 0) + 1);
  const agent: Agent = { ...before, publicKey: params.publicKey, rekeyedAtMs };
  const jti = newUlid(registry.now());
  let handedOut: Credentials | null = null;
  const fenced = await gate.endAgent({
    reason: "rekeyed",
    keepJti: jti,
    commit: async (raise) => {
      for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
        const issued = await issueAit(registry, agent, await currentSigningKey(registry), jti);
        const pair = await newTokenPair(registry.now());
        const statements = rekeyStatements(ctx, registry, { before, agent, issued, pair, hooks });
        const outcome = await commit(registry.db, [...raise, ...statements]);
        if (outcome.ok) {
          handedOut = credentialsOf(agent, issued, pair);
          return endedJtis(outcome.value, raise.length);
        }
        if (outcome.error === "key-taken") throw keyTaken();
        const current = await knownAgent(registry, params.agentDid);
        if (current.revokedAtMs !== null) throw revokedConflict();
        if (current.rekeyedAtMs !== before.rekeyedAtMs) {
          throw new ProxyError("PROXY_CONFLICT", { detail: "The agent was re-keyed at the same moment." });
        }
      }
      throw contended();
    },
  });
  if (handedOut === null) throw contended();
  ctx.log.warn("identity.rekeyed", { agentDid: agent.agentDid, jti, ...fenced });
  return handedOut;
}

type Rekey = { before: Agent; agent: Agent; issued: IssuedAit; pair: TokenPair; hooks: IdentityHooks };

function rekeyStatements(ctx: CallContext, registry: Registry, rekey: Rekey): D1PreparedStatement[] {
  const { db } = registry;
  const { before, agent, issued, pair, hooks } = rekey;
  const { agentDid, publicKey, rekeyedAtMs } = agent;
  const nowMs = registry.now();
  const holder = { familyId: newFamilyId(registry), agentDid, keyX: publicKey };
  const endKey = db
    .prepare("UPDATE agent_keys SET ended_at_ms = ?2 WHERE public_key = ?1")
    .bind(before.publicKey, nowMs);
  return [
    // Before the new token is there, or it would be revoked with the old ones.
    ...endStatements(ctx, registry, agentDid, { cause: "rekeyed", reason: "rekeyed", hooks }),
    guardKeyIsActive(registry, issued.kid),
    guardAgentHolds(registry, agentDid, before.publicKey),
    guard(db, "(SELECT rekeyed_at_ms FROM agents WHERE agent_did = ?1) IS ?2", agentDid, before.rekeyedAtMs),
    ...(before.publicKey === publicKey ? [] : [endKey, insertAgentKey(registry, agentDid, publicKey, nowMs)]),
    db
      .prepare("UPDATE agents SET public_key = ?2, rekeyed_at_ms = ?3 WHERE agent_did = ?1")
      .bind(agentDid, publicKey, rekeyedAtMs),
    insertAit(registry, agentDid, issued),
    ...insertFamily(registry, holder, pair),
    auditStatement(ctx, {
      action: "identity.rekey",
      subject: `agent:${agentDid}`,
      agentDid,
      result: "ok",
      details: { jti: issued.jti, isSameKey: before.publicKey === publicKey },
    }),
  ];
}
