/** A new identity token for the holder of an unrevoked one. */
import { agentCaller, authorityEnded } from "../../call/caller.ts";
import type { CallContext } from "../../call/context.ts";
import { commit, contended } from "../../database/batch.ts";
import { read } from "../../database/read.ts";
import { ProxyError } from "../../wire/problem.ts";
import { findAgent, guardAgentHolds } from "../agents.ts";
import { currentSigningKey, guardKeyIsActive } from "../keys/signing-keys.ts";
import { ATTEMPTS_MAX, LIVE_AITS_MAX, type Registry, registryOf } from "../registry.ts";
import { insertAit, issueAit } from "./identity-token.ts";

const DAY_MS = 86_400_000;

/**
 * Issues another identity token with the same claims and the life that the agent was registered with. The one that the
 * call was made with stays valid until it expires.
 *
 * @throws ProxyError PROXY_AUTH_REVOKED when the agent was revoked or re-keyed meanwhile; PROXY_RATE_LIMIT_EXCEEDED
 *         while too many identity tokens of the agent are unexpired
 */
export async function reissueAit(ctx: CallContext): Promise<{ ait: string }> {
  const registry = registryOf(ctx);
  const { agentDid, keyX } = agentCaller(ctx);
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
    const agent = await findAgent(registry, agentDid);
    if (agent === null || agent.revokedAtMs !== null || agent.publicKey !== keyX) throw authorityEnded(ctx);
    await refuseTooMany(registry, agentDid);
    const issued = await issueAit(registry, agent, await currentSigningKey(registry));
    ctx.authority.assertCurrent();
    const outcome = await commit(registry.db, [
      ...ctx.authority.fence(registry.db),
      guardKeyIsActive(registry, issued.kid),
      guardAgentHolds(registry, agentDid, keyX),
      insertAit(registry, agentDid, issued),
    ]);
    if (outcome.ok) {
      ctx.authority.assertCurrent();
      ctx.log.info("identity.reissued", { agentDid, jti: issued.jti, kid: issued.kid });
      return { ait: issued.ait };
    }
    if (outcome.error === "authority-ended") throw authorityEnded(ctx);
  }
  throw contended();
}

async function refuseTooMany(registry: Registry, agentDid: string): Promise<void> {
  const nowMs = registry.now();
  const select = registry.db
    .prepare(
      "SELECT count(*) AS live, min(expires_at_ms) AS soonestMs FROM aits WHERE agent_did = ?1 AND expires_at_ms > ?2",
    )
    .bind(agentDid, nowMs);
  const found = await read(select.first<{ live: number; soonestMs: number | null }>());
  if (found === null || found.live < LIVE_AITS_MAX) return;
  throw new ProxyError("PROXY_RATE_LIMIT_EXCEEDED", {
    detail: "Too many identity tokens of this agent are unexpired; use one of them.",
    retryAfterMs: Math.min((found.soonestMs ?? nowMs) - nowMs, DAY_MS),
  });
}
