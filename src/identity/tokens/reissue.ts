/** A new identity token for the holder of an unrevoked one. */
import { and, count, eq, gt, min } from "drizzle-orm";
import { auditStatement } from "../../audit/entry.ts";
import { agentCaller, authorityEnded } from "../../call/caller.ts";
import type { CallContext } from "../../call/context.ts";
import { commitFenced } from "../../database/batch.ts";
import { readFirst } from "../../database/read.ts";
import { aits } from "../../database/schema.ts";
import { query } from "../../database/statement.ts";
import type { AgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import { findAgent, guardAgentHolds } from "../agents.ts";
import { currentSigningKey, signedByStatements } from "../keys/signing-keys.ts";
import { ATTEMPTS_MAX, contended, LIVE_AITS_MAX, type Registry, registryOf } from "../registry.ts";
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
    const key = await currentSigningKey(registry);
    const issued = await issueAit(registry, agent, key);
    const outcome = await commitFenced(registry.db, ctx.authority, [
      ...signedByStatements(key, registry.now()),
      guardAgentHolds(agentDid, keyX),
      insertAit(agentDid, issued),
      auditStatement(ctx, {
        action: "identity.reissue",
        subject: `agent:${agentDid}`,
        agentDid,
        result: "ok",
        details: { jti: issued.jti },
      }),
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

async function refuseTooMany(registry: Registry, agentDid: AgentDid): Promise<void> {
  const nowMs = registry.now();
  const unexpired = and(eq(aits.agentDid, agentDid), gt(aits.expiresAtMs, nowMs));
  const select = query
    .select({ live: count(), soonestMs: min(aits.expiresAtMs) })
    .from(aits)
    .where(unexpired);
  const found = await readFirst(registry.db, select);
  if (found === null || found.live < LIVE_AITS_MAX) return;
  throw new ProxyError("PROXY_RATE_LIMIT_EXCEEDED", {
    detail: "Too many identity tokens of this agent are unexpired; use one of them.",
    retryAfterMs: Math.min((found.soonestMs ?? nowMs) - nowMs, DAY_MS),
  });
}
