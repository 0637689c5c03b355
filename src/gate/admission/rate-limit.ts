/** Requests and frames of one agent in any 60 seconds, exact. Kept on disk, so that an eviction resets nothing. */
import { GateRefusal } from "../protocol/refusal.ts";

const WINDOW_MS = 60_000;

export type Rate = {
  /** How long to wait, in milliseconds, or 0 when one more may pass; does not count it. */
  waitMs(nowMs: number): number;
  count(nowMs: number): void;
  /** Writes what was counted since the last time; part of the group's commit. */
  save(): void;
};

/** @param perMinute 0 turns the limit off, and then nothing is kept. */
export function createRate(sql: SqlStorage, perMinute: number): Rate {
  if (perMinute === 0) return { waitMs: () => 0, count: () => {}, save: () => {} };

  /** How many at which millisecond, oldest first; those of one group share theirs. */
  const counts = new Map<number, number>();
  for (const row of sql.exec<{ at_ms: number; count: number }>("SELECT at_ms, count FROM rate_counts ORDER BY at_ms")) {
    counts.set(row.at_ms, row.count);
  }
  let total = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const unsaved = new Set<number>();
  let forgottenThroughMs = -Infinity;
  let isForgetful = false;

  const forget = (nowMs: number): void => {
    for (const [atMs, count] of counts) {
      if (atMs > nowMs - WINDOW_MS) return;
      counts.delete(atMs);
      unsaved.delete(atMs);
      total -= count;
      forgottenThroughMs = Math.max(forgottenThroughMs, atMs);
      isForgetful = true;
    }
  };

  return {
    waitMs(nowMs) {
      forget(nowMs);
      if (total < perMinute) return 0;
      const [oldestMs = nowMs] = counts.keys();
      return Math.max(1, oldestMs + WINDOW_MS - nowMs);
    },
    count(nowMs) {
      forget(nowMs);
      counts.set(nowMs, (counts.get(nowMs) ?? 0) + 1);
      unsaved.add(nowMs);
      total += 1;
    },
    save() {
      for (const atMs of unsaved) {
        sql.exec(
          "INSERT INTO rate_counts (at_ms, count) VALUES (?, ?) ON CONFLICT (at_ms) DO UPDATE SET count = excluded.count",
          atMs,
          counts.get(atMs) ?? 0,
        );
      }
      unsaved.clear();
      if (isForgetful) sql.exec("DELETE FROM rate_counts WHERE at_ms <= ?", forgottenThroughMs);
      isForgetful = false;
    },
  };
}

export function countRequest(rate: Rate, nowMs: number): void {
  const waitMs = rate.waitMs(nowMs);
  if (waitMs > 0) throw new GateRefusal("gate-rate-exceeded", waitMs);
  rate.count(nowMs);
}

/**
 * Counts a call of a batch after its first, as a frame is counted: a batch saves requests, not what they may ask for.
 *
 * @returns why it may not be made now, or null
 */
export function countFurtherCall(rate: Rate, nowMs: number): GateRefusal["refusal"] | null {
  const waitMs = rate.waitMs(nowMs);
  if (waitMs > 0) return new GateRefusal("gate-rate-exceeded", waitMs).refusal;
  rate.count(nowMs);
  return null;
}
