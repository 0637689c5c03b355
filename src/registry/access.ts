/** Access validation: is this agent's access token still good, by the registry's word or by the last one it gave. */
import { cachedCall, type CachedCall, type Loaded, type LoadFailure } from "../resilience/cached-call.ts";
import type { Dependency } from "../resilience/dependency.ts";
import { createStaleCache, type CacheState, type Freshness } from "../resilience/stale-cache.ts";
import { sha256Base64Url } from "../wire/proof.ts";
import { ACCESS_HEADER, ACCESS_VALIDATE_PATH, accessVerdict } from "../wire/registry-documents.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { askRegistry } from "./request.ts";
import type { RegistrySettings, RequestScope } from "./scope.ts";

export type AccessQuestion = { token: string; agentDid: string; aitJti: string };

export type AccessVerdict = {
  verdict: "valid";
  cache: CacheState;
  /** Hash of (token, agent, `jti`): what the gate keeps of it. */
  keyHash: string;
  /** When the registry was asked, in milliseconds. */
  validatedAtMs: number;
};

export type AccessRefusal =
  | { reason: "invalid" }
  /** The registry fails and this isolate remembers nothing: the agent's gate may. */
  | { reason: "unavailable"; keyHash: string; retryAfterMs: number };

export type Access = {
  validate(question: AccessQuestion, scope: RequestScope): Promise<Result<AccessVerdict, AccessRefusal>>;
};

type Verdict = { verdict: "valid" | "invalid"; validatedAtMs: number };

/** Issue and contract §6: a 401 is remembered this long. */
export const REFUSAL_FRESH_MS = 10_000;
/** An agent that is busy has its validation renewed in the background before it ends, so that it never waits. */
const REFRESH_AHEAD_RATIO = 0.75;
/** Agents with a validation in one isolate. */
const ACCESS_MAX_ENTRIES = 10_000;

export function createAccess(settings: RegistrySettings, dependency: Dependency): Access {
  const { accessTtlMs, accessMaxStaleMs, registryTimeoutMs } = settings;
  const freshness: Freshness = {
    refreshAheadMs: Math.floor(accessTtlMs * REFRESH_AHEAD_RATIO),
    freshMs: accessTtlMs,
    // Only while the one request that renews it is out may the others go by the old word.
    revalidateMs: Math.min(accessTtlMs + registryTimeoutMs, accessMaxStaleMs),
    staleMs: accessMaxStaleMs,
  };
  // A refusal is asked about again soon, but while the registry fails it stands as long as a validation would: else a
  // token that was refused came back to life by an older word.
  const refusalFreshness: Freshness = {
    freshMs: Math.min(REFUSAL_FRESH_MS, accessMaxStaleMs),
    revalidateMs: Math.min(REFUSAL_FRESH_MS, accessMaxStaleMs),
    staleMs: accessMaxStaleMs,
  };
  const cache = createStaleCache<Verdict>({ maxEntries: ACCESS_MAX_ENTRIES, freshness });

  async function load(
    question: AccessQuestion,
    scope: RequestScope,
    signal: AbortSignal,
  ): Promise<Result<Loaded<Verdict>, LoadFailure>> {
    const validatedAtMs = scope.now();
    const { token, agentDid, aitJti } = question;
    const init = {
      method: "POST",
      headers: { [ACCESS_HEADER]: token, "Content-Type": "application/json" },
      body: JSON.stringify({ agentDid, aitJti }),
    };
    const answer = await askRegistry(scope, { path: ACCESS_VALIDATE_PATH, init, answers: { 204: 0, 401: 0 } }, signal);
    if (!answer.ok) return answer;
    const verdict = accessVerdict(answer.value.status);
    if (verdict === "failure") return err({ reason: `status ${answer.value.status}` });
    return ok(
      verdict === "valid"
        ? { value: { verdict, validatedAtMs } }
        : { value: { verdict, validatedAtMs }, freshness: refusalFreshness },
    );
  }

  return {
    async validate(question, scope) {
      const keyHash = await accessKeyHash(question);
      const call: CachedCall<Verdict> = {
        dependency,
        cache,
        key: keyHash,
        refresh: "foreground",
        scope,
        load: (signal) => load(question, scope, signal),
      };
      const served = await cachedCall(call);
      if (!served.ok) return err({ reason: "unavailable", keyHash, retryAfterMs: served.error.retryAfterMs });
      const { value, cache: state } = served.value;
      if (value.verdict === "invalid") return err({ reason: "invalid" });
      return ok({ verdict: "valid", cache: state, keyHash, validatedAtMs: value.validatedAtMs });
    },
  };
}

/** Neither the cache nor the gate ever holds the token itself. */
function accessKeyHash({ token, agentDid, aitJti }: AccessQuestion): Promise<string> {
  return sha256Base64Url(new TextEncoder().encode(`${agentDid}\n${aitJti}\n${token}`));
}
