import { describe, expect, test } from "vitest";
import { parseRetryAfterMs } from "../../src/resilience/retry-after.ts";

describe("Retry-After", () => {
  const nowMs = Date.parse("2026-11-22T12:00:00Z");
  test.each([
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
