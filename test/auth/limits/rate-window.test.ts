import { expect, test } from "vitest";
import { createRateWindow } from "../../../src/auth/limits/rate-window.ts";

test("rate window: so many of a name in a minute, and others are not counted with it", () => {
  const window = createRateWindow(2);
  expect([0, 10, 20, 30].map((nowMs) => window.waitMs("a", nowMs))).toEqual([0, 0, 59_980, 59_970]);
  expect(window.waitMs("b", 30)).toBe(0);
  expect(window.waitMs("a", 60_000)).toBe(0);
});

test("rate window: a clock that was set back begins a new minute", () => {
  const window = createRateWindow(1);
  expect([window.waitMs("a", 1_000_000), window.waitMs("a", 5), window.waitMs("a", 6)]).toEqual([0, 0, 59_999]);
});

test("rate window: 0 is no limit", () => {
  const window = createRateWindow(0);
  expect(Array.from({ length: 5 }, () => window.waitMs("a", 0))).toEqual([0, 0, 0, 0, 0]);
});
