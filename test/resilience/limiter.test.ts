import { describe, expect, test } from "vitest";
import { createLimiter } from "../../src/resilience/limiter.ts";

describe("the bound on calls in flight", () => {
  test("gives out so many slots and no more until one comes back", () => {
    const limiter = createLimiter({ maxInFlight: 2, leaseMs: 100 });
    const giveBack = limiter.acquire(0);
    expect(limiter.acquire(0)).not.toBeNull();
    expect(limiter.acquire(0)).toBeNull();
    giveBack?.();
    expect(limiter.inFlight(0)).toBe(1);
    expect(limiter.acquire(0)).not.toBeNull();
  });

  test("takes back a slot whose request was killed, and is not fooled when it comes back late", () => {
    const limiter = createLimiter({ maxInFlight: 1, leaseMs: 100 });
    const dead = limiter.acquire(0);
    expect(limiter.acquire(99)).toBeNull();
    expect(limiter.acquire(100)).not.toBeNull();
    dead?.();
    dead?.();
    expect(limiter.inFlight(100)).toBe(1);
    expect(limiter.acquire(100)).toBeNull();
  });
});
