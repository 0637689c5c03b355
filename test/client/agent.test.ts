import { describe, expect, test } from "vitest";
import { JsonText, RpcError } from "../../src/client/index.ts";
import { ACCEPTED, setUp } from "./agent-under-test.ts";
import { isProven, NOON_MS, PEER_DID, proofOf, type Route } from "./fake-gate.ts";

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
