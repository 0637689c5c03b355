/** A round ends, whatever its calls do. */
import { describe, expect, test } from "vitest";
import { DeadlineExceeded } from "../../src/resilience/deadline.ts";
import { type Ask, runRound, TargetFailed } from "../../src/resilience/round.ts";

const LIMITS = { calls: 100, parallel: 4, durationMs: 20_000, callTimeoutMs: 20 };
const never = (): Promise<never> => new Promise(() => {});
const numbers = (count: number): number[] => Array.from({ length: count }, (_, at) => at);

/** Runs a round over items; `failures` are what `failed` was given. */
async function roundOf(
  items: readonly number[],
  run: (item: number, ask: Ask) => Promise<void>,
  { limits = LIMITS, callsPerItem = 1, now = (): number => 0 } = {},
) {
  const failures: [number, unknown][] = [];
  const report = await runRound(items, limits, {
    callsPerItem,
    run,
    failed: async (item, error) => void failures.push([item, error]),
    now,
  });
  return { report, failures };
}

describe("a round", () => {
  test("does every item once, in their order, so many at once", async () => {
    const begun: number[] = [];
    let [atOnce, most] = [0, 0];
    const { report } = await roundOf(numbers(10), (item, ask) =>
      ask(`gate ${item}`, async () => {
        begun.push(item);
        most = Math.max(most, (atOnce += 1));
        await Promise.resolve();
        atOnce -= 1;
      }),
    );
    expect(report).toEqual({ done: 10, failed: 0, left: 0 });
    expect(begun).toEqual(numbers(10));
    expect(most).toBe(4);
  });

  test("makes no more calls than it may, and says what is left", async () => {
    let calls = 0;
    const twice = async (item: number, ask: Ask): Promise<void> => {
      await ask(`${item} a`, async () => void (calls += 1));
      await ask(`${item} b`, async () => void (calls += 1));
    };
    const { report } = await roundOf(numbers(10), twice, { limits: { ...LIMITS, calls: 7 }, callsPerItem: 2 });
    expect(report).toEqual({ done: 3, failed: 0, left: 7 });
    expect(calls).toBe(6);
  });

  test("begins nothing after its time", async () => {
    let nowMs = 0;
    const { report } = await roundOf(numbers(10), async () => void (nowMs += 8_000), { now: () => nowMs });
    expect(report).toEqual({ done: 3, failed: 0, left: 7 });
  });

  test("fails a call that hangs at its deadline, and asks that target no more", async () => {
    let asked = 0;
    const { report, failures } = await roundOf(numbers(20), (item, ask) =>
      item === 19
        ? ask("another", async () => {})
        : ask("hanging", () => {
            asked += 1;
            return never();
          }),
    );
    expect(report).toEqual({ done: 1, failed: 19, left: 0 });
    expect(asked).toBe(4);
    const [first] = failures[0] === undefined ? [] : [failures[0][1]];
    expect(first).toBeInstanceOf(DeadlineExceeded);
    expect(failures.filter(([, error]) => error instanceof TargetFailed)).toHaveLength(15);
  });
});
