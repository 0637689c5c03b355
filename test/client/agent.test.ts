import { describe, expect, test } from "vitest";
import {
  type AgentCredential,
  createAgentClient,
  type CredentialStore,
  JsonText,
  RpcError,
} from "../../src/client/index.ts";
import {
  BASE_URL,
  DAY_MS,
  fakeAgent,
  fakeAit,
  fakeGate,
  isProven,
  proofOf,
  NOON_MS,
  PEER_DID,
  problem,
  type Route,
} from "./fake-gate.ts";

const ACCEPTED = { accepted: true, deliveryId: "d_1", state: "queued", delivered: false, queued: true, queueDepth: 1 };
const accept: Route = () => ({ status: 202, json: ACCEPTED });
const refresh: Route = ({ body }) => {
  const { refreshToken } = JSON.parse(body) as { refreshToken: string };
  const next = Number(refreshToken.split("-")[1]) + 1;
  return {
    json: { access: { token: `access-${next}`, expiresAtMs: NOON_MS + 2 * DAY_MS }, refreshToken: `refresh-${next}` },
  };
};

async function setUp(routes: Record<string, Route>, change: Partial<AgentCredential> = {}) {
  const { keys, credential } = await fakeAgent(change);
  const gate = fakeGate({ "POST /hooks/agent": accept, "POST /v1/agents/auth/refresh": refresh, ...routes });
  const clock = { nowMs: NOON_MS };
  const stored: AgentCredential[] = [];
  const agent = createAgentClient({
    baseUrl: BASE_URL,
    keys,
    credential,
    fetch: gate.fetch,
    now: () => clock.nowMs,
    onCredential: (next) => void stored.push(next),
    onClockCorrection: () => undefined,
  });
  return { agent, gate, keys, credential, clock, stored };
}

describe("a message", () => {
  test("is sent signed, with both tokens and what was asked for", async () => {
    const { agent, gate, keys, credential } = await setUp({});
    const sent = await agent.send({
      to: PEER_DID,
      payloadText: '{"n": 1.0}',
      conversationId: "c-1",
      idempotencyKey: "k-1",
      receiptUrl: "https://example.com/r",
      waitSeconds: 5,
    });
    expect(sent).toEqual(ACCEPTED);
    const [request] = gate.to("/hooks/agent");
    if (request === undefined) throw new Error("nothing was sent");
    expect(request.body).toBe('{"n": 1.0}');
    expect(Object.fromEntries(request.headers)).toMatchObject({
      authorization: `Claw ${credential.ait}`,
      "x-claw-agent-access": "access-1",
      "x-claw-recipient-agent-did": PEER_DID,
      "x-claw-conversation-id": "c-1",
      "x-claw-delivery-receipt-url": "https://example.com/r",
      "idempotency-key": "k-1",
      prefer: "wait=5",
      "content-type": "application/json",
    });
    expect(proofOf(request)).toMatchObject({ version: 2, createdSeconds: NOON_MS / 1_000 });
    expect(await isProven(request, keys.publicKey)).toBe(true);
  });

  test.each([
    ["payload", {}],
    ["payload", { payload: 1n }],
    ["payload", { payload: () => 1 }],
    ["payloadText", { payloadText: "hello" }],
    ["payloadText", { payloadText: '"\ud800"' }],
    ["to", { payload: 1, to: `${PEER_DID}\u200b` }],
    ["to", { payload: 1, to: "" }],
    ["conversationId", { payload: 1, conversationId: "" }],
    ["conversationId", { payload: 1, conversationId: "a\nb" }],
    ["conversationId", { payload: 1, conversationId: "a\u200bb" }],
    ["conversationId", { payload: 1, conversationId: "\ud800" }],
    ["conversationId", { payload: 1, conversationId: "x".repeat(257) }],
    ["idempotencyKey", { payload: 1, idempotencyKey: "schl\u00fcssel" }],
    ["receiptUrl", { payload: 1, receiptUrl: "https://ex\u00e4mple.com" }],
    ["waitSeconds", { payload: 1, waitSeconds: 0.5 }],
  ])("that cannot be sent names what is wrong with it, and nothing is sent: %s (%#)", async (argument, wrong) => {
    const { agent, gate } = await setUp({});
    const sent = agent.send({ to: PEER_DID, ...wrong });
    await expect(sent).rejects.toBeInstanceOf(TypeError);
    await expect(sent).rejects.toMatchObject({ code: "INVALID_ARGUMENT", argument });
    expect(gate.to("/hooks/agent")).toEqual([]);
  });

  test.each([
    ["c-1", "c-1"],
    ["caf\u00e9", "UTF-8''caf%C3%A9"],
    ["\u6771\u4eac", "UTF-8''%E6%9D%B1%E4%BA%AC"],
    [" c ", "UTF-8''%20c%20"],
    ["utf-8''x", "UTF-8''utf-8%27%27x"],
  ])("carries any conversation id intact: %j", async (conversationId, header) => {
    const { agent, gate } = await setUp({});
    await agent.send({ to: PEER_DID, payload: 1, conversationId });
    expect(gate.to("/hooks/agent")[0]?.headers.get("X-Claw-Conversation-Id")).toBe(header);
  });

  test("keeps JSON text inside a payload to the byte", async () => {
    const { agent, gate } = await setUp({});
    await agent.send({ to: PEER_DID, payload: { n: new JsonText("[1e400, -0]") } });
    await agent.send({ to: PEER_DID, payload: new JsonText('{"id":12345678901234567890}') });
    expect(gate.to("/hooks/agent").map(({ body }) => body)).toEqual([
      '{"n":[1e400, -0]}',
      '{"id":12345678901234567890}',
    ]);
  });

  test("is asked after by its delivery id", async () => {
    const status = { deliveryId: "d_1", state: "delivered", attempts: 1, updatedAtMs: NOON_MS };
    const { agent } = await setUp({ "GET /v1/deliveries/d_1": () => ({ json: status }) });
    expect(await agent.deliveryStatus("d_1")).toEqual(status);
  });
});

describe("the access token", () => {
  test("is refreshed before it expires, once for all who wait, and stored before it is used", async () => {
    const { agent, gate, stored, keys, clock } = await setUp({});
    clock.nowMs += 900_000 - 59_000;
    await Promise.all([1, 2, 3].map((n) => agent.send({ to: PEER_DID, payload: n })));
    expect(gate.to("/v1/agents/auth/refresh")).toHaveLength(1);
    expect(gate.to("/hooks/agent").map(({ headers }) => headers.get("X-Claw-Agent-Access"))).toEqual(
      Array(3).fill("access-2"),
    );
    expect(stored).toMatchObject([{ access: { token: "access-2" }, refreshToken: "refresh-2" }]);
    const [request] = gate.to("/v1/agents/auth/refresh");
    expect(request?.headers.has("X-Claw-Agent-Access")).toBe(false);
    expect(request !== undefined && (await isProven(request, keys.publicKey))).toBe(true);
  });

  test("is left alone while it is fresh", async () => {
    const { agent, gate, clock } = await setUp({});
    clock.nowMs += 900_000 - 61_000;
    await agent.send({ to: PEER_DID, payload: 1 });
    expect(gate.to("/v1/agents/auth/refresh")).toHaveLength(0);
  });

  test("that is refused is refreshed once, and the request is signed anew", async () => {
    const { agent, gate } = await setUp({
      "POST /hooks/agent": ({ headers }) =>
        headers.get("X-Claw-Agent-Access") === "access-2"
          ? { status: 202, json: ACCEPTED }
          : problem(401, "PROXY_AGENT_ACCESS_INVALID"),
    });
    await Promise.all([1, 2].map((n) => agent.send({ to: PEER_DID, payload: n })));
    expect(gate.to("/v1/agents/auth/refresh")).toHaveLength(1);
    const nonces = gate.to("/hooks/agent").map((request) => proofOf(request)?.nonce);
    expect(new Set(nonces).size).toBe(4);
  });

  test("that is refused late, when another call has long renewed it, is not refreshed once more", async () => {
    const late = Promise.withResolvers<void>();
    const { agent, gate } = await setUp({
      "POST /hooks/agent": async ({ headers, body }) => {
        if (headers.get("X-Claw-Agent-Access") !== "access-1") return { status: 202, json: ACCEPTED };
        if (body === '"late"') await late.promise;
        return problem(401, "PROXY_AGENT_ACCESS_INVALID");
      },
    });
    const slow = agent.send({ to: PEER_DID, payload: "late" });
    await agent.send({ to: PEER_DID, payload: "early" });
    late.resolve();
    await slow;
    expect(gate.to("/v1/agents/auth/refresh")).toHaveLength(1);
  });

  test("that is refused again after a refresh is the caller's to know", async () => {
    const { agent, gate } = await setUp({ "POST /hooks/agent": () => problem(401, "PROXY_AGENT_ACCESS_INVALID") });
    await expect(agent.send({ to: PEER_DID, payload: 1 })).rejects.toMatchObject({
      code: "PROXY_AGENT_ACCESS_INVALID",
    });
    expect(gate.to("/hooks/agent")).toHaveLength(2);
  });

  test("whose answer was lost is asked for again with the same refresh token", async () => {
    let lost = 0;
    const { agent, gate } = await setUp({
      "POST /v1/agents/auth/refresh": (request) => {
        lost += 1;
        if (lost === 1) throw new TypeError("connection reset");
        return refresh(request);
      },
    });
    await agent.refresh();
    expect(gate.to("/v1/agents/auth/refresh").map(({ body }) => body)).toEqual(
      Array(2).fill('{"refreshToken":"refresh-1"}'),
    );
    expect(agent.credential().access.token).toBe("access-2");
  });

  test("that cannot be refreshed fails with the server's word, and the next call tries anew", async () => {
    let isRefused = true;
    const { agent } = await setUp({
      "POST /v1/agents/auth/refresh": (request) =>
        isRefused ? problem(401, "PROXY_AUTH_INVALID_TOKEN") : refresh(request),
    });
    await expect(agent.refresh()).rejects.toMatchObject({ code: "PROXY_AUTH_INVALID_TOKEN" });
    isRefused = false;
    await agent.refresh();
    expect(agent.credential().refreshToken).toBe("refresh-2");
  });
});

describe("the identity token", () => {
  const NEXT = fakeAit({ issuedAtMs: NOON_MS, expiresAtMs: NOON_MS + 60 * DAY_MS });
  const reissue: Route = () => ({ json: { ait: NEXT } });

  test("is reissued within a day of its end, once for all who wait", async () => {
    const { agent, gate, clock, stored } = await setUp({ "POST /v1/agents/reissue": reissue }, { access: FOREVER });
    clock.nowMs += 29 * DAY_MS + 1;
    await Promise.all([1, 2].map((n) => agent.send({ to: PEER_DID, payload: n })));
    expect(gate.to("/v1/agents/reissue")).toHaveLength(1);
    expect(gate.to("/hooks/agent").map(({ headers }) => headers.get("Authorization"))).toEqual(
      Array(2).fill(`Claw ${NEXT}`),
    );
    expect(stored.map(({ ait }) => ait)).toEqual([NEXT]);
  });

  test("is left alone before that", async () => {
    const { agent, gate, clock } = await setUp({ "POST /v1/agents/reissue": reissue }, { access: FOREVER });
    clock.nowMs += 28 * DAY_MS;
    await agent.send({ to: PEER_DID, payload: 1 });
    expect(gate.to("/v1/agents/reissue")).toHaveLength(0);
  });

  test("that has expired by the server's clock too is said to have", async () => {
    const { agent, gate, clock } = await setUp(
      { "GET /v1/time": () => ({ json: { unixMs: NOON_MS + 30 * DAY_MS } }) },
      { access: FOREVER },
    );
    clock.nowMs += 30 * DAY_MS;
    await expect(agent.send({ to: PEER_DID, payload: 1 })).rejects.toMatchObject({ code: "CREDENTIAL_EXPIRED" });
    expect(gate.seen.map(({ path }) => path)).toEqual(["/v1/time"]);
  });

  test("that has expired only by a clock that is wrong still serves", async () => {
    const { agent, gate, clock } = await setUp(
      { "GET /v1/time": () => ({ json: { unixMs: NOON_MS } }) },
      { access: FOREVER },
    );
    clock.nowMs += 60 * DAY_MS;
    await agent.send({ to: PEER_DID, payload: 1 });
    expect(proofOf(gate.to("/hooks/agent")[0]!)?.createdSeconds).toBe(NOON_MS / 1_000);
  });

  test.each([
    ["the server is busy", () => problem(503, "PROXY_AUTH_DEPENDENCY_UNAVAILABLE")],
    ["there is no answer", () => Promise.reject(new TypeError("reset"))],
  ])("still serves while it is good and %s", async (_what, route) => {
    const { agent, gate, clock } = await setUp({ "POST /v1/agents/reissue": route }, { access: FOREVER });
    clock.nowMs += 29 * DAY_MS + 1;
    await agent.send({ to: PEER_DID, payload: 1 });
    await agent.send({ to: PEER_DID, payload: 2 });
    expect(gate.to("/hooks/agent")).toHaveLength(2);
    expect(gate.to("/v1/agents/reissue")).toHaveLength(1);
  });

  test.each([
    ["holds a minute from now", { notBeforeMs: NOON_MS + 60_000 }, 30_000],
    ["holds a second from now", { notBeforeMs: NOON_MS + 1_000 }, 1_000],
    ["was issued a minute ago", { notBeforeMs: NOON_MS - 60_000 }, 1_000],
  ])("that is refused and %s is tried again later, and is not over", async (_what, life, retryAfterMs) => {
    const token = fakeAit({ issuedAtMs: NOON_MS - 70_000, expiresAtMs: NOON_MS + 60 * DAY_MS, ...life });
    const routes = { "POST /hooks/agent": () => problem(401, "PROXY_AUTH_INVALID_AIT") };
    const { agent } = await setUp(routes, { ait: token, access: FOREVER });
    const sent = agent.send({ to: PEER_DID, payload: 1 });
    await expect(sent).rejects.toMatchObject({ code: "CREDENTIAL_NOT_YET_VALID", retryAfterMs });
  });

  test("that is refused long after it was issued is refused", async () => {
    const { agent, clock } = await setUp({ "POST /hooks/agent": () => problem(401, "PROXY_AUTH_INVALID_AIT") });
    clock.nowMs += 120_000;
    await expect(agent.send({ to: PEER_DID, payload: 1 })).rejects.toMatchObject({ code: "PROXY_AUTH_INVALID_AIT" });
  });

  test("that has expired by a server whose clock is too far ahead is said to have", async () => {
    const { agent, clock } = await setUp(
      { "GET /v1/time": () => ({ json: { unixMs: NOON_MS + 40 * DAY_MS } }) },
      { access: FOREVER },
    );
    clock.nowMs += 30 * DAY_MS;
    await expect(agent.send({ to: PEER_DID, payload: 1 })).rejects.toMatchObject({ code: "CREDENTIAL_EXPIRED" });
  });

  test("that was revoked ends the call", async () => {
    const { agent, clock } = await setUp(
      { "POST /v1/agents/reissue": () => problem(401, "PROXY_AUTH_REVOKED") },
      { access: FOREVER },
    );
    clock.nowMs += 29 * DAY_MS + 1;
    await expect(agent.send({ to: PEER_DID, payload: 1 })).rejects.toMatchObject({ code: "PROXY_AUTH_REVOKED" });
  });
});

const FOREVER = { token: "access-1", expiresAtMs: NOON_MS + 1_000 * DAY_MS };

const rpc = (answer: unknown): Record<string, Route> => ({ "POST /rpc": () => ({ json: answer }) });

describe("a method", () => {
  test("is called by name and gives its result", async () => {
    const { agent, gate } = await setUp(rpc({ jsonrpc: "2.0", id: 1, result: { tasks: [] } }));
    expect(await agent.call("task/list", { limit: 3 })).toEqual({ tasks: [] });
    expect(JSON.parse(gate.to("/rpc")[0]?.body ?? "")).toEqual({
      jsonrpc: "2.0",
      id: 1,
      method: "task/list",
      params: { limit: 3 },
    });
  });

  test("that fails says so by its code", async () => {
    const data = { code: "AUTHZ_UNAVAILABLE", retryable: true, retryAfterMs: 500, taskId: "t" };
    const { agent } = await setUp(rpc({ jsonrpc: "2.0", id: 1, error: { code: -32053, message: "later", data } }));
    const error = await agent.call("task/create").catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(RpcError);
    expect(error).toMatchObject({
      code: "AUTHZ_UNAVAILABLE",
      number: -32053,
      retryable: true,
      retryAfterMs: 500,
      data,
    });
  });

  test("that fails without a code of its own has the number for one", async () => {
    const { agent } = await setUp(rpc({ jsonrpc: "2.0", id: 1, error: { code: -32601, message: "Method not found" } }));
    await expect(agent.call("nope")).rejects.toMatchObject({ code: "RPC_-32601", retryable: false });
  });
});

test("a method is given JSON text as it is, and gives the text of its result, to the byte", async () => {
  const result = '{"task": {"params": {"id":12345678901234567890,"x":1e400,"x":-0}}}';
  const { agent, gate } = await setUp({
    "POST /rpc": () => ({ text: `{"jsonrpc":"2.0","id":1,"result": ${result} }` }),
  });
  const params = { content: new JsonText('{"id":12345678901234567890, "a":1, "a":2}') };
  expect(await agent.callText("message/send", params)).toBe(result);
  expect(gate.to("/rpc")[0]?.body).toContain('"params":{"content":{"id":12345678901234567890, "a":1, "a":2}}');
  const failed = await setUp(rpc({ jsonrpc: "2.0", id: 1, error: { code: -32601, message: "Method not found" } }));
  await expect(failed.agent.callText("nope")).rejects.toBeInstanceOf(RpcError);
});

describe("pairing and dead letters", () => {
  test("go to their routes and give what the server says", async () => {
    const letter = {
      id: "d_9",
      deliveryId: "d_9",
      fromAgentDid: PEER_DID,
      reason: "expired",
      attempts: 3,
      createdAtMs: 1,
      deadAtMs: 2,
      payload: 1,
    };
    const { agent, gate } = await setUp({
      "POST /pair/start": () => ({ json: { ticket: "t", expiresAtMs: NOON_MS } }),
      "POST /pair/confirm": () => ({
        status: 201,
        json: { paired: true, initiatorAgentDid: PEER_DID, responderAgentDid: PEER_DID, notified: false },
      }),
      "POST /pair/status": () => ({ json: { status: "pending" } }),
      "POST /pair/remove": () => ({ json: { removed: true } }),
      "GET /pair/peers": () => ({ json: { peers: [{ agentDid: PEER_DID, agentName: "Bob", since: 1 }] } }),
      "GET /v1/dead-letters": () => ({
        text: `{"deadLetters": [${JSON.stringify(letter).replace('"payload":1', '"payload": [1.0, 1e400] ')}], "nextCursor": "d_9"}`,
      }),
      "POST /v1/dead-letters/d_9/replay": () => ({ json: { id: "d_9", replayed: true } }),
      "DELETE /v1/dead-letters/d_9": () => ({ json: { id: "d_9", purged: true } }),
    });
    const profile = { agentName: "Scout", humanName: "Ann" };
    expect(await agent.pairing.start({ profile, ttlSeconds: 60 })).toEqual({ ticket: "t", expiresAtMs: NOON_MS });
    expect(gate.to("/pair/start")[0]?.body).toBe(JSON.stringify({ initiatorProfile: profile, ttlSeconds: 60 }));
    expect(await agent.pairing.confirm({ ticket: "t", profile })).toMatchObject({ paired: true, notified: false });
    expect(await agent.pairing.status("t")).toBe("pending");
    expect(await agent.pairing.remove(PEER_DID)).toBe(true);
    expect(await agent.pairing.peers()).toHaveLength(1);
    expect(await agent.deadLetters.list({ limit: 1, cursor: "a/b" })).toEqual({
      deadLetters: [{ ...letter, payload: [1, Infinity], payloadText: "[1.0, 1e400]" }],
      nextCursor: "d_9",
    });
    expect(gate.to("/v1/dead-letters")[0]?.path).toBe("/v1/dead-letters?cursor=a%2Fb&limit=1");
    await agent.deadLetters.replay("d_9");
    await agent.deadLetters.purge("d_9");
    expect(gate.seen.at(-1)?.method).toBe("DELETE");
  });
});

test("a credential that processes share is not refreshed by the second with a token that the first has used up", async () => {
  const { keys, credential } = await fakeAgent();
  const gate = fakeGate({ "POST /hooks/agent": accept, "POST /v1/agents/auth/refresh": refresh });
  let stored = credential;
  const store: CredentialStore = { update: async (renew) => (stored = await renew(stored)) };
  const open = () =>
    createAgentClient({ baseUrl: BASE_URL, keys, credential, fetch: gate.fetch, now: () => NOON_MS + 900_000, store });
  const [one, other] = [open(), open()];
  await one.send({ to: PEER_DID, payload: 1 });
  await other.send({ to: PEER_DID, payload: 2 });
  expect(gate.to("/v1/agents/auth/refresh")).toHaveLength(1);
  expect(other.credential().refreshToken).toBe("refresh-2");
});

test("a refresh and a reissue at once lose nothing of each other", async () => {
  const ait = fakeAit({ issuedAtMs: NOON_MS, expiresAtMs: NOON_MS + 60 * DAY_MS });
  const { agent, stored } = await setUp({ "POST /v1/agents/reissue": () => ({ json: { ait } }) });
  await Promise.all([agent.refresh(), agent.reissue()]);
  expect(agent.credential()).toMatchObject({ ait, access: { token: "access-2" }, refreshToken: "refresh-2" });
  expect(stored.at(-1)).toEqual(agent.credential());
});
