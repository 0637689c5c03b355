import { err, ok, type Result } from "../wire/result.ts";
import type { Breaker, Permit } from "./breaker.ts";
import { DeadlineExceeded, lookUntil, settledBefore, withDeadline } from "./deadline.ts";
import type { Dependency } from "./dependency.ts";
import type { Cached, CacheState, Freshness, StaleCache } from "./stale-cache.ts";
import type { WarnLog } from "./stale-warning.ts";

/** What belongs to the request that calls; nothing of it is kept after the call. */
export type CallScope = {
  now: () => number;
  /** Keeps work alive after the answer: `ctx.waitUntil`. */
  background: (work: Promise<unknown>) => void;
  /** Aborts when this request stops waiting. An older copy is then used if one may be. Read only when waiting. */
  readonly signal: AbortSignal;
  log: WarnLog;
};

/** An answer of the dependency, with how long it may be used when that differs from the cache's own ages. */
export type Loaded<T> = { value: T; freshness?: Freshness };

/** The dependency failed: no answer, or none that can be used. A refusal is an answer, not a failure. */
export type LoadFailure = {
  /** For the log alone, and without anything secret. */
  reason: string;
  /** What the dependency asked for by `Retry-After`. */
  retryAfterMs?: number | undefined;
  /**
   * The dependency did answer, and what it said is about this one caller: a 400 or a 429 for its token, say. It counts for
   * nobody else: it opens no breaker and delays no other call.
   */
  isAboutCaller?: boolean;
};

export type CachedCall<T> = {
  dependency: Dependency;
  cache: StaleCache<T>;
  key: string;
  /** One call, first byte sent to last byte read. The signal aborts at the dependency's deadline. */
  load(signal: AbortSignal): Promise<Result<Loaded<T>, LoadFailure>>;
  /**
   * Who waits once a value is no longer fresh. `background`: nobody. `foreground`: the one request that refreshes it,
   * so that nobody relies on an old answer while a new one can be had; the others take the old one meanwhile.
   */
  refresh: "background" | "foreground";
  /**
   * The second level: a copy that outlives the isolate, verified again, with the moment at which it was true; null when
   * there is no good one. It is asked only when this isolate has nothing, and before the dependency.
   */
  copy?(): Promise<{ value: T; atMs: number } | null>;
  scope: CallScope;
};

export type Served<T> = { value: T; cache: CacheState; ageMs: number };

/** Nothing may be served. `retryAfterMs` is a good moment to ask again. */
export type CallFailure = {
  reason: "failed" | "open" | "busy" | "deadline";
  detail: string;
  retryAfterMs: number;
};

type Held<T> = Exclude<Cached<T>, { phase: "gone" }>;
type Outcome<T> = Result<T, LoadFailure>;
/** Everything that a call needs before it may go out, and must give back. */
type Ticket = { permit: Permit; giveBack(): void };

const RETRY_AFTER_MS = 1_000;

/**
 * Asks a dependency through its cache, its breaker and its bound on calls in flight, in this order: a fresh value;
 * an older one, refreshed by one request at a time; the second level; the dependency itself; an older one because the
 * dependency fails; and only then a failure. A request never waits for a promise of another: a call runs to its end
 * under `background` even when the request that began it has stopped waiting.
 */
export async function cachedCall<T>(call: CachedCall<T>): Promise<Result<Served<T>, CallFailure>> {
  const served = servedFromMemory(call);
  if (served !== null) return ok(served);
  const held = call.cache.read(call.key, call.scope.now());
  return held.phase === "gone" ? loadAnew(call) : refreshOrStale(call, held);
}

/**
 * The part of {@link cachedCall} that needs no waiting, for callers that cannot wait: a fresh value, or an older one
 * that nobody has to wait for, its refresh begun in the background, or none while the breaker is open. Where the last call
 * has failed, nobody waits for the next to fail as well.
 *
 * @returns null when only waiting could give a value
 */
export function servedFromMemory<T>(call: CachedCall<T>): Served<T> | null {
  const held = call.cache.read(call.key, call.scope.now());
  if (held.phase === "fresh") {
    if (held.refreshDue) refreshInBackground(call);
    return { value: held.value, cache: "hit", ageMs: held.ageMs };
  }
  if (held.phase !== "gone" && isOpen(call.dependency.breaker, call.scope.now())) return serveStale(call, held);
  if (held.phase === "if-error" && call.refresh === "background" && isFailing(call)) {
    refreshInBackground(call);
    return serveStale(call, held);
  }
  if (held.phase !== "revalidate" || call.refresh === "foreground") return null;
  refreshInBackground(call);
  return serveStale(call, held);
}

/**
 * Asks the dependency now, whatever the cache holds, and waits for it: for a caller who knows that what is cached is
 * not enough. Breaker, bound and deadline hold as ever.
 */
export async function loadNow<T>(call: CachedCall<T>): Promise<Result<Served<T>, CallFailure>> {
  const releaseSlot = call.dependency.limiter.acquire(call.scope.now());
  return releaseSlot === null ? err(BUSY) : ask(call, releaseSlot);
}

const BUSY: CallFailure = { reason: "busy", detail: "too many calls in flight", retryAfterMs: RETRY_AFTER_MS };
const OPEN: CallFailure = { reason: "open", detail: "the breaker is open", retryAfterMs: RETRY_AFTER_MS };

function refreshInBackground<T>(call: CachedCall<T>): void {
  const ticket = takeTicket(call, "one at a time");
  if (ticket !== null) call.scope.background(run(call, ticket));
}

/** Waits for a newer value if this request may fetch one, and takes the older one if it may not or that fails. */
async function refreshOrStale<T>(call: CachedCall<T>, held: Held<T>): Promise<Result<Served<T>, CallFailure>> {
  const ticket = takeTicket(call, held.phase === "revalidate" ? "one at a time" : "each its own");
  if (ticket === null) return ok(serveStale(call, held));
  const work = run(call, ticket);
  call.scope.background(work);
  // While the breaker is open the dependency counts as failing, so nobody waits for its probe.
  if (ticket.permit.isProbe) return ok(serveStale(call, held));
  const settled = await settledBefore(work, call.scope.signal);
  if (settled?.value.ok === true) return ok({ value: settled.value.value, cache: "refreshed", ageMs: 0 });
  // The world may have changed meanwhile: another request's answer may be there, or the copy may be gone.
  const now = call.cache.read(call.key, call.scope.now());
  if (now.phase === "gone") return err(failureOf(settled?.value ?? null));
  if (now.phase === "fresh") return ok({ value: now.value, cache: "hit", ageMs: now.ageMs });
  return ok(serveStale(call, now));
}

/** The last call to it has failed. */
function isFailing<T>({ dependency }: CachedCall<T>): boolean {
  return dependency.breaker.snapshot().failures > 0;
}

function serveStale<T>(call: CachedCall<T>, held: Held<T>): Served<T> {
  const isStaleByFault = held.phase === "if-error" || isFailing(call);
  if (isStaleByFault) call.dependency.staleWarning.warn(call.scope.log, held.ageMs, call.scope.now());
  return { value: held.value, cache: "stale", ageMs: held.ageMs };
}

/**
 * This isolate has nothing: the second level first, then the dependency, a bounded number of requests at a time. The
 * others look again on timers of their own, for a slot or for what another has brought meanwhile.
 */
async function loadAnew<T>(call: CachedCall<T>): Promise<Result<Served<T>, CallFailure>> {
  const { cache, dependency, key, scope } = call;
  const takeTurn = (): Turn<T> | null => {
    const nowMs = scope.now();
    const held = cache.read(key, nowMs);
    if (held.phase !== "gone") return { held };
    const releaseSlot = dependency.limiter.acquire(nowMs);
    if (releaseSlot !== null) return { releaseSlot };
    return isOpen(dependency.breaker, nowMs) ? { isOpen: true } : null;
  };
  let turn = takeTurn();
  await lookUntil(() => (turn ??= takeTurn()) !== null, dependency.patienceMs, scope.signal);
  if (turn === null) return err(scope.signal.aborted ? failureOf(null) : BUSY);
  if ("releaseSlot" in turn) return loadWithSlot(call, turn.releaseSlot);
  if ("isOpen" in turn) return err(OPEN);
  const { held } = turn;
  return ok(held.phase === "fresh" ? { value: held.value, cache: "miss", ageMs: held.ageMs } : serveStale(call, held));
}

/** What a waiting request may find: a value that another brought, a slot, or that there is nothing to wait for. */
type Turn<T> = { held: Held<T> } | { releaseSlot: () => void } | { isOpen: true };

function isOpen(breaker: Breaker, nowMs: number): boolean {
  const { state, retryAtMs } = breaker.snapshot();
  return state === "open" && retryAtMs !== null && nowMs < retryAtMs;
}

async function loadWithSlot<T>(call: CachedCall<T>, releaseSlot: () => void): Promise<Result<Served<T>, CallFailure>> {
  const { cache, key, scope } = call;
  if (cache.read(key, scope.now()).phase === "gone") {
    const copy = await readCopy(call);
    if (copy !== null) cache.write(key, copy.value, copy.atMs);
    const served = servedFromMemory(call);
    const held = cache.read(key, scope.now());
    if (held.phase !== "gone") {
      releaseSlot();
      return served === null ? refreshOrStale(call, held) : ok(served);
    }
  }
  return ask(call, releaseSlot);
}

/** Asks the dependency and waits for what it says. */
async function ask<T>(call: CachedCall<T>, releaseSlot: () => void): Promise<Result<Served<T>, CallFailure>> {
  const { dependency, scope } = call;
  const admission = dependency.breaker.admit(scope.now());
  if (!admission.admitted) {
    releaseSlot();
    return err({ ...OPEN, retryAfterMs: admission.retryAfterMs });
  }
  const work = run(call, { permit: admission.permit, giveBack: releaseSlot });
  scope.background(work);
  const settled = await settledBefore(work, scope.signal);
  if (settled?.value.ok === true) return ok({ value: settled.value.value, cache: "miss", ageMs: 0 });
  return err(failureOf(settled?.value ?? null));
}

/** The second level is a convenience: when it fails, that is said, and the dependency is asked. */
async function readCopy<T>(call: CachedCall<T>): Promise<{ value: T; atMs: number } | null> {
  if (call.copy === undefined) return null;
  try {
    return await call.copy();
  } catch (error) {
    const { name } = call.dependency;
    call.scope.log.warn("dependency.copy_unreadable", { dependency: name, reason: nameOf(error) });
    return null;
  }
}

/** Slot, admission and, where one request at a time refreshes, the lease; or null, holding none of them. */
function takeTicket<T>(call: CachedCall<T>, mode: "one at a time" | "each its own"): Ticket | null {
  const { cache, dependency, key, scope } = call;
  const nowMs = scope.now();
  const lease = mode === "one at a time" ? cache.claim(key, nowMs, dependency.leaseMs) : 0;
  if (lease === null) return null;
  const releaseSlot = dependency.limiter.acquire(nowMs);
  // The breaker comes last: an admission that is not used would look like a call that never reports.
  const admission = releaseSlot === null ? null : dependency.breaker.admit(nowMs);
  if (releaseSlot === null || admission?.admitted !== true) {
    releaseSlot?.();
    cache.release(key, lease);
    return null;
  }
  return {
    permit: admission.permit,
    giveBack() {
      releaseSlot();
      cache.release(key, lease);
    },
  };
}

/** One call with everything that follows from it. Never rejects. */
async function run<T>(call: CachedCall<T>, ticket: Ticket): Promise<Outcome<T>> {
  const { cache, dependency, key, scope } = call;
  const askedAtMs = scope.now();
  const loaded = await attempt(call);
  const nowMs = scope.now();
  ticket.giveBack();
  dependency.onCall?.({ dependency: dependency.name, outcome: loaded.ok ? "ok" : "failed" });
  if (loaded.ok) {
    const { value, freshness } = loaded.value;
    dependency.breaker.succeeded(ticket.permit, nowMs);
    cache.write(key, value, askedAtMs, freshness);
    return ok(value);
  }
  const { reason, retryAfterMs } = loaded.error;
  const durationMs = nowMs - askedAtMs;
  scope.log.warn("dependency.call_failed", { dependency: dependency.name, reason, retryAfterMs, durationMs });
  if (loaded.error.isAboutCaller === true) dependency.breaker.answered(ticket.permit, nowMs);
  else dependency.breaker.failed(ticket.permit, nowMs, retryAfterMs);
  const held = cache.read(key, nowMs);
  const isStale = held.phase === "revalidate" || held.phase === "if-error";
  if (isStale) dependency.staleWarning.warn(scope.log, held.ageMs, nowMs);
  return loaded;
}

async function attempt<T>(call: CachedCall<T>): Promise<Result<Loaded<T>, LoadFailure>> {
  try {
    return await withDeadline(call.dependency.timeoutMs, (signal) => call.load(signal));
  } catch (error) {
    return err({ reason: error instanceof DeadlineExceeded ? "timeout" : nameOf(error) });
  }
}

function failureOf<T>(outcome: Outcome<T> | null): CallFailure {
  if (outcome === null || outcome.ok) {
    return { reason: "deadline", detail: "the request stopped waiting", retryAfterMs: RETRY_AFTER_MS };
  }
  const { reason, retryAfterMs = RETRY_AFTER_MS } = outcome.error;
  return { reason: "failed", detail: reason, retryAfterMs };
}

/** The kind of an error without its message, which may quote what was being sent. */
function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : typeof error;
}
