import { afterEach, describe, expect, test, vi } from "vitest";
import { type Document, MINUTE_MS, newHarness, tallied } from "./harness.ts";
import { eventually } from "../support/gate.ts";

// Thousands of requests, whose time on a busy machine is not what this is about.
vi.setConfig({ testTimeout: 90_000 });
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** An answer that a test gives when it likes. */
function held() {
  const waiting: (() => void)[] = [];
  return {
    fault: () =>
      new Promise<Response>((resolve) => void waiting.push(() => resolve(new Response("broken", { status: 500 })))),
    release: () => {
      for (const answer of waiting.splice(0)) answer();
    },
  };
}

describe("1 000 concurrent requests at the moment a cache expires", () => {
  test.each<[Document, number, number, number]>([
    ["keys", 60 * MINUTE_MS, 2, 0],
    ["crl", 5 * MINUTE_MS, 2, 0],
    // A validation is the agent's own: each of the four has one request that renews it, and the other 249 pass it by.
    ["access", MINUTE_MS, 4, 4],
  ])(
    "%s after %i ms: at most %i refreshes, and %i requests of 1 000 wait for one",
    async (document, ageMs, refreshesMost, waitingMost) => {
      const harness = await newHarness();
      const isolate = harness.newIsolate();
      const bob = await harness.newAgent();
      // Four agents, since one may send 600 a minute; each has one validation to renew.
      const agents = await Promise.all(Array.from({ length: 4 }, () => harness.newAgent()));
      await Promise.all(agents.map((agent) => harness.pair(agent, bob)));
      // Everything else is fresh at that moment: only this cache has expired.
      await Promise.all(agents.map((agent) => isolate.send(agent, bob)));
      harness.pass(ageMs - 1_000);
      if (document !== "access") {
        await Promise.all(agents.map((agent) => isolate.send(agent, bob)));
        await eventually(() => expect(Object.values(harness.registry.inFlight)).toEqual([0, 0, 0]));
      }
      harness.pass(1_000);
      const { fault, release } = held();
      harness.registry.fail(fault, [document]);
      harness.registry.forgetCalls();

      let answered = 0;
      const requests = Array.from({ length: 1_000 }, async (_, n) => {
        const answer = await isolate.send(agents[n % 4]!, bob);
        answered += 1;
        return answer;
      });
      await eventually(() => expect(answered).toBeGreaterThanOrEqual(1_000 - waitingMost));
      expect(harness.registry.calls[document]).toBeLessThanOrEqual(refreshesMost);
      expect(harness.registry.calls[document]).toBeGreaterThanOrEqual(1);
      release();
      expect(tallied(await Promise.all(requests))).toEqual({ 202: 1_000 });
    },
  );
});
