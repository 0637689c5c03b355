/** What a cache did for one look-up, as it goes into the log and the metrics. */
export type CacheState = "hit" | "miss" | "stale" | "refreshed";

/**
 * How a value ages. All four are ages in milliseconds since the value was asked for, and each may not be below the one
 * before it: `refreshAheadMs <= freshMs <= revalidateMs <= staleMs`.
 */
export type Freshness = {
  /** A fresh value this old asks for a refresh ahead of its time. Left out: never. */
  refreshAheadMs?: number;
  /** Below: fresh. */
  freshMs: number;
  /** Below: may be used while somebody refreshes it (stale-while-revalidate). */
  revalidateMs: number;
  /** Below: may be used only when refreshing it has failed (stale-if-error). From here on it is gone. */
  staleMs: number;
};

/** What the cache holds under a key at a moment. */
export type Cached<T> =
  | { phase: "fresh"; value: T; ageMs: number; refreshDue: boolean }
  | { phase: "revalidate" | "if-error"; value: T; ageMs: number }
  | { phase: "gone" };

/** The right to refresh one entry, held for a limited time so that it frees itself when its holder dies. */
export type RefreshLease = number;

/**
 * A bounded cache whose values age through four phases: fresh, stale-while-revalidate, stale-if-error, gone. It holds
 * values, never promises, since on Workers one request must not wait on another's I/O. It reads no clock: every
 * operation takes the time. Least recently used entries go first.
 */
export type StaleCache<T> = {
  /** The entry and its phase at `nowMs`. Reading makes it the most recently used; a gone entry is removed. */
  read(key: string, nowMs: number): Cached<T>;
  /**
   * Keeps a value that was true at `atMs` (the moment it was asked for). Returns false, changing nothing, when a value
   * of a later moment is already there: answers may arrive in another order than they were asked for.
   */
  write(key: string, value: T, atMs: number, freshness?: Freshness): boolean;
  delete(key: string): void;
  /** The right to refresh an existing entry for `leaseMs`, or null when there is no entry or somebody holds it. */
  claim(key: string, nowMs: number, leaseMs: number): RefreshLease | null;
  /** Gives the right back. A lease that has run out and was claimed by another is left alone. */
  release(key: string, lease: RefreshLease): void;
  size(): number;
};

type Entry<T> = {
  value: T;
  atMs: number;
  freshness: Freshness;
  lease: RefreshLease;
  leaseUntilMs: number;
};

const NO_LEASE: RefreshLease = 0;

export type StaleCacheOptions<T> = {
  /** Bound, at least 1; beyond it the least recently used entry goes. Negative entries have a bound of the same size. */
  maxEntries: number;
  /** How values age unless `write` says otherwise. */
  freshness: Freshness;
  /**
   * Which values say no. A caller can cause as many of those as it has guesses, so they are kept apart: neither kind ever
   * displaces the other. Left out: none does.
   */
  isNegative?: (value: T) => boolean;
};

/** @throws RangeError when a bound is below 1 or the ages contradict each other */
export function createStaleCache<T>(options: StaleCacheOptions<T>): StaleCache<T> {
  const { maxEntries, isNegative = () => false } = options;
  if (!Number.isInteger(maxEntries) || maxEntries < 1) {
    throw new RangeError("maxEntries must be a whole number of at least 1");
  }
  assertAscending(options.freshness);

  // A Map keeps insertion order, so its first key is the least recently used one. A key is in one of the two at most.
  const positive = new Map<string, Entry<T>>();
  const negative = new Map<string, Entry<T>>();
  let lastLease: RefreshLease = NO_LEASE;
  const holderOf = (key: string): Map<string, Entry<T>> => (negative.has(key) ? negative : positive);

  return {
    read(key, nowMs) {
      const entries = holderOf(key);
      const entry = entries.get(key);
      if (entry === undefined) return { phase: "gone" };
      const cached = phaseOf(entry, nowMs);
      entries.delete(key);
      if (cached.phase !== "gone") entries.set(key, entry);
      return cached;
    },

    write(key, value, atMs, freshness = options.freshness) {
      assertAscending(freshness);
      const holder = holderOf(key);
      const older = holder.get(key);
      if (older !== undefined && older.atMs > atMs) return false;
      holder.delete(key);
      const entries = isNegative(value) ? negative : positive;
      entries.set(key, { value, atMs, freshness, lease: NO_LEASE, leaseUntilMs: 0 });
      if (entries.size > maxEntries) {
        const oldest = entries.keys().next();
        if (oldest.done !== true) entries.delete(oldest.value);
      }
      return true;
    },

    delete(key) {
      holderOf(key).delete(key);
    },

    claim(key, nowMs, leaseMs) {
      const entry = holderOf(key).get(key);
      if (entry === undefined) return null;
      if (entry.lease !== NO_LEASE && nowMs < entry.leaseUntilMs) return null;
      lastLease += 1;
      entry.lease = lastLease;
      entry.leaseUntilMs = nowMs + leaseMs;
      return lastLease;
    },

    release(key, lease) {
      const entry = holderOf(key).get(key);
      if (entry !== undefined && entry.lease === lease) entry.lease = NO_LEASE;
    },

    size() {
      return positive.size + negative.size;
    },
  };
}

function phaseOf<T>(entry: Entry<T>, nowMs: number): Cached<T> {
  const { value, freshness } = entry;
  // A clock that was set back makes an entry young, never of negative age.
  const ageMs = Math.max(0, nowMs - entry.atMs);
  if (ageMs < freshness.freshMs) {
    const refreshDue = ageMs >= (freshness.refreshAheadMs ?? freshness.freshMs);
    return { phase: "fresh", value, ageMs, refreshDue };
  }
  if (ageMs < freshness.revalidateMs) return { phase: "revalidate", value, ageMs };
  if (ageMs < freshness.staleMs) return { phase: "if-error", value, ageMs };
  return { phase: "gone" };
}

function assertAscending(freshness: Freshness): void {
  const { freshMs, refreshAheadMs = freshMs, revalidateMs, staleMs } = freshness;
  const isAscending =
    refreshAheadMs >= 0 && refreshAheadMs <= freshMs && freshMs <= revalidateMs && revalidateMs <= staleMs;
  if (!isAscending) {
    throw new RangeError("ages must ascend: refreshAheadMs, freshMs, revalidateMs, staleMs");
  }
}
