import { expect, test } from "vitest";
import { createLogLimit } from "../../src/telemetry/log-limit.ts";

test("log limit: one line a minute for each key, with a count of those that were left out", () => {
  const limit = createLogLimit();
  expect([0, 1, 59_999, 60_000, 60_001].map((nowMs) => limit.due("full", nowMs))).toEqual([0, null, null, 2, null]);
  expect(limit.due("other", 60_001)).toBe(0);
  expect(limit.due("full", 200_000)).toBe(1);
});

test("log limit: a clock that was set back silences nothing", () => {
  const limit = createLogLimit();
  expect(limit.due("full", 1_000_000)).toBe(0);
  expect(limit.due("full", 5)).toBe(0);
  expect(limit.due("full", 6)).toBeNull();
});

test("log limit: holds a bounded number of keys", () => {
  const limit = createLogLimit(60_000, 2);
  expect(["a", "b", "c"].map((key) => limit.due(key, 0))).toEqual([0, 0, 0]);
  expect([limit.due("c", 1), limit.due("b", 1), limit.due("a", 1)]).toEqual([null, null, 0]);
});
