import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { app } from "../../src/app.ts";
import { VERSION } from "../../src/wire/version.ts";

/** Each env is an isolate of its own: nothing is cached yet. */
async function ask(
  path: string,
  more: Record<string, unknown> = {},
): Promise<{ status: number; body: Record<string, unknown>; headers: Headers }> {
  const answer = await app.fetch(
    new Request(`https://proxy.example.com${path}`),
    { ...env, ...more },
    createExecutionContext(),
  );
  const body = await answer.json<Record<string, unknown>>();
  return { status: answer.status, body, headers: answer.headers };
}

const failingDb = {
  prepare: () => {
    throw new Error("D1 is down");
  },
};
const failingGate = { getByName: () => ({ attempts: () => Promise.reject(new Error("the object is gone")) }) };
const REMOTE = { REGISTRY_URL: "https://registry.elsewhere.example", REGISTRY_TIMEOUT_MS: "100" };
const CLOSED = { state: "closed" };

afterEach(() => void vi.restoreAllMocks());

describe("GET /ready", () => {
  test("names every dependency with its breaker, and the age of keys and list", async () => {
    const { status, body } = await ask("/ready");
    expect(status).toBe(200);
    expect(body).toMatchObject({
      status: "ready",
      dependencies: {
        keys: { breaker: CLOSED, ageMs: expect.any(Number), usable: true },
        crl: { breaker: CLOSED, ageMs: expect.any(Number), usable: true },
        access: { breaker: CLOSED },
        trust: { breaker: CLOSED, database: "ok" },
        gate: { reach: "ok" },
        signing: { usable: true },
      },
    });
  });

  test("is 503 while the signing secret does not fit the keys, which the log names and the answer does not", async () => {
    using failed = vi.spyOn(console, "error");
    const columns = "kid, x, status, is_current, created_at_ms";
    const row = env.DB.prepare(`INSERT INTO registry_keys (${columns}) VALUES ('another', ?1, 'active', 1, 0)`);
    await row.bind("A".repeat(43)).run();
    onTestFinished(async () => void (await env.DB.exec("DELETE FROM registry_keys")));
    const { status, body } = await ask("/ready");
    expect(status).toBe(503);
    expect(body).toMatchObject({
      dependencies: {
        signing: { usable: false, problem: expect.stringContaining("cannot sign") as string },
        gate: { reach: "ok" },
      },
    });
    expect(JSON.stringify(body)).not.toContain("REGISTRY_SIGNING_SECRET");
    expect(failed.mock.calls.map(String).join("\n")).toContain("ready.signing_failing");
  });

  test("names the graph too where it is not the database's own, which no send depends on", async () => {
    expect(JSON.stringify((await ask("/ready")).body)).not.toContain("authz");
    const { status, body } = await ask("/ready", { AUTHZ_GRAPH: "https://graph.elsewhere.example" });
    expect(status).toBe(200);
    expect(body).toMatchObject({ dependencies: { authz: { breaker: CLOSED } } });
  });

  test.each([
    ["the registry has never been reached", REMOTE, { keys: { usable: false }, crl: { usable: false } }],
    ["the database fails and nothing is remembered", { DB: failingDb }, { trust: { database: "failing" } }],
    ["no gate can be reached", { GATE: failingGate }, { gate: { reach: "failing" } }],
  ])("is 503 while %s", async (_, more, dependencies) => {
    vi.spyOn(globalThis, "fetch").mockRejectedValue(new TypeError("connection refused"));
    const { status, body, headers } = await ask("/ready", more);
    expect(status).toBe(503);
    expect(headers.get("Retry-After")).toBe("1");
    expect(body).toMatchObject({ status: "unavailable", dependencies });
  });

  test("asks the stores once a second, however often it is asked", async () => {
    let reads = 0;
    const DB = {
      prepare: (sql: string) => {
        reads += 1;
        return env.DB.prepare(sql);
      },
      batch: (statements: D1PreparedStatement[]) => env.DB.batch(statements),
      withSession: (constraint?: string) => env.DB.withSession(constraint),
    };
    const counting = { ...env, DB } as unknown as Env;
    const asked = async (): Promise<number> =>
      (await app.fetch(new Request("https://proxy.example.com/ready"), counting, createExecutionContext())).status;
    await asked();
    const once = reads;
    await Promise.all(Array.from({ length: 20 }, asked));
    expect(reads).toBe(once);
  });
});

test("GET /health stays dumb: it says ok whatever else fails", async () => {
  const { status, body } = await ask("/health", { DB: failingDb, GATE: failingGate, ...REMOTE });
  expect([status, body]).toEqual([200, { status: "ok", version: VERSION }]);
});
