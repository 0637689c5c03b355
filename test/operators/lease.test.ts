/** How long a call of an operator's key may go on: as long as somebody has read, a moment ago, that the key is in force. */
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Authority } from "../../src/authority/authority.ts";
import { ROOT } from "../../src/authority/operator.ts";
import { LEASE_MS, LEASES_OVER_MS, underOperator } from "../../src/operators/lease.ts";

const ALICE = { ...ROOT, name: "alice", id: "01K00000000000000000000000", isRevocable: true };

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** A call that goes on until it is let go, and what its readings are answered with. */
function call(isInForce: () => Promise<boolean>) {
  let authority: Authority | null = null;
  let finish: () => void = () => undefined;
  const done = underOperator(ALICE, { db: env.DB, now: Date.now, isInForce }, async (held) => {
    authority = held;
    await new Promise<void>((resolve) => {
      finish = resolve;
    });
    held.assertCurrent();
    return "done";
  });
  return { done, finish: () => finish(), held: () => authority! };
}

describe("a call of an operator's key", () => {
  test("may go on for as long as the key is in force, and reads no more when it is done", async () => {
    const isInForce = vi.fn(async () => true);
    const { done, finish, held } = call(isInForce);
    await vi.advanceTimersByTimeAsync(10 * LEASE_MS);
    held().assertCurrent();
    finish();
    await expect(done).resolves.toBe("done");
    const reads = isInForce.mock.calls.length;
    await vi.advanceTimersByTimeAsync(10 * LEASE_MS);
    expect(isInForce).toHaveBeenCalledTimes(reads);
  });

  test("does nothing where the key has ended", async () => {
    const run = vi.fn(async () => "done");
    const deps = { db: env.DB, now: Date.now, isInForce: async () => false };
    await expect(underOperator(ALICE, deps, run)).rejects.toMatchObject({ code: "PROXY_AUTH_REVOKED" });
    expect(run).not.toHaveBeenCalled();
  });

  test("has no effect any more when a revocation answers, whatever its own readings meet with", async () => {
    let isRevoked = false;
    const { done, finish, held } = call(async () => {
      if (isRevoked) throw new Error("D1 is out of reach");
      return true;
    });
    await vi.advanceTimersByTimeAsync(100);
    held().assertCurrent();
    isRevoked = true;
    await vi.advanceTimersByTimeAsync(LEASES_OVER_MS);
    expect(() => held().assertCurrent()).toThrow("cannot be judged at the moment");
    finish();
    await expect(done).rejects.toMatchObject({ code: "PROXY_AUTH_DEPENDENCY_UNAVAILABLE" });
  });

  test("holds from the moment before a reading: one that hangs prolongs nothing", async () => {
    let answer: (isInForce: boolean) => void = () => undefined;
    let reads = 0;
    const { done, finish, held } = call(() => {
      reads += 1;
      return reads === 1 ? Promise.resolve(true) : new Promise((resolve) => (answer = resolve));
    });
    await vi.advanceTimersByTimeAsync(LEASE_MS + 1);
    expect(() => held().assertCurrent()).toThrow();
    answer(true);
    await vi.advanceTimersByTimeAsync(0);
    held().assertCurrent();
    finish();
    await done;
  });

  test("that has ended its own key still answers", async () => {
    let isRevoked = false;
    const { done, finish, held } = call(async () => !isRevoked);
    await vi.advanceTimersByTimeAsync(0);
    held().revokedItself(1);
    isRevoked = true;
    await vi.advanceTimersByTimeAsync(LEASES_OVER_MS);
    finish();
    await expect(done).resolves.toBe("done");
  });
});
