/** Re-keying: a new key for a known agent; everything issued before is revoked. */
import { eq, sql } from "drizzle-orm";
import { auditStatement } from "../../audit/entry.ts";
import type { CallContext } from "../../call/context.ts";
import { type BatchItem, commitFenced } from "../../database/batch.ts";
import { guard } from "../../database/guard.ts";
import { agentKeys, agents } from "../../database/schema.ts";
import { query } from "../../database/statement.ts";
import { ProxyError } from "../../wire/problem.ts";
import { newUlid } from "../../wire/ulid.ts";
import { type Agent, guardAgentHolds, insertAgentKey, isKeyTaken, ownerOfKey } from "../agents.ts";
import type { IdentityHooks } from "../hooks.ts";
import type { DerivedKey } from "../keys/derivation.ts";
import { currentSigningKey, signedByStatements } from "../keys/signing-keys.ts";
import { assertMoved, ATTEMPTS_MAX, contended, type Registry, registryOf } from "../registry.ts";
import { insertAit, issueAit, type IssuedAit } from "../tokens/identity-token.ts";
import { insertFamily, newFamilyId, newTokenPair, type TokenPair } from "../tokens/token-pairs.ts";
import { afterEnd, endedJtis, endStatements, requireGate, knownAgent, revokedConflict } from "./end.ts";
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
        const key = await currentSigningKey(registry);
        const issued = await issueAit(registry, agent, key, jti);
        const pair = await newTokenPair(registry.now());
        const statements = rekeyStatements(ctx, registry, { before, agent, key, issued, pair, hooks });
        const outcome = await commitFenced(registry.db, null, [...raise, ...statements]);
        if (outcome.ok) {
          handedOut = credentialsOf(agent, issued, pair);
          return endedJtis(outcome.value, raise.length);
        }
        if (isKeyTaken(outcome.error)) throw keyTaken();
        assertMoved(outcome.error);
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
  await afterEnd(ctx, agent.agentDid, hooks);
  ctx.log.warn("identity.rekeyed", { agentDid: agent.agentDid, jti, ...fenced });
  return handedOut;
}

type Rekey = { before: Agent; agent: Agent; key: DerivedKey; issued: IssuedAit; pair: TokenPair; hooks: IdentityHooks };

function rekeyStatements(ctx: CallContext, registry: Registry, rekey: Rekey): readonly BatchItem[] {
  const { before, agent, key, issued, pair, hooks } = rekey;
  const { agentDid, publicKey, rekeyedAtMs } = agent;
  const isSameKey = before.publicKey === publicKey;
  const nowMs = registry.now();
  const holder = { familyId: newFamilyId(registry), agentDid, keyX: publicKey };
  const endKey = query.update(agentKeys).set({ endedAtMs: nowMs }).where(eq(agentKeys.publicKey, before.publicKey));
  const isAgent = eq(agents.agentDid, agentDid);
  return [
    // Before the new token is there, or it would be revoked with the old ones.
    ...endStatements(ctx, agentDid, { cause: "rekeyed", reason: "rekeyed", hooks }),
    ...signedByStatements(key, nowMs),
    guardAgentHolds(agentDid, before.publicKey),
    guard(sql`(SELECT ${agents.rekeyedAtMs} FROM ${agents} WHERE ${isAgent}) IS ${before.rekeyedAtMs}`),
    ...(isSameKey ? [] : [endKey, insertAgentKey(agentDid, publicKey, nowMs)]),
    query.update(agents).set({ publicKey, rekeyedAtMs }).where(isAgent),
    insertAit(agentDid, issued),
    ...insertFamily(holder, pair),
    auditStatement(ctx, {
      action: "identity.rekey",
      subject: `agent:${agentDid}`,
      agentDid,
      result: "ok",
      details: { jti: issued.jti, isSameKey },
    }),
  ];
}
