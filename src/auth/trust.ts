/**
 * Stage 5, trust: may this sender send to this recipient. Reads D1 through a cache that serves a stale answer only while
 * D1 fails. A pair that is not trusted is never remembered, so a pairing works at the next request; what a cached trust
 * would let in after a removal is stopped by the fences in the gates.
 */
import type { RequestScope } from "./registry-port.ts";
import { type Breaker, type BreakerSnapshot, createBreaker } from "../resilience/breaker.ts";
import { withDeadline } from "../resilience/deadline.ts";
import { createLimiter, MAX_CALLS_IN_FLIGHT } from "../resilience/limiter.ts";
import { type CacheState, createStaleCache } from "../resilience/stale-cache.ts";
import { errorFields, type Log } from "../telemetry/log.ts";
import type { Trust } from "../trust/pairs.ts";
import type { AgentDid } from "../wire/did.ts";
import { parseAgentDid } from "../wire/did.ts";
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
  readonly log: Log;
  /** Pairs remembered in this isolate. */
  readonly maxEntries?: number;
};

/** By which trust epoch a send was judged; the gates compare it with their fences. */
export type TrustVerdict = { readonly epoch: number; readonly cache: CacheState };

export type TrustStage = {
  /** @param how.fresh ignores what is remembered, after a gate has said that it is out of date */
  judge(
    sender: AgentDid,
    recipient: AgentDid,
    scope: RequestScope,
    how?: { fresh: boolean },
  ): Promise<Result<TrustVerdict, Refusal>>;
  forget(sender: AgentDid, recipient: AgentDid): void;
  breaker(): BreakerSnapshot;
};

const PAIRS_REMEMBERED = 50_000;
/** A pair in use is read again in the background when this share of its time is over. */
const REFRESH_AHEAD_RATIO = 0.75;
/** So long past its time an answer is still given while somebody is reading it again. */
const REVALIDATE_MS = 5_000;
const STALE_WARNING_EVERY_MS = 60_000;
/** A lease or slot whose holder died frees itself this long after the call's own time-out. */
const LEASE_SLACK_MS = 1_000;
const RETRY_AFTER_MS = 1_000;

type Read =
  | { readonly ok: true; readonly trust: Trust }
  | { readonly ok: false; readonly why: "failed" | "overloaded" };

export function createTrustStage({ settings, lookUp, log, maxEntries = PAIRS_REMEMBERED }: TrustDeps): TrustStage {
  const { trustTtlMs: freshMs, storeTimeoutMs } = settings;
  const staleMs = Math.max(freshMs, settings.trustMaxStaleMs);
  const leaseMs = storeTimeoutMs + LEASE_SLACK_MS;
  const cache = createStaleCache<{ epoch: number }>({
    maxEntries,
    freshness: {
      refreshAheadMs: Math.floor(freshMs * REFRESH_AHEAD_RATIO),
      freshMs,
      revalidateMs: Math.min(freshMs + REVALIDATE_MS, staleMs),
      staleMs,
    },
  });
  const breaker: Breaker = createBreaker({
    dependency: "trust",
    failures: settings.breakerFailures,
    windowMs: settings.breakerWindowMs,
    openMs: settings.breakerOpenMs,
    probeLeaseMs: leaseMs,
    onTransition: ({ dependency, from, to, failures, retryAtMs }) =>
      log.warn("breaker.transition", { dependency, from, to, failures, retryAtMs }),
  });
  const limiter = createLimiter({ maxInFlight: MAX_CALLS_IN_FLIGHT, leaseMs });
  let warnedAtMs = Number.NEGATIVE_INFINITY;

  async function read(sender: AgentDid, recipient: AgentDid, timeoutMs: number, now: () => number): Promise<Read> {
    const askedAtMs = now();
    const admission = breaker.admit(askedAtMs);
    if (!admission.admitted) return { ok: false, why: "failed" };
    const release = limiter.acquire(askedAtMs);
    if (release === null) return { ok: false, why: "overloaded" };
    try {
      const trust = await withDeadline(timeoutMs, () => lookUp(sender, recipient));
      breaker.succeeded(admission.permit, now());
      if (trust.trusted) cache.write(pairKey(sender, recipient), { epoch: trust.epoch }, askedAtMs);
      else cache.delete(pairKey(sender, recipient));
      return { ok: true, trust };
    } catch (error) {
      breaker.failed(admission.permit, now());
      log.error("trust.read_failed", errorFields(error));
      return { ok: false, why: "failed" };
    } finally {
      release();
    }
  }

  function refreshInBackground(sender: AgentDid, recipient: AgentDid, scope: RequestScope): void {
    const key = pairKey(sender, recipient);
    const lease = cache.claim(key, scope.now(), leaseMs);
    if (lease === null) return;
    scope.background(
      read(sender, recipient, storeTimeoutMs, scope.now).then(() => {
        cache.release(key, lease);
      }),
    );
  }

  function warnOfStale(ageMs: number, nowMs: number): void {
    if (nowMs - warnedAtMs < STALE_WARNING_EVERY_MS) return;
    warnedAtMs = nowMs;
    log.warn("dependency.stale", { dependency: "trust", ageMs });
  }

  return {
    async judge(sender, recipient, scope, how = { fresh: false }) {
      const nowMs = scope.now();
      const cached = how.fresh ? ({ phase: "gone" } as const) : cache.read(pairKey(sender, recipient), nowMs);
      if (cached.phase === "fresh") {
        if (cached.refreshDue) refreshInBackground(sender, recipient, scope);
        return ok({ epoch: cached.value.epoch, cache: "hit" });
      }
      if (cached.phase === "revalidate") {
        refreshInBackground(sender, recipient, scope);
        return ok({ epoch: cached.value.epoch, cache: "stale" });
      }

      const answer = await read(sender, recipient, Math.min(storeTimeoutMs, scope.deadline.remainingMs()), scope.now);
      if (answer.ok) {
        if (!answer.trust.trusted) return err(refusal("peer-not-trusted"));
        return ok({ epoch: answer.trust.epoch, cache: cached.phase === "gone" ? "miss" : "refreshed" });
      }
      if (cached.phase === "if-error") {
        warnOfStale(cached.ageMs, nowMs);
        return ok({ epoch: cached.value.epoch, cache: "stale" });
      }
      if (answer.why === "overloaded") return err({ reason: "trust-overloaded", retryAfterMs: RETRY_AFTER_MS });
      return err(refusal("trust-unavailable"));
    },

    forget: (sender, recipient) => cache.delete(pairKey(sender, recipient)),
    breaker: () => breaker.snapshot(),
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
