/** One formula for every wait before a retry. */
import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { backoffMs } from "../../src/resilience/backoff.ts";

describe("the wait before a retry", () => {
  const spacing = { initialMs: 1_000, maxMs: 30_000, jitterRatio: 0.2 };

  test.each([
    [1, 1_000],
    [2, 2_000],
    [5, 16_000],
    [6, 30_000],
    [1_000, 30_000],
  ])("after failure %d is %d ms, 20 % to both sides", (failures, plainMs) => {
    expect(backoffMs(failures, spacing, 0)).toBe(plainMs * 0.8);
    expect(backoffMs(failures, spacing, 0.5)).toBe(plainMs);
    expect(backoffMs(failures, spacing, 0.999_999_999)).toBe(plainMs * 1.2);
  });

  property.prop([fc.integer({ min: 1, max: 10_000 }), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })])(
    "stays within its bounds",
    (failures, random) => {
      const delayMs = backoffMs(failures, spacing, random);
      expect(delayMs).toBeGreaterThanOrEqual(800);
      expect(delayMs).toBeLessThanOrEqual(36_000);
    },
  );

  test("with full jitter is from a tenth of the step up to the whole of it", () => {
    const full = { initialMs: 1_000, maxMs: 30_000, jitterRatio: "full" } as const;
    expect([backoffMs(1, full, 0), backoffMs(3, full, 0.5), backoffMs(9, full, 0.999_999_999)]).toEqual([
      100, 2_200, 30_000,
    ]);
  });
});
