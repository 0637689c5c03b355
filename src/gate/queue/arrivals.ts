/** Requests that wait until there is something to fetch. Memory alone: they end with the gate. */

/** So many wait at once; one more is answered at once. */
const WAITING_MAX = 64;

/** The waits of one gate. */
export type Arrivals = {
  /** Resolves when something has come, or after so long. */
  wait(waitMs: number): Promise<void>;
  /** Whether anybody waits. */
  isAwaited(): boolean;
  /** Something has come. */
  notify(): void;
};

/** @returns no waits. */
export function createArrivals(): Arrivals {
  const waiting = new Set<() => void>();
  return {
    async wait(waitMs) {
      if (waiting.size >= WAITING_MAX) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, waitMs);
      waiting.add(resolve);
      try {
        await promise;
      } finally {
        clearTimeout(timer);
        waiting.delete(resolve);
      }
    },
    isAwaited: () => waiting.size > 0,
    notify() {
      for (const resolve of waiting) resolve();
    },
  };
}
