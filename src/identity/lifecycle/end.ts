/** What ending an agent means in D1, for its revocation and for its re-keying alike. */
import { and, eq, gt, isNotNull, isNull } from "drizzle-orm";
import type { CallContext } from "../../call/context.ts";
import type { GateLocal } from "../../call/gate.ts";
import type { BatchItem } from "../../database/batch.ts";
import { aits } from "../../database/schema.ts";
import { query } from "../../database/statement.ts";
import { type AgentDid, parseAgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import { type Agent, findAgent } from "../agents.ts";
import { crlChanged } from "../documents/revocation-list.ts";
import type { EndCause, IdentityHooks } from "../hooks.ts";
import type { Registry } from "../registry.ts";
import { endFamiliesOf } from "../tokens/token-pairs.ts";

/** A token that has ended, and when it would have expired. */
export type EndedJti = { jti: string; expMs: number };

type Ending = { cause: EndCause; reason: string; hooks: IdentityHooks };

/** What ends in either case; {@link endedJtis} reads the result of the second statement. */
export function endStatements(ctx: CallContext, agentDid: AgentDid, end: Ending): readonly BatchItem[] {
  const nowMs = ctx.now();
  const ofAgent = eq(aits.agentDid, agentDid);
  return [
    query
      .update(aits)
      .set({ revokedAtMs: nowMs, revokedReason: end.reason })
      .where(and(ofAgent, isNull(aits.revokedAtMs))),
    // Those too that an earlier, interrupted call revoked: the gate may not know of them.
    query
      .select({ jti: aits.jti, expMs: aits.expiresAtMs })
      .from(aits)
      .where(and(ofAgent, isNotNull(aits.revokedAtMs), gt(aits.expiresAtMs, nowMs))),
    endFamiliesOf(agentDid, end.cause, nowMs),
    crlChanged(nowMs),
    ...end.hooks.atEnd.flatMap((statements) => statements(ctx, agentDid, end.cause)),
  ];
}

/** What follows an end that holds. */
export async function afterEnd(ctx: CallContext, agentDid: AgentDid, hooks: IdentityHooks): Promise<void> {
  await Promise.all((hooks.afterEnd ?? []).map((run) => run(ctx, agentDid)));
}

/**
 * @param results of a batch that holds {@link endStatements}
 * @param before how many statements stand before them
 */
export function endedJtis(results: readonly unknown[], before: number): EndedJti[] {
  return (results[before + 1] ?? []) as EndedJti[];
}

/** @throws ProxyError PROXY_NOT_FOUND for what is no DID of this registry's */
export async function knownAgent(registry: Registry, text: string): Promise<Agent> {
  const agentDid = parseAgentDid(text);
  const agent = agentDid === null ? null : await findAgent(registry, agentDid);
  if (agent === null) throw new ProxyError("PROXY_NOT_FOUND", { reason: "no such agent" });
  return agent;
}

/** The guarantee is the gate's: only the named agent's own gate can end its sockets and calls in flight. */
export function requireGate(ctx: CallContext, agentDid: string): GateLocal {
  if (ctx.gate === null || ctx.agentDid !== agentDid) {
    throw new ProxyError("PROXY_INTERNAL", { reason: "an agent is ended in its own gate alone" });
  }
  return ctx.gate;
}

/** @returns the refusal of a re-key, for an agent that is revoked */
export function revokedConflict(): ProxyError {
  return new ProxyError("PROXY_CONFLICT", { detail: "The agent is revoked; register a new one." });
}
