import { randomUUID } from "node:crypto";
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
import { type Proxy, startProxy } from "../support/program/proxy.ts";
import { connectRelay } from "../support/program/relay-client.ts";

let proxy: Proxy;
let alice: Agent;
let bob: Agent;

beforeAll(async () => {
  proxy = await startProxy({ RELAY_QUEUE_TTL_MS: "2000" });
  alice = await register(proxy.url, "alice");
  bob = await register(proxy.url, "bob");
  await pair(proxy.url, alice, bob);
});
afterAll(() => proxy.stop());

/** Node's WebSocket takes headers, unlike a browser's. */
function open(path: string, headers: Record<string, string>, protocols: string[] = []): WebSocket {
  const options = { headers, protocols } as unknown as string[];
  return new WebSocket(`${proxy.url.replace("http", "ws")}${path}`, options);
}

const opened = (socket: WebSocket): Promise<boolean> =>
  new Promise((resolve) => {
    socket.addEventListener("open", () => resolve(true));
    socket.addEventListener("error", () => resolve(false));
  });

test("a relay socket speaks `sallyport.v1` where that is offered, and else what its ticket came by", async () => {
  const path = "/relay/connect";
  const byTicket = async (...beside: string[]): Promise<WebSocket> => {
    const { body } = await request(proxy.url, alice, { method: "POST", path: "/v1/relay/tickets", body: "{}" });
    return open(path, {}, [`sallyport.ticket.${(body as { ticket: string }).ticket}`, ...beside]);
  };
  const sockets: WebSocket[] = [];
  for (const make of [
    () => open(path, signedHeaders(bob, { method: "GET", path }), ["other.protocol", "sallyport.v1"]),
    () => byTicket("sallyport.v1"),
    () => byTicket(),
  ]) {
    const socket = await make();
    expect(await opened(socket)).toBe(true);
    sockets.push(socket);
  }
  expect(sockets.map(({ protocol }) => protocol)).toEqual([
    "sallyport.v1",
    "sallyport.v1",
    expect.stringMatching(/^sallyport\.ticket\./),
  ]);
  for (const socket of sockets) socket.close();
});

describe("a relay socket by a signed upgrade request", () => {
  test.each(["/relay/connect", "/v1/relay/connect"])("opens on %s and takes deliveries", async (path) => {
    const socket = open(path, signedHeaders(bob, { method: "GET", path }));
    const first = new Promise<string>((resolve) => {
      socket.addEventListener("message", ({ data }) => {
        if (String(data).includes(path)) resolve(String(data));
      });
    });
    expect(await opened(socket)).toBe(true);
    await expect(request(proxy.url, alice, hookOf(bob.did, { path }))).resolves.toMatchObject({ status: 202 });
    expect(JSON.parse(await first)).toMatchObject({ type: "deliver", payload: { path } });
    socket.close();
  });

  test("is refused a second time with the same nonce, and with another agent's key", async () => {
    const path = "/relay/connect";
    const headers = signedHeaders(bob, { method: "GET", path, nonce: randomUUID() });
    const socket = open(path, headers);
    expect(await opened(socket)).toBe(true);
    expect(await opened(open(path, headers))).toBe(false);
    expect(await opened(open(path, signedHeaders(bob, { method: "GET", path, key: alice.privateKey })))).toBe(false);
    socket.close();
  });

  test("is told to upgrade when it does not ask for a socket", async () => {
    const signed = { method: "GET", path: "/relay/connect" };
    const answer = await send(proxy.url, signed, signedHeaders(bob, signed));
    expect(answer).toMatchObject({ status: 426, body: { code: "PROXY_UPGRADE_REQUIRED" } });
  });
});

describe("what cannot be delivered", () => {
  test("is dead-lettered with a receipt, listed, replayed, delivered, and purged", async () => {
    const carol = await register(proxy.url, "carol");
    await pair(proxy.url, alice, carol);
    const sent = await request(proxy.url, alice, hookOf(carol.did, { never: "read" }));
    const relay = await connectRelay(proxy.url, alice);
    const receipt = await relay.next((frame) => frame["deliveryId"] === sent.body["deliveryId"], 20_000);
    expect(receipt).toMatchObject({
      deliveryId: sent.body["deliveryId"],
      toAgentDid: carol.did,
      status: "dead_lettered",
    });
    relay.close();
    const id = String(sent.body["deliveryId"]);
    await expect(request(proxy.url, alice, { method: "GET", path: `/v1/deliveries/${id}` })).resolves.toMatchObject({
      body: { state: "dead_lettered" },
    });
    const byAgent = await request(proxy.url, carol, { method: "GET", path: "/v1/dead-letters" });
    expect(byAgent.body).toMatchObject({ deadLetters: [{ id, fromAgentDid: alice.did, payload: { never: "read" } }] });
    const byOperator = await operator(proxy.url, "GET", `/v1/dead-letters?agentDid=${carol.did}`);
    expect(byOperator.body).toMatchObject({ deadLetters: [{ id }] });
    const atCarol = await connectRelay(proxy.url, carol);
    await expect(
      request(proxy.url, carol, { method: "POST", path: `/v1/dead-letters/${id}/replay` }),
    ).resolves.toMatchObject({ status: 200 });
    await atCarol.next((frame) => frame.type === "deliver" && frame["deliveryId"] === id);
    atCarol.close();
    await expect(
      request(proxy.url, carol, { method: "DELETE", path: `/v1/dead-letters/${id}` }),
    ).resolves.toMatchObject({ status: 404 });
  });
});
