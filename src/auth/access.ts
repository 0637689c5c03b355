/** Stage 6, access: the short-lived access token of an agent, validated by the registry and remembered. */
import type { Registry, RequestScope } from "../registry/registry.ts";
import type { CacheState } from "../resilience/stale-cache.ts";
import { ACCESS_HEADER } from "../wire/registry-documents.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { type Refusal, refusal } from "./reasons.ts";
import type { VerifiedAit } from "./token.ts";

const ACCESS_TOKEN_PATTERN = /^[\x21-\x7e]{1,4096}$/;

/** What the gate needs to keep, or to fall back on, an agent's last good validation. */
export type AccessVerdict = {
  /** Hash of (token, agent, jti). */
  readonly keyHash: string;
  /** When the registry last said that it is valid; null when it cannot be asked and nothing is remembered here. */
  readonly validatedAtMs: number | null;
};

/** Presence and form of the header; the registry is asked later, if at all. */
export function readAccessToken(headers: Headers): Result<string, Refusal> {
  const token = headers.get(ACCESS_HEADER);
  if (token === null || token === "") return err(refusal("access-missing"));
  return ACCESS_TOKEN_PATTERN.test(token) ? ok(token) : err(refusal("access-malformed"));
}

/**
 * Asks the registry, or what is remembered of its answer. A registry that is out of reach is no refusal yet: the gate
 * may hold the last good validation, and decides in the hop that is made anyway.
 */
export async function checkAccess(
  ait: VerifiedAit,
  token: string,
  access: Pick<Registry["access"], "validate">,
  scope: RequestScope,
): Promise<Result<{ verdict: AccessVerdict; cache: CacheState | "unavailable" }, Refusal>> {
  const answer = await access.validate({ token, agentDid: ait.claims.sub, aitJti: ait.claims.jti }, scope);
  if (answer.ok) {
    const { keyHash, validatedAtMs, cache } = answer.value;
    return ok({ verdict: { keyHash, validatedAtMs }, cache });
  }
  switch (answer.error.reason) {
    case "invalid":
      return err(refusal("access-invalid"));
    case "unavailable":
      return ok({ verdict: { keyHash: answer.error.keyHash, validatedAtMs: null }, cache: "unavailable" });
  }
}
