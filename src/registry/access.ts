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
/** Agents with a validation in one isolate; as many refusals beside them. */
const ACCESS_MAX_ENTRIES = 10_000;
/** Agents of which the registry has said something that is no verdict, in one isolate. */
const SILENCED_MAX = 10_000;
/** An agent whose token gets no verdict is not asked about for so long, or as long as the registry wants, up to the bound. */
const NO_VERDICT_MS = 10_000;
const NO_VERDICT_MAX_MS = 300_000;

/** @returns access validations with their cache; calls go through the dependency's breaker */
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
  const cache = createStaleCache<Verdict>({
    maxEntries: ACCESS_MAX_ENTRIES,
    freshness,
    isNegative: ({ verdict }) => verdict === "invalid",
  });
  const silences = createSilences();

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
    if (!answer.ok) {
      const { status, retryAfterMs } = answer.error;
      if (status === undefined || !isAboutCaller(status)) return answer;
      // Whoever shows odd tokens would otherwise decide for everybody that the registry is down.
      silences.keep(agentDid, scope.now(), retryAfterMs);
      return err({ ...answer.error, isAboutCaller: true });
    }
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
      const silentMs = silences.remainingMs(question.agentDid, scope.now());
      const served = silentMs > 0 ? servedInSilence(call, silentMs) : await cachedCall(call);
      if (!served.ok) return err({ reason: "unavailable", keyHash, retryAfterMs: served.error.retryAfterMs });
      const { value, cache: state } = served.value;
      if (value.verdict === "invalid") return err({ reason: "invalid" });
      return ok({ verdict: "valid", cache: state, keyHash, validatedAtMs: value.validatedAtMs });
    },
  };
}

/**
 * A client error speaks of the request, and so of the one agent whose token stood in it: 400 for an odd token, 429 for an agent
 * that asks too often. Anything else that is no verdict speaks of the registry.
 */
function isAboutCaller(status: number): boolean {
  return status >= 400 && status < 500;
}

/** What is known of a token while its agent is not asked about: as when the registry fails, and without a call. */
function servedInSilence(
  { cache, key, scope }: CachedCall<Verdict>,
  retryAfterMs: number,
): Result<{ value: Verdict; cache: CacheState }, { retryAfterMs: number }> {
  const held = cache.read(key, scope.now());
  if (held.phase === "gone") return err({ retryAfterMs });
  return ok({ value: held.value, cache: held.phase === "fresh" ? "hit" : "stale" });
}

/** Until when an agent is not asked about: by its own name, since only who holds its key can have it asked about. */
function createSilences() {
  const untilMs = new Map<string, number>();
  return {
    remainingMs(agentDid: string, nowMs: number): number {
      const remaining = (untilMs.get(agentDid) ?? 0) - nowMs;
      if (remaining <= 0) untilMs.delete(agentDid);
      // A clock that was set back makes nobody wait longer than it would have.
      return Math.min(Math.max(0, remaining), NO_VERDICT_MAX_MS);
    },
    keep(agentDid: string, nowMs: number, retryAfterMs = NO_VERDICT_MS): void {
      untilMs.delete(agentDid);
      untilMs.set(agentDid, nowMs + Math.min(Math.max(NO_VERDICT_MS, retryAfterMs), NO_VERDICT_MAX_MS));
      const oldest = untilMs.keys().next().value;
      if (untilMs.size > SILENCED_MAX && oldest !== undefined) untilMs.delete(oldest);
    },
  };
}

/** Neither the cache nor the gate ever holds the token itself. */
function accessKeyHash({ token, agentDid, aitJti }: AccessQuestion): Promise<string> {
  return sha256Base64Url(new TextEncoder().encode(`${agentDid}\n${aitJti}\n${token}`));
}
