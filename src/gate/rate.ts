/** Requests and frames of one agent in any 60 seconds, exact to the second. Kept on disk, so that an eviction resets nothing. */
import { readMeta, writeMeta } from "./schema.ts";

const WINDOW_SECONDS = 60;

export type Rate = {
  /** How long to wait, in milliseconds, or 0 when one more may pass; does not count it. */
  waitMs(nowMs: number): number;
  count(nowMs: number): void;
  /** Writes the window where it changed; part of the group's commit. */
  save(): void;
};

/** @param perMinute 0 turns the limit off, and then nothing is kept. */
export function createRate(sql: SqlStorage, perMinute: number): Rate {
  if (perMinute === 0) return { waitMs: () => 0, count: () => {}, save: () => {} };

  const seconds = new Map<number, number>(parseWindow(readMeta<string>(sql, "rate_window")));
  let total = [...seconds.values()].reduce((sum, count) => sum + count, 0);
  let changed = false;

  const forget = (nowMs: number): void => {
    const oldestKept = Math.floor(nowMs / 1_000) - WINDOW_SECONDS;
    for (const [second, count] of seconds) {
      if (second > oldestKept) return;
      seconds.delete(second);
      total -= count;
    }
  };

  return {
    waitMs(nowMs) {
      forget(nowMs);
      if (total < perMinute) return 0;
      const oldest = seconds.keys().next().value ?? 0;
      return Math.max(1_000, (oldest + WINDOW_SECONDS + 1) * 1_000 - nowMs);
    },
    count(nowMs) {
      forget(nowMs);
      const second = Math.floor(nowMs / 1_000);
      seconds.set(second, (seconds.get(second) ?? 0) + 1);
      total += 1;
      changed = true;
    },
    save() {
      if (!changed) return;
      changed = false;
      writeMeta(sql, "rate_window", JSON.stringify([...seconds]));
    },
  };
}

function parseWindow(stored: string | null): [number, number][] {
  return stored === null ? [] : (JSON.parse(stored) as [number, number][]);
}
