import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { createDrift, type Crossing, type Drift } from "../../../src/gate/admission/clock-drift.ts";
import { migrate } from "../../../src/gate/storage/schema.ts";

const HOUR_MS = 3_600_000;
let objects = 0;

/** A drift on real storage; `anew` reads back what is on disk, as a gate does that wakes. */
function inGate<T>(work: (state: { drift: Drift; anew: () => Drift; writes: () => number }) => T): Promise<T> {
  return runInDurableObject(env.GATE.getByName(`drift-${(objects += 1)}`), (_gate, state) => {
    migrate(state.storage);
    const { sql } = state.storage;
    let writes = 0;
    const counted = new Proxy(sql, {
      get: (target, name) =>
        name === "exec"
          ? (...args: Parameters<SqlStorage["exec"]>) => {
              if (args[0].startsWith("INSERT")) writes += 1;
              return target.exec(...args);
            }
          : Reflect.get(target, name),
    });
    return work({ drift: createDrift(counted, 200), anew: () => createDrift(sql, 200), writes: () => writes });
  });
}

/** Takes requests a second apart, each in a commit of its own. */
function requests(drift: Drift, skewsMs: number[], fromMs = 0): Crossing[] {
  return skewsMs.flatMap((skewMs, second) => {
    const nowMs = fromMs + second * 1_000;
    drift.observe(skewMs, nowMs);
    return drift.settle(nowMs) ?? [];
  });
}

const many = (n: number, skewMs: number): number[] => Array.from({ length: n }, () => skewMs);

describe("an agent's drift", () => {
  test("is not moved past the line by one late request", async () => {
    expect(await inGate(({ drift }) => requests(drift, [...many(20, 0), 299_000, ...many(5, 0)]))).toEqual([]);
  });

  test.each([
    ["ahead", 1],
    ["behind", -1],
  ])("shows a trend (%s) before the first request is refused for it", async (_, sign) => {
    // A clock that loses ten seconds a request: refused at 300.
    const skews = Array.from({ length: 31 }, (__, n) => sign * n * 10_000);
    const [first] = await inGate(({ drift }) => requests(drift, skews));
    expect(Math.abs(first?.smoothedMs ?? 0)).toBeGreaterThan(200_000);
    expect(Math.abs(first?.skewMs ?? Infinity)).toBeLessThan(300_000);
  });

  test("is told at most once an hour, and as long as it lasts", async () => {
    const told = await inGate(({ drift }) => [
      requests(drift, many(600, 250_000)).length,
      requests(drift, many(10, 250_000), HOUR_MS - 10_000).length,
      requests(drift, many(10, 250_000), HOUR_MS).length,
    ]);
    expect(told).toEqual([1, 0, 1]);
  });

  test("is told no second time because the gate slept", async () => {
    const told = await inGate(({ drift, anew }) => [
      requests(drift, many(3, 250_000)).length,
      requests(anew(), many(3, 250_000), 60_000).length,
    ]);
    expect(told).toEqual([1, 0]);
  });

  test("outlives the gate but for the last minute, and is written once a minute at most", async () => {
    const [written, before, after] = await inGate(({ drift, anew, writes }) => {
      requests(
        drift,
        Array.from({ length: 600 }, (_, n) => n * 100),
      );
      return [writes(), drift.smoothedMs(), anew().smoothedMs()];
    });
    expect(written).toBeGreaterThan(1);
    expect(written).toBeLessThanOrEqual(10);
    expect(Math.abs((before ?? 0) - (after ?? Infinity))).toBeLessThan(7_000);
  });

  test("costs no write while the clock is right", async () => {
    const written = await inGate(({ drift, writes }) => {
      requests(
        drift,
        Array.from({ length: 600 }, (_, n) => -(n % 10) * 100),
      );
      return writes();
    });
    expect(written).toBeLessThanOrEqual(1);
  });
});
