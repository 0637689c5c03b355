/** The platform's counters for addresses: beyond the limit 429, and a counter that fails refuses nobody. */
import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, test, vi } from "vitest";
import worker from "../../../src/worker.ts";

type Counter = { limit(asked: { key: string }): Promise<{ success: boolean }> };

const TIME = { path: "/v1/time", method: "GET", counter: "RATE_LIMIT_IP" } as const;
const CLAIM = { path: "/v1/devices/claim", method: "POST", counter: "RATE_LIMIT_CLAIM" } as const;

function ask(
  { path, method, counter }: typeof TIME | typeof CLAIM,
  limit: Counter["limit"],
  settings: Record<string, unknown> = { RATE_LIMIT_PER_IP: "on" },
): Promise<Response> {
  const open: Counter = { limit: async () => ({ success: true }) };
  const bindings = { ...env, RATE_LIMIT_IP: open, RATE_LIMIT_CLAIM: open, [counter]: { limit }, ...settings };
  const headers = { "CF-Connecting-IP": "192.0.2.7" };
  const request = new Request(`https://proxy.example${path}`, { method, headers });
  return Promise.resolve(
    worker.fetch(request as Parameters<typeof worker.fetch>[0], bindings as unknown as Env, createExecutionContext()),
  );
}

const linesOf = (spy: { mock: { calls: unknown[][] } }): Record<string, unknown>[] =>
  spy.mock.calls.map(([line]) => JSON.parse(String(line)) as Record<string, unknown>);

describe.each([
  // What either route says to a request that is not limited.
  { route: TIME, served: 200, retryAfter: "10" },
  { route: CLAIM, served: 401, retryAfter: "60" },
])("$route.path", ({ route, served, retryAfter }) => {
  test("is refused with 429 and a time to come back while its address is over the limit", async () => {
    using warned = vi.spyOn(console, "warn");
    const asked: string[] = [];
    const answer = await ask(route, async ({ key }) => {
      asked.push(key);
      return { success: false };
    });
    expect(answer.status).toBe(429);
    expect(answer.headers.get("Retry-After")).toBe(retryAfter);
    expect(await answer.json()).toMatchObject({ code: "PROXY_RATE_LIMIT_EXCEEDED" });
    expect(asked).toEqual(["192.0.2.7"]);
    expect(linesOf(warned)).toContainEqual(
      expect.objectContaining({ event: "address.limited", address: "192.0.2.7" }) as unknown,
    );
  });

  test("is served while the counter cannot be asked, which is logged as an error", async () => {
    using failed = vi.spyOn(console, "error");
    const answer = await ask(route, async () => {
      throw new Error("the counter is away");
    });
    expect(answer.status).toBe(served);
    expect(linesOf(failed)).toMatchObject([{ event: "address.limit_unavailable" }]);
  });

  test("asks no counter where limits for addresses are turned off", async () => {
    const limit = vi.fn<Counter["limit"]>();
    expect((await ask(route, limit, { RATE_LIMIT_PER_IP: "off" })).status).toBe(served);
    expect(limit).not.toHaveBeenCalled();
  });
});
