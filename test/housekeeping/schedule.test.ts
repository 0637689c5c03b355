import { describe, expect, test } from "vitest";
import { isDue, type JobOutcome, ROUND_MS, type Turn, turnBegun, turnEnded } from "../../src/housekeeping/schedule.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** How many rounds pass from each turn to the next, with these outcomes; `null` is a turn that never ended. */
function roundsBetween(outcomes: (JobOutcome | null)[], everyMs: number): number[] {
  let nowMs = 1_000_000_000;
  let last: Turn | undefined;
  return outcomes.map((outcome) => {
    expect(isDue(last, everyMs, nowMs)).toBe(true);
    const begun = turnBegun(last, nowMs);
    last = outcome === null ? begun : turnEnded(begun, outcome);
    let rounds = 0;
    do {
      nowMs += ROUND_MS;
      rounds += 1;
    } while (!isDue(last, everyMs, nowMs));
    return rounds;
  });
}

describe("a job of housekeeping", () => {
  test("that was never done is due", () => {
    expect(isDue(undefined, HOUR_MS, 0)).toBe(true);
  });

  test("comes again in its own rhythm once it is done", () => {
    expect(roundsBetween(["done", "done"], HOUR_MS)).toEqual([240, 240]);
  });

  test("goes on in the next round where more is left", () => {
    expect(roundsBetween(["more", "more", "done"], HOUR_MS)).toEqual([1, 1, 240]);
  });

  test("is tried again in the next round after a failure, and then less often, but no less than every 5 minutes", () => {
    const failures = Array.from({ length: 8 }, () => "failed" as const);
    expect(roundsBetween(failures, DAY_MS)).toEqual([1, 1, 2, 4, 8, 16, 20, 20]);
  });

  test("is tried no less often than its own rhythm while it fails", () => {
    expect(roundsBetween(["failed", "failed", "failed", "failed"], 2 * ROUND_MS)).toEqual([1, 1, 2, 2]);
  });

  test("begins anew after a success", () => {
    expect(roundsBetween(["failed", "failed", "failed", "done", "failed"], HOUR_MS)).toEqual([1, 1, 2, 240, 1]);
  });

  test("that took its object down with it counts as failed", () => {
    expect(roundsBetween([null, null, null], HOUR_MS)).toEqual([1, 1, 2]);
  });
});
