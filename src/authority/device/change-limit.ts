/**
 * How often an agent's devices are changed by those who act for it: each change is an entry of the audit, which is kept for a year,
 * and most are a write of the one database.
 */
import { readText, writeMeta } from "../../database/meta.ts";

/** In one minute of the clock. In memory: a gate that is asked so often does not sleep. */
export const CHANGES_PER_HOLDER_MAX = 30;
export const CHANGES_PER_AGENT_MAX = 60;
/** In one day of UTC, of an agent; kept on disk. */
export const CHANGES_PER_DAY_MAX = 2_000;

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;

export type ChangeLimit = {
  /**
   * Counts a change of one holder. Part of the caller's transaction.
   *
   * @returns how long to wait, in milliseconds, or 0 where the change may be made and has been counted
   */
  count(holder: string, nowMs: number): number;
};

/** @param sql the gate's own database */
export function createChangeLimit(sql: SqlStorage): ChangeLimit {
  let minuteMs = 0;
  const inMinute = new Map<string, number>();
  let all = 0;
  let [dayMs, inDay] = JSON.parse(readText(sql, "device_changes") ?? "[0, 0]") as [number, number];

  return {
    count(holder, nowMs) {
      if (nowMs - (nowMs % MINUTE_MS) !== minuteMs) {
        minuteMs = nowMs - (nowMs % MINUTE_MS);
        inMinute.clear();
        all = 0;
      }
      if (nowMs - (nowMs % DAY_MS) !== dayMs) [dayMs, inDay] = [nowMs - (nowMs % DAY_MS), 0];
      const own = inMinute.get(holder) ?? 0;
      if (inDay >= CHANGES_PER_DAY_MAX) return dayMs + DAY_MS - nowMs;
      if (own >= CHANGES_PER_HOLDER_MAX || all >= CHANGES_PER_AGENT_MAX) return minuteMs + MINUTE_MS - nowMs;
      inMinute.set(holder, own + 1);
      all += 1;
      inDay += 1;
      writeMeta(sql, "device_changes", JSON.stringify([dayMs, inDay]));
      return 0;
    },
  };
}
