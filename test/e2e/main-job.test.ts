import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type Agent,
  hookOf,
  operator,
  pair,
  register,
  request,
  send,
  signedHeaders,
} from "../support/program/agents.ts";
import { type Proxy, startDevProxy } from "../support/program/proxy.ts";
import { connectRelay } from "../support/program/relay-client.ts";

const TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

let proxy: Proxy;
let alice: Agent;
let bob: Agent;

beforeAll(async () => {
  proxy = await startDevProxy();
  alice = await register(proxy.url, "alice");
  bob = await register(proxy.url, "bob");
});
afterAll(async () => {
  if (process.env["SHOW_LOG"] !== undefined) console.log(proxy.output());
  await proxy.stop();
});

describe("the main job", () => {
  test("refuses a message before pairing", async () => {
    const answer = await request(proxy.url, alice, hookOf(bob.did, { hello: "bob" }));
    expect(answer).toMatchObject({ status: 403, body: { code: "PROXY_AUTH_FORBIDDEN" } });
  });

  test("pairs, and tells the initiator over its relay", async () => {
    const paired = await pair(proxy.url, alice, bob);
    expect(paired).toMatchObject({
      status: 201,
      body: { paired: true, initiatorAgentDid: alice.did, responderAgentDid: bob.did, notified: true },
    });
    const relay = await connectRelay(proxy.url, alice);
    const frame = await relay.next((each) => each.type === "deliver");
    expect(frame).toMatchObject({
      fromAgentDid: null,
      toAgentDid: alice.did,
      payload: { kind: "pair.confirmed", responderAgentDid: bob.did },
    });
    relay.close();
    await relay.closed;
    const peers = await request(proxy.url, alice, { method: "GET", path: "/pair/peers" });
    expect(peers.body).toMatchObject({ peers: [{ agentDid: bob.did, agentName: "responder" }] });
  });

  test("delivers, and reports it as delivered", async () => {
    const relay = await connectRelay(proxy.url, bob);
    const answer = await request(
      proxy.url,
      alice,
      hookOf(bob.did, { hello: "bob" }, { Prefer: "wait=5", "X-Claw-Conversation-Id": "c1", traceparent: TRACEPARENT }),
    );
    expect(answer).toMatchObject({
      status: 202,
      body: { accepted: true, state: "delivered", delivered: true, queued: false, queueDepth: 0 },
    });
    const frame = await relay.next((each) => each.type === "deliver");
    expect(frame).toMatchObject({
      v: 1,
      fromAgentDid: alice.did,
      toAgentDid: bob.did,
      payload: { hello: "bob" },
      conversationId: "c1",
      traceparent: TRACEPARENT,
      deliveryId: answer.body["deliveryId"],
    });
    const status = await request(proxy.url, alice, {
      method: "GET",
      path: `/v1/deliveries/${String(answer.body["deliveryId"])}`,
    });
    expect(status.body).toMatchObject({ state: "delivered", attempts: 1 });
    relay.close();
  });

  test("keeps what is sent to an agent that is offline, over a SIGKILL, and refuses the replay after it", async () => {
    const signed = hookOf(bob.did, { while: "you were out" });
    const headers = signedHeaders(alice, signed);
    const answer = await send(proxy.url, signed, headers);
    expect(answer).toMatchObject({ status: 202, body: { state: "queued", queueDepth: 1 } });
    await expect(send(proxy.url, signed, headers)).resolves.toMatchObject({
      status: 401,
      body: { code: "PROXY_AUTH_REPLAY" },
    });
    await proxy.restart();
    await expect(send(proxy.url, signed, headers)).resolves.toMatchObject({
      status: 401,
      body: { code: "PROXY_AUTH_REPLAY" },
    });
    const relay = await connectRelay(proxy.url, bob);
    const frame = await relay.next((each) => each.type === "deliver");
    expect(frame).toMatchObject({ payload: { while: "you were out" }, deliveryId: answer.body["deliveryId"] });
    relay.close();
  });

  test("refuses a revoked agent at once and closes its socket with 4001", async () => {
    const carol = await register(proxy.url, "carol");
    await pair(proxy.url, carol, bob);
    const relay = await connectRelay(proxy.url, carol);
    const revoked = await operator(proxy.url, "POST", "/v1/agents/revoke", { agentDid: carol.did, reason: "test" });
    expect(revoked).toMatchObject({ status: 200, body: { revoked: true, fenced: { sockets: 1 } } });
    await expect(relay.closed).resolves.toEqual({ code: 4001, reason: "agent revoked" });
    await expect(request(proxy.url, carol, hookOf(bob.did, {}))).resolves.toMatchObject({
      status: 401,
      body: { code: "PROXY_AUTH_REVOKED" },
    });
  });
});
