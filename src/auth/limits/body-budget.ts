/**
 * How many bytes of bodies an isolate holds for callers who have proved nothing yet, shared fairly among addresses. An address
 * may hold at most a quarter of what is still free, so what is left never falls to nothing by one of them; and its first body
 * may have whatever is free, so that a dozen greedy addresses leave a share for the next. One alone gets a fifth of the whole.
 */

/** Contract §3: a JSON body ≤ 1 MiB. */
export const MAX_BODY_BYTES = 1_048_576;

/** An isolate has 128 MiB. */
const BUDGET_BYTES = 67_108_864;
/** What a body costs at least, so that empty ones are counted as well. */
const BODY_MIN_BYTES = 1_024;
/**
 * A request whose caller has gone away is stopped without another word, so its share ends by itself: later than a body can take
 * to come and the gate to answer.
 */
const SHARE_LIFE_MS = 60_000;
const SHARE_MAX_OF_FREE = 0.25;
/** Those without an address are counted together. */
const NO_ADDRESS = "unknown";

/** The share of one body. */
export type BodyShare = {
  /** @returns whether so many bytes more may be held; a share that was given back gets none */
  grow(bytes: number, nowMs: number): boolean;
  /** Gives the share back; a second time does no harm. */
  release(): void;
};

export type BodyBudget = {
  /** @returns a share for a body of this many bytes, to be given back, or null when the address has used up its share */
  take(address: string | null, bytes: number, nowMs: number): BodyShare | null;
  /** Bytes that are held at the moment, of one address or of all. */
  heldBytes(address?: string): number;
};

type Entry = { readonly address: string; bytes: number; readonly untilMs: number };

/** @param budgetBytes held at once in one isolate, for all addresses together */
export function createBodyBudget(budgetBytes: number = BUDGET_BYTES): BodyBudget {
  const entries = new Set<Entry>();
  const held = new Map<string, number>();
  let total = 0;

  function add(address: string, bytes: number): void {
    total += bytes;
    const sum = (held.get(address) ?? 0) + bytes;
    if (sum === 0) held.delete(address);
    else held.set(address, sum);
  }

  function drop(entry: Entry): void {
    if (entries.delete(entry)) add(entry.address, -entry.bytes);
  }

  function fits(address: string, bytes: number): boolean {
    const free = budgetBytes - total;
    const own = (held.get(address) ?? 0) + bytes;
    return own <= MAX_BODY_BYTES ? bytes <= free : own <= free * SHARE_MAX_OF_FREE;
  }

  function hasRoom(address: string, bytes: number, nowMs: number): boolean {
    if (fits(address, bytes)) return true;
    for (const entry of entries) {
      // The set is in the order of time.
      if (entry.untilMs > nowMs) break;
      drop(entry);
    }
    return fits(address, bytes);
  }

  return {
    take(address, announced, nowMs) {
      const counted = address ?? NO_ADDRESS;
      const bytes = Math.max(BODY_MIN_BYTES, announced);
      if (!hasRoom(counted, bytes, nowMs)) return null;
      const entry: Entry = { address: counted, bytes, untilMs: nowMs + SHARE_LIFE_MS };
      entries.add(entry);
      add(counted, bytes);
      return {
        grow(more, atMs) {
          if (!entries.has(entry) || !hasRoom(counted, more, atMs)) return false;
          entry.bytes += more;
          add(counted, more);
          return true;
        },
        release: () => drop(entry),
      };
    },
    heldBytes: (address) => (address === undefined ? total : (held.get(address) ?? 0)),
  };
}
