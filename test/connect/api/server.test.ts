/** The local API over its real socket. */
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import type { ApiDeps } from "../../../src/connect/api/routes.ts";
import { startApi } from "../../../src/connect/api/server.ts";
import { OutgoingRefusal } from "../../../src/connect/outgoing.ts";
import type { OutgoingMessage } from "../../../src/connect/store/outbox.ts";
import { createPullQueue, HELD_MS, type PullQueue } from "../../../src/connect/target/pull.ts";
import { ALICE, BOB, delivery } from "../deliveries.ts";

const TOKEN = "t".repeat(43);
const never = new AbortController().signal;

type Api = {
  url: string;
  port: number;
  sent: OutgoingMessage[];
  pull: PullQueue;
  clock: { nowMs: number };
  defects: unknown[];
};

async function api(over: Partial<ApiDeps> = {}): Promise<Api> {
  const sent: OutgoingMessage[] = [];
  const defects: unknown[] = [];
  const clock = { nowMs: 1_000 };
  const pull = createPullQueue(() => clock.nowMs);
  const deps: ApiDeps = {
    outgoing: {
      send(message) {
        sent.push(message);
        return Promise.resolve({ key: message.key, state: "waiting" as const });
      },
      stop: () => Promise.resolve(),
    },
    pull,
    received: (id) => (id === "known" ? delivery({ deliveryId: "known", conversationId: "c" }) : null),
    peers: () => Promise.resolve([{ agentDid: ALICE, agentName: "Alice", since: 1 }]),
    status: () => ({ relay: "open" }),
    metrics: null,
    ...over,
  };
  const server = await startApi({ port: 0, token: TOKEN, deps, onDefect: (error) => defects.push(error) });
  onTestFinished(() => server.close());
  return { url: `http://127.0.0.1:${server.port}`, port: server.port, sent, pull, clock, defects };
}

const withToken = { Authorization: `Bearer ${TOKEN}` };
const post = (url: string, path: string, body: string, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(url + path, {
    method: "POST",
    headers: { ...withToken, "Content-Type": "application/json", ...headers },
    body,
  });

/** What `fetch` would not send as it stands. */
const statusOf = (port: number, path: string, headers: Record<string, string> = {}): Promise<number | undefined> =>
  new Promise((resolve, reject) => {
    const asked = httpRequest({ port, host: "127.0.0.1", path, headers: { ...withToken, ...headers } });
    asked.on("response", (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    asked.on("error", reject);
    asked.end();
  });

describe("a caller", () => {
  test.each([
    { what: "no token", headers: {}, status: 401 },
    { what: "another token", headers: { Authorization: `Bearer ${"u".repeat(43)}` }, status: 401 },
    { what: "a web page that has the token", headers: { ...withToken, Origin: "https://evil.example" }, status: 403 },
    { what: "a page of this machine", headers: { ...withToken, Origin: "null" }, status: 403 },
  ])("with $what is refused with $status, and nothing happens", async ({ headers, status }) => {
    const { url, sent } = await api();
    const body = JSON.stringify({ to: BOB, payload: 1 });
    const response = await fetch(`${url}/v1/send`, {
      method: "POST",
      headers: headers as Record<string, string>,
      body,
    });
    expect(response.status).toBe(status);
    expect(response.headers.get("content-type")).toBe("application/problem+json");
    expect(sent).toEqual([]);
  });

  test.each(["evil.example", "evil.example:8790", "127.0.0.1:1", "127.0.0.1.evil.example"])(
    "by another Host is refused, as a page whose name resolves here: %s",
    async (host) => {
      const { port } = await api();
      expect([400, 421]).toContain(await statusOf(port, "/v1/status", { Host: host }));
    },
  );

  test.each(["//", "///", "/v1/nothing", "http://[", "constructor"])(
    "who asks for %s is told that there is no such route",
    async (path) => {
      const { port, defects } = await api();
      expect([400, 404]).toContain(await statusOf(port, path));
      expect(defects).toEqual([]);
    },
  );

  test("by localhost is served", async () => {
    const { port } = await api();
    expect((await fetch(`http://localhost:${port}/v1/status`, { headers: withToken })).status).toBe(200);
  });

  test("reaches it by loopback alone", async () => {
    const { port } = await api();
    const outside = Object.values(await import("node:os").then((os) => os.networkInterfaces()))
      .flat()
      .find((address) => address?.family === "IPv4" && !address.internal)?.address;
    if (outside === undefined) return;
    const refused = await new Promise<boolean>((resolve) => {
      const socket = connect(port, outside, () => resolve(false));
      socket.on("error", () => resolve(true));
    });
    expect(refused).toBe(true);
  });
});

describe("POST /v1/send", () => {
  test("hands the payload on to the byte, under the caller's key or one of its own", async () => {
    const { url, sent } = await api();
    const body = `{"to":"${BOB}","payload": {"n":1e400,"n":-0} ,"conversationId":"c","idempotencyKey":"k"}`;
    const response = await post(url, "/v1/send", body);
    expect({ status: response.status, json: await response.json() }).toEqual({
      status: 202,
      json: { key: "k", state: "waiting" },
    });
    expect(sent).toEqual([{ to: BOB, payloadText: '{"n":1e400,"n":-0}', conversationId: "c", key: "k" }]);
    await post(url, "/v1/send", `{"to":"${BOB}","payload":null}`);
    expect(sent[1]).toMatchObject({ payloadText: "null", key: expect.stringMatching(/^[0-9a-f-]{36}$/) as string });
  });

  test.each([
    { what: "no JSON", body: "{", status: 400 },
    { what: "no object", body: "[]", status: 400 },
    { what: "no recipient", body: '{"payload":1}', status: 400 },
    { what: "no payload", body: `{"to":"${BOB}"}`, status: 400 },
    { what: "a payload twice", body: `{"to":"${BOB}","payload":1,"payload":2}`, status: 400 },
    { what: "a key with a space", body: `{"to":"${BOB}","payload":1,"idempotencyKey":"a b"}`, status: 400 },
    { what: "too much", body: `{"to":"${BOB}","payload":"${"x".repeat(1_100_000)}"}`, status: 413 },
  ])("$what is $status", async ({ body, status }) => {
    const { url, sent, defects } = await api();
    expect((await post(url, "/v1/send", body)).status).toBe(status);
    expect({ sent, defects }).toEqual({ sent: [], defects: [] });
  });

  test("another media type is 415: what a page can send without asking first", async () => {
    const { url } = await api();
    expect((await post(url, "/v1/send", "{}", { "Content-Type": "text/plain" })).status).toBe(415);
  });

  test.each([
    { reason: "full", status: 507 },
    { reason: "other", status: 409 },
  ] as const)("an outbox that refuses ($reason) is $status", async ({ reason, status }) => {
    const outgoing = { send: () => Promise.reject(new OutgoingRefusal(reason)), stop: () => Promise.resolve() };
    const { url } = await api({ outgoing });
    expect((await post(url, "/v1/send", `{"to":"${BOB}","payload":1}`)).status).toBe(status);
  });
});

test("POST /v1/reply goes to the sender of a message, in its conversation; one that is not remembered is 404", async () => {
  const { url, sent } = await api();
  expect((await post(url, "/v1/reply", '{"deliveryId":"known","payload":"yes"}')).status).toBe(202);
  expect(sent).toMatchObject([{ to: ALICE, conversationId: "c", payloadText: '"yes"' }]);
  expect((await post(url, "/v1/reply", '{"deliveryId":"other","payload":"yes"}')).status).toBe(404);
});

test("POST /v1/outbound takes a send in clawdentity's form", async () => {
  const { url, sent } = await api();
  const response = await post(url, "/v1/outbound", `{"toAgentDid":"${BOB}","payload":{"a":1},"conversationId":"c"}`);
  expect({ status: response.status, json: await response.json() }).toEqual({ status: 202, json: { accepted: true } });
  expect(sent).toMatchObject([{ to: BOB, payloadText: '{"a":1}', conversationId: "c" }]);
});

describe("fetching", () => {
  test("a message is its fetcher's for a minute, and handled when that says so", async () => {
    const { url, pull, clock } = await api();
    const message = delivery({ payloadText: '{"n":1e400}' });
    const outcome = pull.target(message, never);
    const fetched = await (await fetch(`${url}/v1/inbox`, { headers: withToken })).text();
    expect(fetched).toContain('"payload":{"n":1e400}}');
    expect(await (await fetch(`${url}/v1/inbox`, { headers: withToken })).json()).toEqual({ messages: [] });
    clock.nowMs += HELD_MS;
    const again = (await (await fetch(`${url}/v1/inbox`, { headers: withToken })).text()).includes(message.deliveryId);
    expect(again).toBe(true);
    const acked = await post(
      url,
      "/v1/inbox/ack",
      JSON.stringify({ acks: [{ deliveryId: message.deliveryId, accepted: true }] }),
    );
    expect(await acked.json()).toEqual({ acknowledged: 1 });
    expect(await outcome).toEqual({ kind: "handled" });
  });

  test.each([
    { ack: { accepted: false, reason: "no" }, outcome: { kind: "refused", reason: "no" } },
    { ack: { accepted: false, retryAfterMs: 500 }, outcome: { kind: "later", retryAfterMs: 500 } },
  ])("$ack is $outcome.kind", async ({ ack, outcome }) => {
    const { url, pull } = await api();
    const message = delivery();
    const reached = pull.target(message, never);
    await post(url, "/v1/inbox/ack", JSON.stringify({ acks: [{ deliveryId: message.deliveryId, ...ack }] }));
    expect(await reached).toMatchObject(outcome);
  });

  test("a caller that waits gets a message when it comes", async () => {
    const { url, pull } = await api();
    const waiting = fetch(`${url}/v1/inbox?waitSeconds=25`, { headers: withToken });
    await expect.poll(() => pull.depth()).toBe(0);
    void pull.target(delivery({ deliveryId: "came" }), never).catch(() => undefined);
    expect(await (await waiting).text()).toContain("came");
  });

  test.each(["limit=0", "limit=101", "limit=x", "waitSeconds=26", "waitSeconds=-1", "limit=1e2"])(
    "%s is 400",
    async (query) => {
      const { url } = await api();
      expect((await fetch(`${url}/v1/inbox?${query}`, { headers: withToken })).status).toBe(400);
    },
  );

  test("where messages are pushed there is nothing to fetch: 409", async () => {
    const { url } = await api({ pull: null });
    expect((await fetch(`${url}/v1/inbox`, { headers: withToken })).status).toBe(409);
    expect((await post(url, "/v1/inbox/ack", '{"acks":[]}')).status).toBe(409);
  });
});

test("what else is asked is 404, and a defect is 500 without its words", async () => {
  const { url, defects } = await api({ peers: () => Promise.reject(new Error("secret detail")) });
  expect((await fetch(`${url}/v1/nothing`, { headers: withToken })).status).toBe(404);
  expect((await fetch(`${url}/metrics`, { headers: withToken })).status).toBe(404);
  const failed = await fetch(`${url}/v1/peers`, { headers: withToken });
  expect({ status: failed.status, says: (await failed.text()).includes("secret") }).toEqual({
    status: 500,
    says: false,
  });
  expect(defects).toHaveLength(1);
});
