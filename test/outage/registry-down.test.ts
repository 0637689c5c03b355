import { afterEach, describe, expect, test, vi } from "vitest";
import { FAULTS, MINUTE_MS, newHarness, SECOND_MS, tallied } from "./harness.ts";

// Thousands of requests, whose time on a busy machine is not what this is about.
vi.setConfig({ testTimeout: 90_000 });
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

describe("the registry is down for ten minutes", () => {
  test("20 cached agents send each minute: 200 of 200 are 202, none 503, and a warning a minute at most says so", async () => {
    const harness = await newHarness();
    const isolate = harness.newIsolate();
    const bob = await harness.newAgent();
    const agents = await Promise.all(Array.from({ length: 20 }, () => harness.newAgent()));
    await Promise.all(agents.map((agent) => harness.pair(agent, bob)));
    expect(tallied(await Promise.all(agents.map((agent) => isolate.send(agent, bob))))).toEqual({ 202: 20 });

    harness.registry.fail(FAULTS.down);
    harness.registry.forgetCalls();
    const answers: string[] = [];
    for (let minute = 1; minute <= 10; minute++) {
      harness.pass(MINUTE_MS);
      // oxlint-disable-next-line no-await-in-loop -- one minute after the other
      answers.push(...(await Promise.all(agents.map((agent) => isolate.send(agent, bob)))));
    }
    expect(tallied(answers)).toEqual({ 202: 200 });

    const warnings = harness.linesOf("dependency.served_stale");
    const perDependency = tallied(warnings.map(({ dependency }) => String(dependency)));
    expect(perDependency["access"]).toBeGreaterThanOrEqual(1);
    expect(Math.max(...Object.values(perDependency))).toBeLessThanOrEqual(11);
    expect(warnings.every(({ ageMs, level }) => level === "warn" && Number(ageMs) > 0)).toBe(true);
    expect(
      harness.linesOf("breaker.changed").filter(({ dependency, to }) => dependency === "access" && to === "open"),
    ).not.toEqual([]);
    // Five failures open the breaker, eight more may be out; then a probe each 30 s at most.
    expect(harness.registry.calls.access).toBeLessThanOrEqual(13 + 20);
  });

  test("20 agents that it knew are served by an isolate that starts five minutes into it: 20 of 20 are 202", async () => {
    const harness = await newHarness();
    const bob = await harness.newAgent();
    const agents = await Promise.all(Array.from({ length: 20 }, () => harness.newAgent()));
    await Promise.all(agents.map((agent) => harness.pair(agent, bob)));
    const before = harness.newIsolate();
    await Promise.all(agents.map((agent) => before.send(agent, bob)));
    harness.registry.fail(FAULTS.down);
    harness.pass(5 * MINUTE_MS);

    const started = harness.newIsolate();
    expect(tallied(await Promise.all(agents.map((agent) => started.send(agent, bob))))).toEqual({ 202: 20 });
    const ready = await started.ask(new Request("https://proxy.example.com/ready"));
    expect(ready.status).toBe(200);
    expect(await ready.json()).toMatchObject({ dependencies: { keys: { usable: true }, crl: { usable: true } } });

    const stranger = await harness.newAgent();
    await harness.pair(stranger, bob);
    expect(await started.send(stranger, bob)).toBe("503 PROXY_AUTH_DEPENDENCY_UNAVAILABLE");
  });

  test("past the 15 minutes of an access validation, agents are refused with 503, not let in", async () => {
    const harness = await newHarness();
    const isolate = harness.newIsolate();
    const [alice, bob] = [await harness.newAgent(), await harness.newAgent()];
    await harness.pair(alice, bob);
    expect(await isolate.send(alice, bob)).toBe("202");
    harness.registry.fail(FAULTS.down);
    harness.pass(15 * MINUTE_MS - SECOND_MS);
    expect(await isolate.send(alice, bob)).toBe("202");
    harness.pass(2 * SECOND_MS);
    expect(await isolate.send(alice, bob)).toBe("503 PROXY_AUTH_DEPENDENCY_UNAVAILABLE");
    harness.registry.fail(null);
    harness.pass(31 * SECOND_MS);
    expect(await isolate.send(alice, bob)).toBe("202");
  });
});
