/** An API key over HTTP: read from D1 at the primary, on each request, before its agent's gate is asked. */
import type { Context } from "hono";
import { findApiKey, noteApiKeyUse } from "../apikeys/store.ts";
import type { Passed } from "../auth/passed.ts";
import { refusal } from "../auth/reasons.ts";
import type { GateCaller } from "../gate/protocol/calls.ts";
import { errorFields } from "../telemetry/log.ts";
import type { AgentDid } from "../wire/did.ts";
import { proxyErrorFrom } from "../wire/problem.ts";
import { countGuess } from "./guesses.ts";
import { refusedByGate } from "./gate-client.ts";
import { chainScope, type HttpEnv } from "./middleware/request-context.ts";

/**
 * @param keyHash of the presented key, base64url of SHA-256
 * @returns the key's agent, and the key as its gate admits it
 * @throws ProxyError PROXY_AUTH_INVALID_TOKEN for a key that is unknown, deleted or expired; it says no more;
 *         429 once an address has guessed too often, or the key is used far beyond its rate, without a read; PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function apiKeyCallerOf(
  c: Context<HttpEnv>,
  passed: Passed,
  keyHash: string,
): Promise<{ agentDid: AgentDid; caller: Extract<GateCaller, { kind: "apiKey" }> }> {
  const nowMs = Date.now();
  const { looks } = c.get("runtime");
  const waitMs = looks.waitMs(keyHash, c.get("address"), nowMs);
  if (waitMs > 0) {
    throw refusedByGate(c, passed, { ...refusal("credential-looked-up-too-often"), retryAfterMs: waitMs });
  }
  const key = await findApiKey(c.env.DB, keyHash).catch((thrown: unknown) => {
    const error = proxyErrorFrom(thrown);
    c.get("runtime").chain.conclude(passed, refusal("credential-unavailable", { code: error.code }), chainScope(c));
    throw error;
  });
  if (key === null || (key.expMs !== null && key.expMs <= nowMs)) {
    const refused = refusedByGate(c, passed, refusal("gate-credential-refused"));
    countGuess(c);
    throw refused;
  }
  looks.wasRight(keyHash, nowMs);
  const { lastUsedAtMs: _, ...grant } = key;
  const noted = noteApiKeyUse(c.env.DB, key, nowMs);
  if (noted !== null) {
    c.executionCtx.waitUntil(
      noted.catch((error: unknown) => c.get("log").warn("apikey.use_not_noted", errorFields(error))),
    );
  }
  return { agentDid: key.principal.agentDid, caller: { kind: "apiKey", key: grant } };
}
