export type BreakerState = "closed" | "open" | "half-open";

/** The right to make one call; what became of it is reported with this. */
export type Permit = { readonly isProbe: boolean; readonly generation: number };

export type Admission = { admitted: true; permit: Permit } | { admitted: false; retryAfterMs: number };

/** One change of state, reported once. */
export type BreakerTransition = {
  dependency: string;
  from: BreakerState;
  to: BreakerState;
  atMs: number;
  /** Failures in a row that led here. */
  failures: number;
  /** When the next probe may go, for a breaker that has opened. */
  retryAtMs: number | null;
};

export type BreakerSnapshot = {
  state: BreakerState;
  failures: number;
  retryAtMs: number | null;
};

/**
 * Stands before one dependency: closed until so many calls in a row have failed within the window, then open for the
 * cool-down, then half-open with exactly one probe, whose outcome closes or opens it again. Nobody else waits for the
 * probe. It reads no clock.
 */
export type Breaker = {
  readonly dependency: string;
  /** May a call be made now? Every admitted call is reported by `succeeded`, `answered` or `failed`, or its lease runs out. */
  admit(nowMs: number): Admission;
  succeeded(permit: Permit, nowMs: number): void;
  /**
   * It answered, though with nothing that can be used: a refusal of one caller. That neither counts as a failure nor takes
   * back those of others; a probe has found out what it was sent for.
   */
  answered(permit: Permit, nowMs: number): void;
  /** @param retryAfterMs what the dependency asked for; it is left alone that long, up to the bound */
  failed(permit: Permit, nowMs: number, retryAfterMs?: number): void;
  snapshot(): BreakerSnapshot;
};

export type BreakerOptions = {
  dependency: string;
  /** So many failures in a row open it. */
  failures: number;
  /** Failures older than this do not count. */
  windowMs: number;
  /** The cool-down. */
  openMs: number;
  /** A probe that has not reported by then is given up and another may go. */
  probeLeaseMs: number;
  /** No dependency can ask for more quiet than this. Default: five minutes. */
  maxRetryAfterMs?: number;
  onTransition?: ((transition: BreakerTransition) => void) | undefined;
};

const DEFAULT_MAX_RETRY_AFTER_MS = 300_000;
/** What the others hear while the one probe is out. */
const PROBE_RETRY_AFTER_MS = 1_000;

/** @returns a breaker that is closed */
export function createBreaker(options: BreakerOptions): Breaker {
  const { dependency, windowMs, openMs, probeLeaseMs } = options;
  const maxRetryAfterMs = options.maxRetryAfterMs ?? DEFAULT_MAX_RETRY_AFTER_MS;

  let state: BreakerState = "closed";
  let failuresAtMs: number[] = [];
  let retryAtMs = 0;
  let probeUntilMs = 0;
  // Grows with every change of state and every probe: a report from before it is late and decides nothing.
  let generation = 0;

  function moveTo(to: BreakerState, nowMs: number): void {
    const from = state;
    state = to;
    generation += 1;
    options.onTransition?.({
      dependency,
      from,
      to,
      atMs: nowMs,
      failures: failuresAtMs.length,
      retryAtMs: to === "open" ? retryAtMs : null,
    });
  }

  function startProbe(nowMs: number): Admission {
    if (state === "open") moveTo("half-open", nowMs);
    else generation += 1;
    probeUntilMs = nowMs + probeLeaseMs;
    return { admitted: true, permit: { isProbe: true, generation } };
  }

  return {
    dependency,

    admit(nowMs) {
      if (state === "closed") return { admitted: true, permit: { isProbe: false, generation } };
      if (state === "open" && nowMs < retryAtMs) return { admitted: false, retryAfterMs: retryAtMs - nowMs };
      if (state === "half-open" && nowMs < probeUntilMs) return { admitted: false, retryAfterMs: PROBE_RETRY_AFTER_MS };
      return startProbe(nowMs);
    },

    succeeded(permit, nowMs) {
      if (permit.generation !== generation) return;
      failuresAtMs = [];
      if (state === "half-open") moveTo("closed", nowMs);
    },

    answered(permit, nowMs) {
      if (permit.generation !== generation || state !== "half-open") return;
      failuresAtMs = [];
      moveTo("closed", nowMs);
    },

    failed(permit, nowMs, retryAfterMs = 0) {
      if (permit.generation !== generation) return;
      const askedForMs = Math.min(Math.max(0, retryAfterMs), maxRetryAfterMs);
      failuresAtMs = failuresAtMs.filter((atMs) => nowMs - atMs < windowMs);
      failuresAtMs.push(nowMs);
      const isFailing = state === "half-open" || failuresAtMs.length >= options.failures;
      if (isFailing) {
        retryAtMs = nowMs + Math.max(openMs, askedForMs);
        moveTo("open", nowMs);
      } else if (askedForMs > 0) {
        // Asked to be left alone: one such answer is enough, and its own time is kept.
        retryAtMs = nowMs + askedForMs;
        moveTo("open", nowMs);
      }
    },

    snapshot() {
      return {
        state,
        failures: failuresAtMs.length,
        retryAtMs: state === "open" ? retryAtMs : null,
      };
    },
  };
}
