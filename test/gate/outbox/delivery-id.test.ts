import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { createDeliveryIds } from "../../../src/gate/outbox/delivery-id.ts";
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
