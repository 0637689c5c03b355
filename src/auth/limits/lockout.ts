/** Guessing at bearer-like credentials: failures are counted per address, and an address that keeps failing is locked out. */

export const FAILURES_MAX = 10;
const WINDOW_MS = 60_000;
const LOCKED_MS = 300_000;
const ADDRESSES_MAX = 1_000;
/** Those without an address are counted together. */
const NO_ADDRESS = "unknown";

export type Lockout = {
  /** Counts a failure. Returns how long the address is locked from now, in milliseconds, or 0. A credential that verifies never asks. */
  failed(address: string | null, nowMs: number): number;
  /** How long the address is locked from now, in milliseconds, or 0; nothing is counted. */
  lockedMs(address: string | null, nowMs: number): number;
};

/** In memory: nothing is written for a caller who has proved nothing. */
export function createLockout(): Lockout {
  const failures = new Map<string, { times: number[]; lockedUntilMs: number }>();
  return {
    lockedMs: (address, nowMs) => Math.max(0, (failures.get(address ?? NO_ADDRESS)?.lockedUntilMs ?? 0) - nowMs),
    failed(address, nowMs) {
      const key = address ?? NO_ADDRESS;
      const known = failures.get(key) ?? { times: [], lockedUntilMs: 0 };
      failures.delete(key);
      failures.set(key, known);
      const oldest = failures.keys().next().value;
      if (failures.size > ADDRESSES_MAX && oldest !== undefined) failures.delete(oldest);
      if (known.lockedUntilMs > nowMs) return known.lockedUntilMs - nowMs;
      known.times = [...known.times.filter((time) => time > nowMs - WINDOW_MS), nowMs];
      // The last that is answered as a failure; the next within the time finds the lock.
      if (known.times.length < FAILURES_MAX) return 0;
      known.times = [];
      known.lockedUntilMs = nowMs + LOCKED_MS;
      return 0;
    },
  };
}
