/** Stage 2, revocation: is the `jti` of this verified token in the revocation list. */
import type { Registry, RequestScope } from "../registry/registry.ts";
import type { CacheState } from "../resilience/stale-cache.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { type Refusal, refusal } from "./reasons.ts";
import type { VerifiedAit } from "./token.ts";

/** @returns what the list's cache did, or why the token does not pass */
export async function checkRevocation(
  ait: VerifiedAit,
  crl: Pick<Registry["crl"], "isRevoked">,
  scope: RequestScope,
): Promise<Result<{ cache: CacheState }, Refusal>> {
  const answer = await crl.isRevoked(ait.claims.jti, scope);
  if (answer.ok) return answer.value.revoked ? err(refusal("ait-revoked")) : ok({ cache: answer.value.cache });
  switch (answer.error) {
    case "unavailable":
      return err(refusal("crl-unavailable"));
    case "too-old":
      return err(refusal("crl-too-old"));
  }
}
