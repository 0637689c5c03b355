import { createExecutionContext } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { app } from "../../src/app.ts";
import { POINT_BLOBS, POINT_DOUBLES } from "../../src/telemetry/request-metrics.ts";
import { parseOpenMetrics, valueOf } from "./open-metrics-parser.ts";

const OPERATOR = { Authorization: `Bearer ${env.OPERATOR_TOKEN}` };
const ask = (path: string, init: RequestInit = {}): Promise<Response> =>
  exports.default.fetch(`https://proxy.example.com${path}`, init);
/** The runtime warns of text under a media type that it does not know to be text. */
const textOf = async (answer: Response): Promise<string> => new TextDecoder().decode(await answer.arrayBuffer());
const scrape = async () => parseOpenMetrics(await textOf(await ask("/metrics", { headers: OPERATOR })));

describe("GET /metrics", () => {
  test("is OpenMetrics text for the operator alone", async () => {
    const answer = await ask("/metrics", { headers: OPERATOR });
    expect(answer.status).toBe(200);
    expect(answer.headers.get("Content-Type")).toBe("application/openmetrics-text; version=1.0.0; charset=utf-8");
    expect(answer.headers.get("Cache-Control")).toBe("no-store");
    parseOpenMetrics(await textOf(answer));
    for (const headers of [{}, { Authorization: "Bearer not-the-operator-token-0123456789abcdef" }]) {
      const refused = await ask("/metrics", { headers });
      expect(refused.status).toBe(401);
    }
  });

  test("refuses an address that goes on guessing the token with 429, and the operator never", async () => {
    const from = { "CF-Connecting-IP": "192.0.2.77" };
    const statuses: number[] = [];
    for (let guess = 0; guess < 12; guess++) {
      const Authorization = `Bearer guess-number-${guess}-0123456789abcdef0123456789`;
      // oxlint-disable-next-line no-await-in-loop -- one guess after the other
      statuses.push((await ask("/metrics", { headers: { ...from, Authorization } })).status);
    }
    expect(statuses).toEqual([...Array.from({ length: 10 }, () => 401), 429, 429]);
    expect((await ask("/metrics", { headers: { ...from, ...OPERATOR } })).status).toBe(200);
  });

  test("tells of requests that were answered a moment ago, by route and status, and of why they were refused", async () => {
    const before = await scrape();
    for (let n = 0; n < 5; n++) await ask("/v1/time");
    await ask("/no/such/did:cdi:registry.example.com:agent:01J00000000000000000000000", { method: "PROPFIND" });
    await ask("/hooks/agent", { method: "POST", body: "{}" });
    const after = await scrape();
    const grown = (name: string, labels: Record<string, string>): number =>
      (valueOf(after, name, labels) ?? 0) - (valueOf(before, name, labels) ?? 0);
    expect(grown("sallyport_requests_total", { route: "/v1/time", method: "GET", status: "200" })).toBe(5);
    expect(grown("sallyport_requests_total", { route: "unmatched", method: "other", status: "404" })).toBe(1);
    expect(grown("sallyport_requests_total", { route: "/hooks/agent", method: "POST", status: "401" })).toBe(1);
    expect(grown("sallyport_refusals_total", { stage: "token", reason: "authorization-missing" })).toBe(1);
    expect(grown("sallyport_decisions_total", { route: "hooks.agent", credential: "none", outcome: "refused" })).toBe(
      1,
    );
    expect(grown("sallyport_request_duration_seconds_count", { route: "/v1/time" })).toBe(5);
    expect(valueOf(after, "sallyport_breaker_open", { dependency: "trust" })).toBe(0);
  });
});

/** Asks a Worker with other settings or bindings. */
const askUnder = async (more: Record<string, unknown>, path: string, init: RequestInit = {}): Promise<Response> =>
  app.fetch(new Request(`https://proxy.example.com${path}`, init), { ...env, ...more }, createExecutionContext());

describe("the settings", () => {
  test("METRICS=off turns them off", async () => {
    const before = await scrape();
    await askUnder({ METRICS: "off" }, "/v1/time");
    expect((await askUnder({ METRICS: "off" }, "/metrics", { headers: OPERATOR })).status).toBe(404);
    const after = await scrape();
    const times = (families: typeof before) => valueOf(families, "sallyport_requests_total", { route: "/v1/time" });
    expect(times(after)).toBe(times(before));
  });

  test("a bound dataset gets one wide point a request, and the aggregate none", async () => {
    const points: { indexes?: unknown[]; blobs?: unknown[]; doubles?: number[] }[] = [];
    const before = await scrape();
    const ANALYTICS = { writeDataPoint: (point: (typeof points)[number]) => void points.push(point) };
    await askUnder({ ANALYTICS }, "/hooks/agent", { method: "POST", body: "{}" });
    expect(points).toHaveLength(1);
    const [{ indexes, blobs = [], doubles = [] } = {}] = points;
    const blob = Object.fromEntries(POINT_BLOBS.map((name, index) => [name, blobs[index]]));
    expect(indexes).toEqual(["/hooks/agent"]);
    expect(blobs).toHaveLength(POINT_BLOBS.length);
    expect(doubles).toHaveLength(POINT_DOUBLES.length);
    expect(blob).toMatchObject({
      method: "POST",
      status: "401",
      outcome: "refused",
      stage: "token",
      reason: "authorization-missing",
    });
    const refused = { route: "/hooks/agent", status: "401" };
    expect(valueOf(await scrape(), "sallyport_requests_total", refused)).toBe(
      valueOf(before, "sallyport_requests_total", refused),
    );
  });
});
