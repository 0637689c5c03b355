import { type Breaker, type BreakerTransition, createBreaker } from "./breaker.ts";
import { createLimiter, type Limiter, MAX_CALLS_IN_FLIGHT } from "./limiter.ts";
import { createStaleWarning, type StaleWarning } from "./stale-warning.ts";

/** What stands before one dependency in one isolate: its breaker, its bound on calls in flight, its warning. */
export type Dependency = {
  readonly name: string;
  readonly breaker: Breaker;
  readonly limiter: Limiter;
  readonly staleWarning: StaleWarning;
  /** Deadline of one call, first byte sent to last byte read. */
  readonly timeoutMs: number;
  /** How long a call may hold a slot, a lease or the probe before it counts as dead. */
  readonly leaseMs: number;
  /** How long a request that has no copy waits for a slot, or for the copy that another brings. */
  readonly patienceMs: number;
  /** Called with how each call ended, a refusal being `ok`: to be counted. */
  readonly onCall: ((call: DependencyCall) => void) | undefined;
};

export type DependencyCall = { dependency: string; outcome: "ok" | "failed" };

export type DependencyOptions = {
  name: string;
  timeoutMs: number;
  /** Contract §6: `BREAKER_FAILURES`, `BREAKER_WINDOW_MS`, `BREAKER_OPEN_MS`. */
  breakerFailures: number;
  breakerWindowMs: number;
  breakerOpenMs: number;
  /** Default: {@link MAX_CALLS_IN_FLIGHT}. */
  maxInFlight?: number;
  /** Default: one second. */
  patienceMs?: number;
  /** How long a request may hold a slot before its call goes out, while it looks at the second level. Default: nothing. */
  copyTimeoutMs?: number;
  /** Called with each change of the breaker once: log it and count it. */
  onTransition?: ((transition: BreakerTransition) => void) | undefined;
  /** Called with how each call ended: count it. */
  onCall?: ((call: DependencyCall) => void) | undefined;
};

const DEFAULT_PATIENCE_MS = 1_000;
/** A lease outlives its call by this, so that only a call that died loses it. */
const LEASE_MARGIN_MS = 1_000;

/** @returns a dependency with its breaker and its limit of calls in flight */
export function createDependency(options: DependencyOptions): Dependency {
  const { name, timeoutMs } = options;
  const leaseMs = timeoutMs + LEASE_MARGIN_MS;
  return {
    name,
    breaker: createBreaker({
      dependency: name,
      failures: options.breakerFailures,
      windowMs: options.breakerWindowMs,
      openMs: options.breakerOpenMs,
      probeLeaseMs: leaseMs,
      onTransition: options.onTransition,
    }),
    limiter: createLimiter({
      maxInFlight: options.maxInFlight ?? MAX_CALLS_IN_FLIGHT,
      leaseMs: leaseMs + (options.copyTimeoutMs ?? 0),
    }),
    staleWarning: createStaleWarning(name),
    timeoutMs,
    leaseMs,
    patienceMs: options.patienceMs ?? DEFAULT_PATIENCE_MS,
    onCall: options.onCall,
  };
}
