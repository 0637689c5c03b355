import { env } from "cloudflare:workers";
import { afterEach, describe, expect, test, vi } from "vitest";
import { MINUTE_MS, newHarness, SECOND_MS, tallied } from "./harness.ts";

// Thousands of requests, whose time on a busy machine is not what this is about.
vi.setConfig({ testTimeout: 90_000 });
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const broken = (): never => {
  throw new Error("D1_ERROR: the database is out of reach");
};
const never = (): Promise<never> => new Promise(() => {});
const statement = { bind: () => statement, first: never, all: never, run: never, raw: never };

/** A database that can be made to fail, or to hang. */
function database() {
  const state = { fault: null as "fails" | "hangs" | null, reads: 0 };
  const open = (): D1Database => {
    state.reads += 1;
    if (state.fault === "fails") return { prepare: broken, batch: broken } as unknown as D1Database;
    if (state.fault === "hangs") return { prepare: () => statement, batch: never } as unknown as D1Database;
    return env.DB;
  };
  const DB = {
    prepare: (sql: string) => open().prepare(sql),
    batch: (statements: D1PreparedStatement[]) => open().batch(statements),
    withSession: (constraint?: string) => (state.fault === null ? env.DB.withSession(constraint) : open()),
  };
  return { state, DB };
}

describe("D1 fails", () => {
  test("for 15 minutes 10 pairs that are remembered send each minute: 140 of 140 are 202; unknown pairs are 403; nothing is 500", async () => {
    const harness = await newHarness();
    const { state, DB } = database();
    const isolate = harness.newIsolate({ DB });
    const bob = await harness.newAgent();
    const agents = await Promise.all(Array.from({ length: 10 }, () => harness.newAgent()));
    await Promise.all(agents.map((agent) => harness.pair(agent, bob)));
    expect(tallied(await Promise.all(agents.map((agent) => isolate.send(agent, bob))))).toEqual({ 202: 10 });
    const stranger = await harness.newAgent();
    await harness.pair(stranger, bob);

    state.fault = "fails";
    const [known, unknown]: [string[], string[]] = [[], []];
    for (let minute = 1; minute <= 14; minute++) {
      harness.pass(MINUTE_MS);
      // oxlint-disable-next-line no-await-in-loop -- one minute after the other
      known.push(...(await Promise.all(agents.map((agent) => isolate.send(agent, bob)))));
      // oxlint-disable-next-line no-await-in-loop
      unknown.push(await isolate.send(stranger, bob));
    }
    expect(tallied(known)).toEqual({ 202: 140 });
    expect(tallied(unknown)).toEqual({ "403 PROXY_TRUST_UNAVAILABLE": 14 });
    expect(
      harness.linesOf("dependency.served_stale").filter(({ dependency }) => dependency === "trust").length,
    ).toBeGreaterThanOrEqual(10);

    harness.pass(2 * MINUTE_MS);
    expect(await isolate.send(agents[0]!, bob)).toBe("403 PROXY_TRUST_UNAVAILABLE");
    state.fault = null;
    harness.pass(31 * SECOND_MS);
    expect(await isolate.send(stranger, bob)).toBe("202");
  });

  test("one that hangs is waited for no longer than STORE_TIMEOUT_MS, and remembered pairs do not wait once its breaker is open", async () => {
    const harness = await newHarness({ STORE_TIMEOUT_MS: "200" });
    const { state, DB } = database();
    const isolate = harness.newIsolate({ DB });
    const [alice, bob, stranger] = [await harness.newAgent(), await harness.newAgent(), await harness.newAgent()];
    await harness.pair(alice, bob);
    expect(await isolate.send(alice, bob)).toBe("202");
    // It never answers: whoever is answered has stopped waiting for it.
    state.fault = "hangs";
    expect(tallied(await Promise.all(Array.from({ length: 8 }, () => isolate.send(stranger, bob))))).toEqual({
      "403 PROXY_TRUST_UNAVAILABLE": 8,
    });
    harness.pass(2 * MINUTE_MS);
    // The first after the pause is the probe; nobody waits for it.
    const reads = state.reads;
    const answers = await Promise.all(Array.from({ length: 20 }, () => isolate.send(alice, bob)));
    expect(tallied(answers)).toEqual({ 202: 20 });
    expect(state.reads - reads).toBeLessThanOrEqual(1);
  });

  test.each([
    ["GET", "/v1/agents"],
    ["GET", "/ready"],
    ["GET", "/.well-known/claw-keys.json"],
    ["GET", "/v1/crl"],
  ])("%s %s is 503 and no 500", async (method, path) => {
    const harness = await newHarness();
    const { state, DB } = database();
    state.fault = "fails";
    const isolate = harness.newIsolate({ DB, REGISTRY_URL: "embedded" });
    const headers = { Authorization: `Bearer ${env.OPERATOR_TOKEN}` };
    const answer = await isolate.ask(new Request(`https://proxy.example.com${path}`, { method, headers }));
    expect(answer.status).toBe(503);
    expect(answer.headers.get("Retry-After")).not.toBeNull();
  });
});
