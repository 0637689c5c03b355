/**
 * Stage 5, trust: may this sender send to this recipient. Reads D1 through a cache that serves an old answer only while
 * D1 fails or somebody is reading it again. A pair that is not trusted is never remembered, so a pairing works at the
 * next request; what a cached trust would let in after a removal is stopped by the fences in the gates.
 */
import type { BreakerSnapshot, BreakerTransition } from "../resilience/breaker.ts";
import { type CachedCall, cachedCall, type CallScope, loadNow } from "../resilience/cached-call.ts";
import { createDependency, type DependencyCall } from "../resilience/dependency.ts";
import { type CacheState, createStaleCache, type Freshness } from "../resilience/stale-cache.ts";
import type { Log } from "../telemetry/log.ts";
import type { Trust } from "../trust/pairs.ts";
import { type AgentDid, parseAgentDid } from "../wire/did.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { type Refusal, refusal } from "./reasons.ts";

export const RECIPIENT_HEADER = "X-Claw-Recipient-Agent-Did";

export type TrustSettings = {
  readonly trustTtlMs: number;
  readonly trustMaxStaleMs: number;
  readonly storeTimeoutMs: number;
  readonly breakerFailures: number;
  readonly breakerWindowMs: number;
  readonly breakerOpenMs: number;
};

export type TrustDeps = {
  readonly settings: TrustSettings;
  /** Reads the store at its primary; throws when it fails. */
  readonly lookUp: (sender: AgentDid, recipient: AgentDid) => Promise<Trust>;
  /** For what belongs to no request: each change of the breaker, once. */
  readonly log: Log;
  /** Called with each change of the breaker, and how each call ended: to be counted. */
  readonly onTransition?: (transition: BreakerTransition) => void;
  readonly onCall?: (call: DependencyCall) => void;
  /** Pairs remembered in this isolate. */
  readonly maxEntries?: number;
};

/** By which trust epoch a send was judged; the gates compare it with their fences. */
export type TrustVerdict = { readonly epoch: number; readonly cache: CacheState };

export type TrustStage = {
  /** @param how.fresh asks the store whatever is remembered, after a gate has said that it is out of date */
  judge(
    sender: AgentDid,
    recipient: AgentDid,
    scope: CallScope,
    how?: { fresh: boolean },
  ): Promise<Result<TrustVerdict, Refusal>>;
  forget(sender: AgentDid, recipient: AgentDid): void;
  breaker(): BreakerSnapshot;
  /** Pairs remembered, and so served while the store fails. */
  size(): number;
};

const PAIRS_REMEMBERED = 50_000;
/** A pair in use is read again in the background when this share of its time is over. */
const REFRESH_AHEAD_RATIO = 0.75;
/** Not remembered at all. */
const NEVER: Freshness = { freshMs: 0, revalidateMs: 0, staleMs: 0 };

/** @returns the stage, with its cache and its breaker before the store */
export function createTrustStage(deps: TrustDeps): TrustStage {
  const { settings, lookUp, log, maxEntries = PAIRS_REMEMBERED } = deps;
  const { trustTtlMs: freshMs, storeTimeoutMs } = settings;
  const staleMs = Math.max(freshMs, settings.trustMaxStaleMs);
  const cache = createStaleCache<Trust>({
    maxEntries,
    // A pair that is not trusted is kept for no time at all, and still must not push out one that is.
    isNegative: ({ trusted }) => !trusted,
    freshness: {
      refreshAheadMs: Math.floor(freshMs * REFRESH_AHEAD_RATIO),
      freshMs,
      // Only while the one request that reads it again is out may the others go by the old answer.
      revalidateMs: Math.min(freshMs + storeTimeoutMs, staleMs),
      staleMs,
    },
  });
  const dependency = createDependency({
    name: "trust",
    timeoutMs: storeTimeoutMs,
    breakerFailures: settings.breakerFailures,
    breakerWindowMs: settings.breakerWindowMs,
    breakerOpenMs: settings.breakerOpenMs,
    onCall: deps.onCall,
    onTransition: (transition) => {
      deps.onTransition?.(transition);
      const { from, to, failures, retryAtMs } = transition;
      const fields = { dependency: "trust", from, to, failures, retryAtMs };
      if (to === "open") log.warn("breaker.changed", fields);
      else log.info("breaker.changed", fields);
    },
  });

  return {
    async judge(sender, recipient, scope, how = { fresh: false }) {
      const key = pairKey(sender, recipient);
      const call: CachedCall<Trust> = {
        dependency,
        cache,
        key,
        refresh: "foreground",
        scope,
        async load() {
          const trust = await lookUp(sender, recipient);
          return ok(trust.trusted ? { value: trust } : { value: trust, freshness: NEVER });
        },
      };
      const served = how.fresh ? await loadNow(call) : await cachedCall(call);
      if (!served.ok) {
        const { reason, retryAfterMs } = served.error;
        return err(reason === "busy" ? { reason: "trust-overloaded", retryAfterMs } : refusal("trust-unavailable"));
      }
      const { value, cache: state } = served.value;
      if (value.trusted) return ok({ epoch: value.epoch, cache: state });
      cache.delete(key);
      return err(refusal("peer-not-trusted"));
    },

    forget: (sender, recipient) => cache.delete(pairKey(sender, recipient)),
    breaker: () => dependency.breaker.snapshot(),
    size: () => cache.size(),
  };
}

/** The recipient of a send, by its header. */
export function readRecipient(headers: Headers, sender: AgentDid): Result<AgentDid, Refusal> {
  const text = headers.get(RECIPIENT_HEADER);
  if (text === null || text === "") return err(refusal("recipient-missing"));
  const recipient = parseAgentDid(text);
  if (recipient === null) return err(refusal("recipient-malformed"));
  return recipient === sender ? err(refusal("recipient-is-sender")) : ok(recipient);
}

/** A pair has no direction, so both share one entry. */
function pairKey(a: AgentDid, b: AgentDid): string {
  return a < b ? `${a} ${b}` : `${b} ${a}`;
}
