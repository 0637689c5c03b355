import { afterEach, describe, expect, test, vi } from "vitest";
import { type Document, FAULTS, newTown, SECOND_MS, tallied, type Town } from "./harness.ts";

// Thousands of requests, whose time on a busy machine is not what this is about.
vi.setConfig({ testTimeout: 90_000 });
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const UNAVAILABLE = "503 PROXY_AUTH_DEPENDENCY_UNAVAILABLE";
const transitions = (town: Town, document: string): string[] =>
  town
    .linesOf("breaker.changed")
    .flatMap(({ dependency, from, to }) => (dependency === document ? [`${String(from)} → ${String(to)}`] : []));

describe("the registry answers 500 to 1 000 requests at once", () => {
  test.each<[Document]>([["keys"], ["crl"], ["access"]])(
    "for %s: 13 calls at most, 8 at a time at most, the breaker opens once, one probe per 30 s, and one probe is the recovery",
    async (document) => {
      const town = await newTown();
      const isolate = town.newIsolate();
      const [alice, bob] = [await town.newAgent(), await town.newAgent()];
      await town.pair(alice, bob);
      town.registry.fail(FAULTS[500], [document]);
      /** Each with an access token of its own, so that none is answered by what another has learned. */
      let tokens = 0;
      const ask = (): Promise<string> =>
        isolate.send(alice, bob, { headers: { "X-Claw-Agent-Access": `spa_${(tokens += 1)}` } });

      const answers = await Promise.all(Array.from({ length: 1_000 }, ask));
      expect(tallied(answers)).toEqual({ [UNAVAILABLE]: 1_000 });
      expect(town.registry.calls[document]).toBeGreaterThanOrEqual(5);
      expect(town.registry.calls[document]).toBeLessThanOrEqual(13);
      expect(town.registry.mostInFlight[document]).toBeLessThanOrEqual(8);
      expect(transitions(town, document)).toEqual(["closed → open"]);

      town.registry.forgetCalls();
      for (let second = 5; second <= 300; second += 5) {
        town.pass(5 * SECOND_MS);
        // oxlint-disable-next-line no-await-in-loop -- five seconds after the others
        expect(tallied(await Promise.all([ask(), ask(), ask()]))).toEqual({ [UNAVAILABLE]: 3 });
      }
      expect(town.registry.calls[document]).toBeLessThanOrEqual(10);
      expect(town.registry.calls[document]).toBeGreaterThanOrEqual(9);

      town.registry.fail(null);
      town.registry.forgetCalls();
      town.pass(30 * SECOND_MS);
      expect(await ask()).toBe("202");
      expect(town.registry.calls[document]).toBe(1);
      expect(transitions(town, document).slice(-2)).toEqual(["open → half-open", "half-open → closed"]);
      expect(await ask()).toBe("202");
    },
  );

  test("a 429 with Retry-After: 120 is left alone for 120 s", async () => {
    const town = await newTown();
    const isolate = town.newIsolate();
    const [alice, bob] = [await town.newAgent(), await town.newAgent()];
    await town.pair(alice, bob);
    town.registry.fail(() => new Response(null, { status: 429, headers: { "Retry-After": "120" } }));
    expect(await isolate.send(alice, bob)).toBe(UNAVAILABLE);
    town.registry.fail(null);
    town.registry.forgetCalls();
    town.pass(119 * SECOND_MS);
    expect(await isolate.send(alice, bob)).toBe(UNAVAILABLE);
    expect(town.registry.calls.keys).toBe(0);
    town.pass(2 * SECOND_MS);
    expect(await isolate.send(alice, bob)).toBe("202");
  });
});
