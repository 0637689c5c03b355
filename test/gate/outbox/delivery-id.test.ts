import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { createDeliveryIds } from "../../../src/gate/outbox/delivery-id.ts";
import { retryDelayMs } from "../../../src/resilience/backoff.ts";
import { isUlid } from "../../../src/wire/ulid.ts";
import { START_MS } from "../../support/gate.ts";

describe("delivery ids", () => {
  property.prop([fc.array(fc.integer({ min: -5_000, max: 5_000 }), { maxLength: 200 })])(
    "are ULIDs that only rise, even when the clock goes back",
    (steps) => {
      const nextId = createDeliveryIds(null);
      let nowMs = START_MS;
      let previous = "";
      for (const step of steps) {
        nowMs += step;
        const id = nextId(nowMs);
        expect(isUlid(id)).toBe(true);
        expect(id > previous).toBe(true);
        previous = id;
      }
    },
  );

  test("go on above the last one on disk", () => {
    const last = createDeliveryIds(null)(START_MS + 60_000);
    expect(createDeliveryIds(last)(START_MS) > last).toBe(true);
  });

  test("carry over like numbers", () => {
    expect(createDeliveryIds("7ZZZZZZZZZ0000000000000ZZZ")(START_MS)).toBe("7ZZZZZZZZZ0000000000001000");
  });
});

describe("the delay before a retry", () => {
  const spacing = { initialMs: 1_000, maxMs: 30_000, jitterRatio: 0.2 };

  test.each([
    [1, 1_000],
    [2, 2_000],
    [5, 16_000],
    [6, 30_000],
    [1_000, 30_000],
  ])("after failure %d is %d ms, 20 % to both sides", (failures, plainMs) => {
    expect(retryDelayMs(failures, spacing, 0)).toBe(plainMs * 0.8);
    expect(retryDelayMs(failures, spacing, 0.5)).toBe(plainMs);
    expect(retryDelayMs(failures, spacing, 0.999_999_999)).toBe(plainMs * 1.2);
  });

  property.prop([fc.integer({ min: 1, max: 10_000 }), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })])(
    "stays within its bounds",
    (failures, random) => {
      const delayMs = retryDelayMs(failures, spacing, random);
      expect(delayMs).toBeGreaterThanOrEqual(800);
      expect(delayMs).toBeLessThanOrEqual(36_000);
    },
  );
});
