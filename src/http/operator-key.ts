/** An operator's key over HTTP: read from D1 at the primary, on each request, before anything is done for it. */
import type { Context } from "hono";
import type { Passed, PassedOperator } from "../auth/passed.ts";
import { refusal } from "../auth/reasons.ts";
import { findOperatorByKey, noteOperatorUse, operatorOfRow } from "../operators/store.ts";
import { errorFields } from "../telemetry/log.ts";
import { proxyErrorFrom } from "../wire/problem.ts";
import { refusedByGate } from "./gate-client.ts";
import { countGuess } from "./guesses.ts";
import type { HttpEnv } from "./middleware/request-context.ts";

type PassedCredential = Extract<Passed, { kind: "credential" }>;

/**
 * @param keySha256 of the presented key, base64url of SHA-256
 * @returns the request as its operator's
 * @throws ProxyError PROXY_AUTH_INVALID_TOKEN for a key that is unknown, revoked or expired; it says no more; 429 once an address
 *         has guessed too often, without a read; PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function operatorOfKey(
  c: Context<HttpEnv>,
  passed: PassedCredential,
  keySha256: string,
): Promise<PassedOperator> {
  const nowMs = Date.now();
  const { looks } = c.get("runtime");
  const retryAfterMs = looks.waitMs(keySha256, c.get("address"), nowMs);
  if (retryAfterMs > 0) throw refusedByGate(c, passed, { ...refusal("credential-looked-up-too-often"), retryAfterMs });
  const row = await findOperatorByKey(c.env.DB, keySha256, nowMs).catch((thrown: unknown) => {
    const error = proxyErrorFrom(thrown);
    refusedByGate(c, passed, refusal("credential-unavailable", { code: error.code }));
    throw error;
  });
  if (row === null) {
    const refused = refusedByGate(c, passed, refusal("operator-token-wrong"));
    countGuess(c);
    throw refused;
  }
  looks.wasRight(keySha256, nowMs);
  const noted = noteOperatorUse(c.env.DB, row, nowMs);
  if (noted !== null) {
    c.executionCtx.waitUntil(
      noted.catch((error: unknown) => c.get("log").warn("operator.use_not_noted", errorFields(error))),
    );
  }
  const { body, bodyShare, decision } = passed;
  bodyShare.release();
  return { kind: "operator", principal: operatorOfRow(row), body, decision };
}
