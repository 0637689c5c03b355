/** Counts by name within a minute, in the memory of one isolate: before a cost, where the exact count in a gate comes after it. */

export type RateWindow = {
  /** @returns 0, and one more is counted; otherwise how much of the minute is left, in milliseconds */
  waitMs(name: string, nowMs: number): number;
};

const WINDOW_MS = 60_000;
/** Names that are remembered at most; the one that was counted longest ago goes first. */
const NAMES_MAX = 8_192;

/** @param limit in a minute, beginning with the first that is counted; 0 for no limit */
export function createRateWindow(limit: number): RateWindow {
  const windows = new Map<string, { sinceMs: number; count: number }>();
  return {
    waitMs(name, nowMs) {
      if (limit === 0) return 0;
      const known = windows.get(name);
      // A clock that was set back begins a new minute.
      const isCurrent = known !== undefined && nowMs >= known.sinceMs && nowMs - known.sinceMs < WINDOW_MS;
      const window = isCurrent ? known : { sinceMs: nowMs, count: 0 };
      if (window.count >= limit) return Math.max(1, window.sinceMs + WINDOW_MS - nowMs);
      window.count += 1;
      windows.delete(name);
      windows.set(name, window);
      const oldest = windows.keys().next().value;
      if (windows.size > NAMES_MAX && oldest !== undefined) windows.delete(oldest);
      return 0;
    },
  };
}
