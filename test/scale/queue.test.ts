import { describe, expect, test } from "vitest";
import { createRandom } from "../faults/random.ts";
import { simulate } from "./queue.ts";

const alone = { messageMs: 1, commitMs: 3, isGrouped: false };
const grouped = { ...alone, isGrouped: true };
const run = (service: typeof alone, perSecond: number, burst = 1) =>
  simulate(service, { perSecond, burst }, 200_000, createRandom(7));

describe("the model of a gate", () => {
  test("takes a message's own time and nothing more while nobody else comes", () => {
    expect(run(alone, 0.5).p50Ms).toBeCloseTo(4, 5);
  });

  test("waits as queueing theory says: at half load, a quarter of the service time on average and none at the median or little", () => {
    const { busy, p50Ms, p99Ms } = run(alone, 125);
    expect(busy).toBeCloseTo(0.5, 1);
    expect(p50Ms).toBeGreaterThanOrEqual(4);
    expect(p99Ms).toBeGreaterThan(8);
    expect(p99Ms).toBeLessThan(24);
  });

  test("does not hold beyond what one thread can do, and says so", () => {
    expect(run(alone, 260).isStable).toBe(false);
    expect(run(alone, 230).isStable).toBe(true);
  });

  test("does more where a commit is shared, and then many share one", () => {
    const { isStable, perCommit } = run(grouped, 800);
    expect(isStable).toBe(true);
    expect(perCommit).toBeGreaterThan(5);
  });

  test("has bursts in which everybody comes at once", () => {
    expect(run(grouped, 10, 20).perCommit).toBeGreaterThan(10);
  });
});
