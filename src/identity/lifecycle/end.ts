/** What ending an agent means in D1, for its revocation and for its re-keying alike. */
import type { CallContext } from "../../call/context.ts";
import type { GateLocal } from "../../call/gate.ts";
import { type AgentDid, parseAgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import { type Agent, findAgent } from "../agents.ts";
import { crlChanged } from "../documents/revocation-list.ts";
import type { EndCause, IdentityHooks } from "../hooks.ts";
import type { Registry } from "../registry.ts";
import { endFamiliesOf } from "../tokens/token-pairs.ts";

type EndedJti = { jti: string; expMs: number };

type Ending = { cause: EndCause; reason: string; hooks: IdentityHooks };

/** What ends in either case. The first two statements are what {@link endedJtis} reads. */
export function endStatements(
  ctx: CallContext,
  registry: Registry,
  agentDid: AgentDid,
  end: Ending,
): D1PreparedStatement[] {
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

export function endedJtis(results: D1Result[], raised: number): EndedJti[] {
  return (results[raised + 1]?.results ?? []) as EndedJti[];
}

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

export function revokedConflict(): ProxyError {
  return new ProxyError("PROXY_CONFLICT", { detail: "The agent is revoked; register a new one." });
}
