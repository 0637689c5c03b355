/**
 * How far this agent's clock is off, smoothed, so that a trend shows before requests are refused for it. The part that
 * decides is pure memory; what must outlive the gate is written with a commit that is made anyway, and seldom.
 */
import { readText, writeMeta } from "../../database/meta.ts";

/** One request moves the smoothed drift by this share of its distance: a single slow packet says nothing, a dozen do. */
const WEIGHT = 1 / 8;
/** A drift that grew by less than this, or was written a moment ago, is not written again. */
const WRITE_GRAIN_MS = 1_000;
const WRITE_EVERY_MS = 60_000;
/** An admin is told once in this time, for as long as it lasts. */
const REPORT_EVERY_MS = 3_600_000;
const NAME = "clock_drift";

/** A drift to tell the admin of. Milliseconds by which the agent's clock is ahead; negative when behind. */
export type Crossing = { smoothedMs: number; skewMs: number };

export type Drift = {
  /**
   * Takes one accepted request into account; writes nothing.
   *
   * @returns `crossed` when the smoothed drift is past the warning line and nobody was told within the last hour
   */
  observe(skewMs: number, nowMs: number): { crossed: boolean; smoothedMs: number };
  /** Null before the first request. */
  smoothedMs(): number | null;
  /** Writes what is worth it; part of the group's commit. Returns a crossing once, to be reported in the same commit. */
  settle(nowMs: number): Crossing | null;
};

type Kept = { smoothedMs: number; reportedAtMs: number | null };

/** @param warnSeconds the warning line, `SKEW_WARN_SECONDS` */
export function createDrift(sql: SqlStorage, warnSeconds: number): Drift {
  const text = readText(sql, NAME);
  const kept = text === null ? null : (JSON.parse(text) as Kept);
  let smoothedMs = kept?.smoothedMs ?? null;
  let reportedAtMs = kept?.reportedAtMs ?? null;
  let writtenMs = smoothedMs;
  let writtenAtMs = Number.NEGATIVE_INFINITY;
  let crossing: Crossing | null = null;

  return {
    observe(skewMs, nowMs) {
      smoothedMs = smoothedMs === null ? skewMs : smoothedMs + (skewMs - smoothedMs) * WEIGHT;
      const isPastLine = Math.abs(smoothedMs) > warnSeconds * 1_000;
      const crossed = isPastLine && (reportedAtMs === null || nowMs - reportedAtMs >= REPORT_EVERY_MS);
      if (crossed) {
        reportedAtMs = nowMs;
        crossing = { smoothedMs: Math.round(smoothedMs), skewMs };
      }
      return { crossed, smoothedMs };
    },

    smoothedMs: () => smoothedMs,

    settle(nowMs) {
      if (smoothedMs === null) return null;
      const told = crossing;
      crossing = null;
      const moved = writtenMs === null || Math.abs(smoothedMs - writtenMs) >= WRITE_GRAIN_MS;
      if (told !== null || (moved && nowMs - writtenAtMs >= WRITE_EVERY_MS)) {
        writeMeta(sql, NAME, JSON.stringify({ smoothedMs: Math.round(smoothedMs), reportedAtMs } satisfies Kept));
        writtenMs = smoothedMs;
        writtenAtMs = nowMs;
      }
      return told;
    },
  };
}
