import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { createDeliveryIds } from "../../../src/gate/outbox/delivery-id.ts";
import { isUlid } from "../../../src/wire/ulid.ts";
import { START_MS } from "../../support/gate.ts";

const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const toHex = (id: string): string => {
  let value = 0n;
  for (const char of id) value = value * 32n + BigInt(ALPHABET.indexOf(char));
  return value.toString(16);
};

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
    const id = createDeliveryIds("7YZZZZZZZZZZZZZZZZZZZZZZZZ")(START_MS);
    expect(id.slice(0, 12)).toBe("7Z0000000000");
  });

  test("of one burst cannot be guessed from each other", () => {
    const nextId = createDeliveryIds(null);
    const ids = Array.from({ length: 1_000 }, () => nextId(START_MS)).map((id) => BigInt(`0x${toHex(id)}`));
    const steps = ids.slice(1).map((id, index) => id - ids[index]!);
    // Sixty-four bits each: one below 2^32 would be a chance of one in four million.
    expect(steps.filter((step) => step < 2n ** 32n)).toEqual([]);
    expect(new Set(steps).size).toBe(999);
  });
});
