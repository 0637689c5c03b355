/** Devices, holders of the shared secret, and how a relay connection ends or comes back: the client against the real program. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import {
  type AgentClient,
  claimDeviceToken,
  createAgentClient,
  createApiKeyClient,
  createDeviceClient,
  createOperatorClient,
  createSharedClient,
  generateKeys,
  type Keys,
  type OperatorClient,
  type RelayClient,
  type RelayConnection,
  type Scope,
} from "../../src/client/index.ts";
import { type WebSocketProxy, startWebSocketProxy } from "../support/websocket-proxy.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";

let proxy: Proxy;
let socketProxy: WebSocketProxy;
let operator: OperatorClient;
let alice: AgentClient;
let bob: AgentClient;

const profile = { agentName: "agent", humanName: "Ann" };

async function newAgent(name: string): Promise<AgentClient> {
  const keys = await generateKeys();
  const credential = await operator.registerAgent({ name, framework: "test", publicKey: keys.publicKey });
  return createAgentClient({ baseUrl: socketProxy.url, keys, credential });
}

beforeAll(async () => {
  proxy = await startProxy({ RATE_LIMIT_PER_AGENT: "0" });
  socketProxy = await startWebSocketProxy(proxy.url);
  operator = createOperatorClient({ baseUrl: proxy.url, token: OPERATOR_TOKEN });
  [alice, bob] = [await newAgent("alice"), await newAgent("bob")];
  const { ticket } = await alice.pairing.start({ profile });
  await bob.pairing.confirm({ ticket, profile });
});
afterAll(async () => {
  socketProxy.close();
  if (process.env["SHOW_LOG"] !== undefined) console.log(proxy.output());
  await proxy.stop();
});

type Device = { keys: Keys; deviceId: string; token: string; client: RelayClient };

async function newDevice(scopes: Scope[] = ["relay", "send"]): Promise<Device> {
  const keys = await generateKeys();
  const { requestId, digest, deviceId } = await alice.devices.request({ publicKey: keys.publicKey, scopes });
  await operator.devicesOf(alice.agentDid).approve({ requestId, digest });
  const { token } = await claimDeviceToken({ baseUrl: proxy.url, keys, agentDid: alice.agentDid, deviceId });
  return { keys, deviceId, token, client: deviceClient(keys, token) };
}

const deviceClient = (keys: Keys, token: string): RelayClient =>
  createDeviceClient({ baseUrl: socketProxy.url, keys, agentDid: alice.agentDid, token });

/** Connects, and is told of each message and each state. */
async function connect(client: RelayClient | AgentClient) {
  const payloads: unknown[] = [];
  const states: string[] = [];
  const relay: RelayConnection = client.connect(
    {
      onMessage: ({ payload, fromAgentDid }) => void (fromAgentDid === null || payloads.push(payload)),
      onState: (state) => void states.push(state),
    },
    { backoffInitialMs: 50, backoffMaxMs: 500 },
  );
  onTestFinished(() => relay.close());
  await relay.opened();
  return { relay, payloads, states };
}

describe("a device", () => {
  test("claims its token once, by its own key alone", async () => {
    const { keys, deviceId, client } = await newDevice();
    const claim = (by: Keys) => claimDeviceToken({ baseUrl: proxy.url, keys: by, agentDid: alice.agentDid, deviceId });
    await expect(claim(keys)).rejects.toMatchObject({ code: "PROXY_CONFLICT", status: 409 });
    await expect(claim(await generateKeys())).rejects.toMatchObject({ code: "PROXY_AUTH_INVALID_TOKEN", status: 401 });
    expect(await client.devices.list()).toMatchObject({ pending: [], paired: [{ deviceId, status: "active" }] });
  });

  test("writes and receives over its socket, and calls over it", async () => {
    const { client, deviceId } = await newDevice();
    const [phone, peer] = [await connect(client), await connect(bob)];
    const { deliveryId } = await phone.relay.enqueue({ to: bob.agentDid, payload: "from a device" });
    expect(deliveryId).not.toBeNull();
    await expect.poll(() => peer.payloads).toContain("from a device");
    await bob.send({ to: alice.agentDid, payload: "to a device", waitSeconds: 10 });
    expect(phone.payloads).toEqual(["to a device"]);
    expect(await phone.relay.call("device.pair.list")).toMatchObject({ paired: [{ deviceId }] });
    await expect(phone.relay.call("shared.auth.rotate")).rejects.toMatchObject({ name: "RpcError" });
  });

  test("is connected beside its agent and other devices, and nobody supersedes anybody", async () => {
    const [one, two] = [await newDevice(["send"]), await newDevice(["send"])];
    const connections = [await connect(alice), await connect(one.client), await connect(two.client)];
    connections.push(await connect(one.client));
    expect(await one.client.call("device.pair.list")).toMatchObject({ paired: [{ deviceId: one.deviceId }] });
    expect(connections.map(({ relay }) => relay.state())).toEqual(["open", "open", "open", "open"]);
  });

  test.each(["rotated", "revoked", "removed"] as const)("that is %s stops, says why, and stays out", async (how) => {
    const { deviceId, client, keys } = await newDevice();
    const { relay, states } = await connect(client);
    const verb = { rotated: "rotate", revoked: "revoke", removed: "remove" } as const;
    const ended = await operator.devicesOf(alice.agentDid)[verb[how]](deviceId);
    expect(ended.fenced.sockets).toBe(1);
    expect(await relay.ended).toEqual({
      why: "credential-ended",
      detail: `client invalidated: ${how}`,
      closeCode: 4001,
      error: null,
    });
    expect(states).toEqual(["open", "stopped"]);
    await expect(client.devices.list()).rejects.toMatchObject({ code: "PROXY_AUTH_CLIENT_INVALIDATED", status: 401 });
    const again = client.connect({ onMessage: () => undefined });
    expect(await again.ended).toMatchObject({ why: "credential-ended", closeCode: null });

    const claim = claimDeviceToken({ baseUrl: proxy.url, keys, agentDid: alice.agentDid, deviceId });
    if (how !== "rotated") {
      await expect(claim).rejects.toMatchObject({ code: "PROXY_AUTH_INVALID_TOKEN" });
      return;
    }
    const renewed = await connect(deviceClient(keys, (await claim).token));
    expect(renewed.relay.state()).toBe("open");
  });

  test("that rotates itself over its socket has the answer before the socket ends, and goes on with it", async () => {
    const { deviceId, client, keys } = await newDevice();
    const { relay } = await connect(client);
    const rotated = (await relay.call("device.token.rotate", { deviceId })) as { token: string; tokenDelivery: string };
    expect(rotated.tokenDelivery).toBe("in-band");
    expect(await relay.ended).toMatchObject({ why: "credential-ended", detail: "client invalidated: rotated" });
    const again = await connect(deviceClient(keys, rotated.token));
    expect(await again.relay.enqueue({ to: bob.agentDid, payload: 1 })).toMatchObject({
      deliveryId: expect.any(String) as string,
    });
  });
});

test("whoever holds the shared secret writes for the agent, until it is another one", async () => {
  const { secret } = await alice.devices.rotateSharedSecret();
  const holder = createSharedClient({ baseUrl: socketProxy.url, agentDid: alice.agentDid, secret });
  const { relay } = await connect(holder);
  const peer = await connect(bob);
  await relay.enqueue({ to: bob.agentDid, payload: "by the secret" });
  await expect.poll(() => peer.payloads).toContain("by the secret");
  await expect(holder.devices.list()).rejects.toMatchObject({ name: "RpcError" });

  const next = await alice.devices.rotateSharedSecret();
  expect(next.fenced.sockets).toBe(1);
  expect(await relay.ended).toMatchObject({ why: "credential-ended", detail: "gateway auth changed", closeCode: 4001 });
  await expect(holder.call("device.pair.list")).rejects.toMatchObject({
    code: "PROXY_AUTH_INVALID_TOKEN",
    status: 401,
  });
  const renewed = createSharedClient({ baseUrl: socketProxy.url, agentDid: alice.agentDid, secret: next.secret });
  expect((await connect(renewed)).relay.state()).toBe("open");
});

test("a service account calls with its API key within its scopes, until the key is deleted", async () => {
  const wanted = { name: "ci", scopes: ["devices"] };
  const created = (await alice.call("apikey/create", wanted)) as { apiKeyId: string; key: string };
  const account = createApiKeyClient({ baseUrl: socketProxy.url, key: created.key });
  expect(await account.call("device.pair.list")).toMatchObject({ pending: expect.any(Array) as unknown });
  const [list, admin] = await account.batch([{ method: "device.pair.list" }, { method: "shared.auth.rotate" }]);
  expect(list.ok).toBe(true);
  expect(admin).toMatchObject({ ok: false, error: { name: "RpcError", code: "PROXY_AUTH_FORBIDDEN" } });
  await alice.call("apikey/delete", { apiKeyId: created.apiKeyId });
  await expect(account.call("device.pair.list")).rejects.toMatchObject({ name: "ProblemError", status: 401 });
});

describe("a batch", () => {
  test("answers each call in its place, whatever became of the others", async () => {
    const [list, none, again] = await alice.batch([
      { method: "device.pair.list" },
      { method: "no/such/method" },
      { method: "device.pair.reject", params: { requestId: "01K9ZJ8Q6V3N5T7W2X4Y6Z8A0B" } },
    ]);
    expect(list).toMatchObject({ ok: true, result: { pending: [] } });
    expect(none).toMatchObject({ ok: false, error: { number: -32601 } });
    expect(again).toMatchObject({ ok: false, error: { code: "PROXY_NOT_FOUND" } });
    expect(
      await operator.batch([{ method: "trust/list" }, { method: "audit/list", params: { limit: 1 } }]),
    ).toMatchObject([
      { ok: true, result: { pairs: expect.any(Array) as unknown } },
      { ok: true, result: { entries: [expect.anything()] } },
    ]);
  });

  test("is refused from where it has ended its own authority", async () => {
    const { client, deviceId } = await newDevice();
    const [before, end, after] = await client.batch([
      { method: "device.pair.list" },
      { method: "device.token.revoke", params: { deviceId } },
      { method: "device.pair.list" },
    ]);
    expect([before.ok, end.ok, after.ok]).toEqual([true, true, false]);
    expect(after).toMatchObject({ error: { number: -32001 } });
  });
});

describe("a connection whose socket ends", () => {
  test.each([
    ["without a close frame", null],
    ["for a restart, 1012", 1012],
    ["normally, 1000", 1000],
  ])("%s comes back and gets what was accepted meanwhile", async (what, code) => {
    const { client } = await newDevice();
    const { relay, states, payloads } = await connect(client);
    socketProxy.endSockets(code);
    await expect.poll(() => states, { timeout: 10_000 }).toEqual(["open", "waiting", "connecting", "open"]);
    await bob.send({ to: alice.agentDid, payload: what, waitSeconds: 10 });
    await expect.poll(() => payloads, { timeout: 10_000 }).toContain(what);
    await relay.enqueue({ to: bob.agentDid, payload: 1 });
  });

  test.each([
    [1008, "policy", "policy"],
    [1000, "superseded", "superseded"],
    [4001, "client invalidated: removed", "credential-ended"],
  ] as const)("with %d %s stops and says why", async (code, reason, why) => {
    const { client } = await newDevice();
    const { relay, states } = await connect(client);
    socketProxy.endSockets(code, reason);
    expect(await relay.ended).toEqual({ why, detail: reason, closeCode: code, error: null });
    expect(states).toEqual(["open", "stopped"]);
    await expect(relay.enqueue({ to: bob.agentDid, payload: 1 })).rejects.toMatchObject({ code: "RELAY_STOPPED" });
  });
});
