import { fc, test as property } from "@fast-check/vitest";
import { expect, test } from "vitest";
import { createBodyBudget } from "../../../src/auth/limits/body-budget.ts";

const MIB = 1_048_576;

test("body budget: one address holds a fifth of the whole at most", () => {
  const budget = createBodyBudget(50 * MIB);
  const shares = Array.from({ length: 150 }, () => budget.take("192.0.2.1", MIB, 0));
  expect(shares.filter((share) => share !== null)).toHaveLength(10);
  expect(budget.heldBytes("192.0.2.1")).toBe(10 * MIB);
  shares[0]?.release();
  shares[0]?.release();
  expect(budget.heldBytes()).toBe(9 * MIB);
  expect(budget.take("192.0.2.1", MIB, 0)).not.toBeNull();
});

property.prop([fc.integer({ min: 1, max: 12 })])(
  "body budget: however much a dozen others hold, a further address finds room for a body",
  (greedy) => {
    const budget = createBodyBudget();
    for (let address = 0; address < greedy; address += 1) {
      while (budget.take(`greedy ${address}`, MIB, 0) !== null);
    }
    expect(budget.heldBytes()).toBeLessThan(64 * MIB);
    expect(budget.take("modest", MIB, 0)).not.toBeNull();
  },
);

test("body budget: the room of a request that was cut off comes back by itself", () => {
  const budget = createBodyBudget(MIB);
  const lost = budget.take(null, MIB, 0);
  expect(budget.take(null, MIB, 59_999)).toBeNull();
  expect(budget.take(null, MIB, 60_000)).not.toBeNull();
  expect(lost?.grow(1, 60_000)).toBe(false);
  lost?.release();
  expect(budget.heldBytes("unknown")).toBe(MIB);
});

test("body budget: a body of unknown length grows within the share of its address", () => {
  const budget = createBodyBudget(4 * MIB);
  const share = budget.take("192.0.2.1", 0, 0);
  expect(budget.heldBytes()).toBe(1_024);
  expect(share?.grow(MIB - 1_024, 0)).toBe(true);
  expect(share?.grow(1, 0)).toBe(false);
  expect(budget.take("192.0.2.2", MIB, 0)).not.toBeNull();
});
