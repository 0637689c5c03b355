import { fc, test } from "@fast-check/vitest";
import { describe, expect, it } from "vitest";
import { fullJitterDelayMs, parseRetryAfterMs } from "../../src/resilience/retry.ts";

const BACKOFF = { initialMs: 1_000, maxMs: 30_000 };

describe("a backoff", () => {
  it.each([
    { attempt: 1, ceilingMs: 1_000 },
    { attempt: 2, ceilingMs: 2_000 },
    { attempt: 5, ceilingMs: 16_000 },
    { attempt: 6, ceilingMs: 30_000 },
    { attempt: 5_000, ceilingMs: 30_000 },
  ])("after $attempt failures is at most $ceilingMs ms and may be nothing", ({ attempt, ceilingMs }) => {
    expect(fullJitterDelayMs(attempt, BACKOFF, 0)).toBe(0);
    expect(fullJitterDelayMs(attempt, BACKOFF, 1 - Number.EPSILON)).toBe(ceilingMs);
  });

  test.prop([fc.integer({ min: -5, max: 10_000 }), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })])(
    "is a whole number of milliseconds within its bounds",
    (attempt, random) => {
      const delayMs = fullJitterDelayMs(attempt, BACKOFF, random);
      expect(Number.isInteger(delayMs)).toBe(true);
      expect(delayMs).toBeGreaterThanOrEqual(0);
      expect(delayMs).toBeLessThanOrEqual(30_000);
    },
  );
});

describe("Retry-After", () => {
  const nowMs = Date.parse("2026-11-22T12:00:00Z");
  it.each([
    { header: null, delayMs: undefined },
    { header: "", delayMs: undefined },
    { header: "0", delayMs: 0 },
    { header: " 120 ", delayMs: 120_000 },
    { header: "-5", delayMs: undefined },
    { header: "1.5", delayMs: undefined },
    { header: "99999999999999999999", delayMs: undefined },
    { header: "soon", delayMs: undefined },
    { header: "Sun, 22 Nov 2026 12:00:30 GMT", delayMs: 30_000 },
    { header: "Sun, 22 Nov 2026 11:00:00 GMT", delayMs: 0 },
  ])("of $header is $delayMs ms", ({ header, delayMs }) => {
    expect(parseRetryAfterMs(header, nowMs)).toBe(delayMs);
  });
});
