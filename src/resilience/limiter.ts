/**
 * Bounds the calls in flight to one dependency. Each slot is held for a limited time, so that one whose request was
 * killed before it could give it back does not stay taken.
 */
export type Limiter = {
  /** A function that gives the slot back (calling it twice does no harm), or null when none is free. */
  acquire(nowMs: number): (() => void) | null;
  inFlight(nowMs: number): number;
};

/** At most so many calls in flight per dependency and isolate (contract §6, architecture: caches and breakers). */
export const MAX_CALLS_IN_FLIGHT = 8;

/** @param options.leaseMs longer than the longest call can take */
export function createLimiter(options: { maxInFlight: number; leaseMs: number }): Limiter {
  const { maxInFlight, leaseMs } = options;
  const heldUntilMs = new Map<number, number>();
  let lastSlot = 0;

  function dropExpired(nowMs: number): void {
    for (const [slot, untilMs] of heldUntilMs) {
      if (nowMs >= untilMs) heldUntilMs.delete(slot);
    }
  }

  return {
    acquire(nowMs) {
      if (heldUntilMs.size >= maxInFlight) dropExpired(nowMs);
      if (heldUntilMs.size >= maxInFlight) return null;
      lastSlot += 1;
      const slot = lastSlot;
      heldUntilMs.set(slot, nowMs + leaseMs);
      return () => {
        heldUntilMs.delete(slot);
      };
    },

    inFlight(nowMs) {
      dropExpired(nowMs);
      return heldUntilMs.size;
    },
  };
}
