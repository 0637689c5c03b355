/** Revoking and re-keying an agent: the end of everything issued to it, with the guarantee of contract §5. */
import type { CallContext, Fenced, GateLocal } from "../../rpc/method.ts";
import { type AgentDid, parseAgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import { newUlid } from "../../wire/ulid.ts";
import { type Agent, findAgent, guardAgentHolds, insertAgentKey, ownerOfKey } from "../agents.ts";
import { auditStatement } from "../../audit/entry.ts";
import { commit, contended, guard } from "../../database/batch.ts";
import { crlChanged } from "../documents/revocation-list.ts";
import type { EndCause, IdentityHooks } from "../hooks.ts";
import { insertAit, type IssuedAit, issueAit } from "../tokens/identity-token.ts";
import { checkPublicKey, type Credentials, credentialsOf, keyTaken } from "./register.ts";
import { ATTEMPTS_MAX, registryOf, type Registry } from "../registry.ts";
import { currentSigningKey, guardKeyIsActive } from "../keys/signing-keys.ts";
import { endFamiliesOf, insertFamily, newFamilyId, newTokenPair, type TokenPair } from "../tokens/token-pairs.ts";

type EndedJti = { jti: string; expMs: number };

/** What a revocation answers. */
export type Revoked = { agentDid: string; revoked: true; revokedAtMs: number; fenced: Fenced };

/**
 * Ends an agent for good. May be repeated: after DRAIN_TIMEOUT the repetition finishes what the first call began.
 *
 * @param params `reason` is published in the revocation list
 * @throws ProxyError PROXY_NOT_FOUND for a DID that is none of this registry's; DRAIN_TIMEOUT
 */
export async function revokeAgent(
  ctx: CallContext,
  params: { agentDid: string; reason?: string | undefined },
  hooks: IdentityHooks,
): Promise<Revoked> {
  const registry = registryOf(ctx);
  const gate = gateOf(ctx, params.agentDid);
  const agent = await knownAgent(registry, params.agentDid);
  const reason = params.reason ?? "revoked";
  const revokedAtMs = agent.revokedAtMs ?? registry.now();
  const fenced = await gate.endAgent({
    reason,
    commit: async (raise) => {
      const end = endStatements(ctx, registry, agent.agentDid, { cause: "revoked", reason, hooks });
      const outcome = await commit(registry.db, [
        ...raise,
        ...end,
        registry.db
          .prepare(
            "UPDATE agents SET revoked_at_ms = ?2, revoked_reason = ?3 WHERE agent_did = ?1 AND revoked_at_ms IS NULL",
          )
          .bind(agent.agentDid, revokedAtMs, reason),
        auditStatement(ctx, {
          action: "identity.revoke",
          subject: `agent:${agent.agentDid}`,
          agentDid: agent.agentDid,
          result: agent.revokedAtMs === null ? "ok" : "repeated",
          details: { reason },
        }),
      ]);
      if (!outcome.ok) throw contended();
      return endedJtis(outcome.value, raise.length);
    },
  });
  ctx.log.warn("identity.revoked", { agentDid: agent.agentDid, ...fenced });
  return { agentDid: agent.agentDid, revoked: true, revokedAtMs, fenced };
}

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
  const gate = gateOf(ctx, params.agentDid);
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

type Ending = { cause: EndCause; reason: string; hooks: IdentityHooks };

/** What ends in either case. The first two statements are what {@link endedJtis} reads. */
function endStatements(ctx: CallContext, registry: Registry, agentDid: AgentDid, end: Ending): D1PreparedStatement[] {
  const { db } = registry;
  const nowMs = registry.now();
  return [
    db
      .prepare("UPDATE aits SET revoked_at_ms = ?2, revoked_reason = ?3 WHERE agent_did = ?1 AND revoked_at_ms IS NULL")
      .bind(agentDid, nowMs, end.reason),
    // What an earlier, interrupted call revoked is told again: the gate may not have heard of it.
    db
      .prepare(
        "SELECT jti, expires_at_ms AS expMs FROM aits WHERE agent_did = ?1 AND revoked_at_ms IS NOT NULL AND expires_at_ms > ?2",
      )
      .bind(agentDid, nowMs),
    endFamiliesOf(registry, agentDid, end.cause),
    crlChanged(registry),
    ...end.hooks.atEnd.flatMap((statements) => statements(ctx, agentDid, end.cause)),
  ];
}

function endedJtis(results: D1Result[], raised: number): EndedJti[] {
  return (results[raised + 1]?.results ?? []) as EndedJti[];
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

async function knownAgent(registry: Registry, text: string): Promise<Agent> {
  const agentDid = parseAgentDid(text);
  const agent = agentDid === null ? null : await findAgent(registry, agentDid);
  if (agent === null) throw new ProxyError("PROXY_NOT_FOUND", { reason: "no such agent" });
  return agent;
}

/** The guarantee is the gate's: only the named agent's own gate can end its sockets and calls in flight. */
function gateOf(ctx: CallContext, agentDid: string): GateLocal {
  if (ctx.gate === null || ctx.agentDid !== agentDid) {
    throw new ProxyError("PROXY_INTERNAL", { reason: "an agent is ended in its own gate alone" });
  }
  return ctx.gate;
}

function revokedConflict(): ProxyError {
  return new ProxyError("PROXY_CONFLICT", { detail: "The agent is revoked; register a new one." });
}
