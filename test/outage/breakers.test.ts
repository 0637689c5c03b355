import { afterEach, describe, expect, test, vi } from "vitest";
import { type Document, FAULTS, newHarness, SECOND_MS, tallied, type Harness } from "./harness.ts";

// Thousands of requests, whose time on a busy machine is not what this is about.
vi.setConfig({ testTimeout: 90_000 });
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const UNAVAILABLE = "503 PROXY_AUTH_DEPENDENCY_UNAVAILABLE";
const transitions = (harness: Harness, document: string): string[] =>
  harness
    .linesOf("breaker.changed")
    .flatMap(({ dependency, from, to }) => (dependency === document ? [`${String(from)} → ${String(to)}`] : []));

describe("the registry answers 500 to 1 000 requests at once", () => {
  test.each<[Document]>([["keys"], ["crl"], ["access"]])(
    "for %s: 13 calls at most, 8 at a time at most, the breaker opens once, one probe per 30 s, and one probe is the recovery",
    async (document) => {
      const harness = await newHarness();
      const isolate = harness.newIsolate();
      const [alice, bob] = [await harness.newAgent(), await harness.newAgent()];
      await harness.pair(alice, bob);
      harness.registry.fail(FAULTS[500], [document]);
      /** Each with an access token of its own, so that none is answered by what another has learned. */
      let tokens = 0;
      const ask = (): Promise<string> =>
        isolate.send(alice, bob, { headers: { "X-Claw-Agent-Access": `spa_${(tokens += 1)}` } });

      const answers = await Promise.all(Array.from({ length: 1_000 }, ask));
      expect(tallied(answers)).toEqual({ [UNAVAILABLE]: 1_000 });
      expect(harness.registry.calls[document]).toBeGreaterThanOrEqual(5);
      expect(harness.registry.calls[document]).toBeLessThanOrEqual(13);
      expect(harness.registry.mostInFlight[document]).toBeLessThanOrEqual(8);
      expect(transitions(harness, document)).toEqual(["closed → open"]);

      harness.registry.forgetCalls();
      for (let second = 5; second <= 300; second += 5) {
        harness.pass(5 * SECOND_MS);
        // oxlint-disable-next-line no-await-in-loop -- five seconds after the others
        expect(tallied(await Promise.all([ask(), ask(), ask()]))).toEqual({ [UNAVAILABLE]: 3 });
      }
      expect(harness.registry.calls[document]).toBeLessThanOrEqual(10);
      expect(harness.registry.calls[document]).toBeGreaterThanOrEqual(9);

      harness.registry.fail(null);
      harness.registry.forgetCalls();
      harness.pass(30 * SECOND_MS);
      expect(await ask()).toBe("202");
      expect(harness.registry.calls[document]).toBe(1);
      expect(transitions(harness, document).slice(-2)).toEqual(["open → half-open", "half-open → closed"]);
      expect(await ask()).toBe("202");
    },
  );

  test("a 429 with Retry-After: 120 is left alone for 120 s", async () => {
    const harness = await newHarness();
    const isolate = harness.newIsolate();
    const [alice, bob] = [await harness.newAgent(), await harness.newAgent()];
    await harness.pair(alice, bob);
    harness.registry.fail(() => new Response(null, { status: 429, headers: { "Retry-After": "120" } }));
    expect(await isolate.send(alice, bob)).toBe(UNAVAILABLE);
    harness.registry.fail(null);
    harness.registry.forgetCalls();
    harness.pass(119 * SECOND_MS);
    expect(await isolate.send(alice, bob)).toBe(UNAVAILABLE);
    expect(harness.registry.calls.keys).toBe(0);
    harness.pass(2 * SECOND_MS);
    expect(await isolate.send(alice, bob)).toBe("202");
  });
});
