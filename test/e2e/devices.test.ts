import { createHash, type KeyObject } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Agent, type Answer, newKey, operator, pair, register, request, send } from "../support/program/agents.ts";
import { proofHeaders } from "../support/signing.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";
import { connectRelay, openRelay, type RelayClient } from "../support/program/relay-client.ts";

type Device = { id: string; privateKey: KeyObject; x: string; token: string };
type RpcAnswer = { result?: Record<string, unknown>; error?: { code: number; data?: { code: string } } };

let proxy: Proxy;
let agent: Agent;
let peer: Agent;

beforeAll(async () => {
  proxy = await startProxy({ RATE_LIMIT_PER_AGENT: "0" });
});
// Each test has agents of its own: where a client has closed a socket before, workerd ends the connection of the next one
// that the gate closes only when the object falls asleep, ten seconds later.
beforeEach(async () => {
  agent = await register(proxy.url, "agent");
  peer = await register(proxy.url, "peer");
  await pair(proxy.url, agent, peer);
});
afterAll(async () => {
  if (process.env["SHOW_LOG"] !== undefined) console.log(proxy.output());
  await proxy.stop();
});

const rpcBody = (method: string, params: unknown): string => JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });

async function asOperator(method: string, params: Record<string, unknown>): Promise<RpcAnswer> {
  const answer = await operator(proxy.url, "POST", "/rpc", {
    jsonrpc: "2.0",
    id: 1,
    method,
    params: { agentDid: agent.did, ...params },
  });
  return answer.body;
}

async function asAgent(method: string, params: unknown): Promise<RpcAnswer> {
  return (await request(proxy.url, agent, { method: "POST", path: "/rpc", body: rpcBody(method, params) })).body;
}

function asDevice(device: Device, path: string, body: string): Promise<Answer> {
  const headers = {
    "Content-Type": "application/json",
    ...proofHeaders(device.privateKey, { method: "POST", path, body }),
    Authorization: `Device ${device.token}`,
    "X-Claw-Agent-Did": agent.did,
  };
  return send(proxy.url, { method: "POST", path, body }, headers);
}

function claim(device: { id: string; privateKey: KeyObject }): Promise<Answer> {
  const body = JSON.stringify({ agentDid: agent.did, deviceId: device.id });
  return send(
    proxy.url,
    { method: "POST", path: "/v1/devices/claim", body },
    {
      "Content-Type": "application/json",
      ...proofHeaders(device.privateKey, { method: "POST", path: "/v1/devices/claim", body }),
    },
  );
}

async function pairDevice(scopes: string[]): Promise<Device> {
  const { privateKey, x } = newKey();
  const requested = await asAgent("device.pair.request", { publicKey: x, label: "laptop", scopes });
  const { requestId, deviceId, digest } = requested.result as { requestId: string; deviceId: string; digest: string };
  expect(deviceId).toBe(createHash("sha256").update(Buffer.from(x, "base64url")).digest("base64url").slice(0, 22));
  const approved = await asOperator("device.pair.approve", { requestId, digest });
  expect(approved.result).toMatchObject({ deviceId, scopes });
  const claimed = await claim({ id: deviceId, privateKey });
  expect(claimed.status).toBe(200);
  return { id: deviceId, privateKey, x, token: claimed.body["token"] as unknown as string };
}

async function connectDevice(device: Device): Promise<RelayClient> {
  const issued = await asDevice(device, "/v1/relay/tickets", "{}");
  expect(issued.status).toBe(200);
  return openRelay(proxy.url, String(issued.body["ticket"]));
}

describe("pairing a device", () => {
  test("hands its token over once, and to the device's own key alone", async () => {
    const device = await pairDevice(["relay", "send"]);
    expect(device.token).toMatch(/^spd_[A-Za-z0-9_-]{43}$/);
    await expect(claim(device)).resolves.toMatchObject({ status: 409 });
    await expect(claim({ ...device, privateKey: newKey().privateKey })).resolves.toMatchObject({
      status: 401,
      body: { code: "PROXY_AUTH_INVALID_TOKEN" },
    });
    const stolen = await asDevice({ ...device, privateKey: newKey().privateKey }, "/v1/relay/tickets", "{}");
    expect(stolen).toMatchObject({ status: 401, body: { code: "PROXY_AUTH_INVALID_TOKEN" } });
  });

  test("is not approved by the agent that asked for it", async () => {
    const { x } = newKey();
    const requested = await asAgent("device.pair.request", { publicKey: x, scopes: ["relay"] });
    const { requestId, digest } = requested.result as { requestId: string; digest: string };
    expect((await asAgent("device.pair.approve", { requestId, digest })).error?.data?.code).toBe("PROXY_NOT_FOUND");
    const wrong = await asOperator("device.pair.approve", { requestId, digest: "A".repeat(43) });
    expect(wrong.error?.data?.code).toBe("PROXY_NOT_FOUND");
  });

  test("carries messages both ways", async () => {
    const device = await pairDevice(["relay", "send"]);
    const relay = await connectDevice(device);
    const atPeer = await connectRelay(proxy.url, peer);
    relay.send({ type: "enqueue", toAgentDid: peer.did, payload: { from: "a device" } });
    expect(await relay.next((frame) => frame.type === "enqueue_ack")).toMatchObject({ accepted: true });
    expect(
      await atPeer.next((frame) => frame.type === "deliver" && JSON.stringify(frame["payload"]).includes("a device")),
    ).toMatchObject({ fromAgentDid: agent.did });
    relay.close();
    atPeer.close();
  });
});

describe("rotating and revoking", () => {
  test("ends the old token and its sockets, and the device claims the new one", async () => {
    const device = await pairDevice(["relay"]);
    const relay = await connectDevice(device);
    const rotated = await asOperator("device.token.rotate", { deviceId: device.id });
    expect(rotated.result).toMatchObject({
      deviceId: device.id,
      tokenDelivery: "claim",
      epoch: 2,
      fenced: { sockets: 1 },
    });
    expect(rotated.result).not.toHaveProperty("token");
    await expect(asDevice(device, "/v1/relay/tickets", "{}")).resolves.toMatchObject({
      status: 401,
      body: { code: "PROXY_AUTH_CLIENT_INVALIDATED" },
    });
    await expect(relay.closed).resolves.toEqual({ code: 4001, reason: "client invalidated: rotated" });
    const again = await claim(device);
    expect(again).toMatchObject({ status: 200, body: { epoch: 2 } });
    const renewed = { ...device, token: again.body["token"] as unknown as string };
    await expect(asDevice(renewed, "/v1/relay/tickets", "{}")).resolves.toMatchObject({ status: 200 });
  });

  test("lets a device rotate itself over its socket: the answer first, then the close", async () => {
    const device = await pairDevice(["relay", "send"]);
    const relay = await connectDevice(device);
    relay.send({
      type: "req",
      id: "r1",
      method: "device.token.rotate",
      params: { deviceId: device.id, scopes: ["relay"] },
    });
    const answer = await relay.next((frame) => frame.type === "res");
    expect(answer).toMatchObject({
      id: "r1",
      ok: true,
      payload: { tokenDelivery: "in-band", scopes: ["relay"], epoch: 2 },
    });
    await expect(relay.closed).resolves.toEqual({ code: 4001, reason: "client invalidated: rotated" });
    const renewed = { ...device, token: (answer["payload"] as { token: string }).token };
    await expect(asDevice(renewed, "/v1/relay/tickets", "{}")).resolves.toMatchObject({ status: 200 });
  });

  test("revokes for good, twice with the same answer, and refuses to rotate what is revoked", async () => {
    const device = await pairDevice(["relay"]);
    const first = await asOperator("device.token.revoke", { deviceId: device.id });
    const second = await asOperator("device.token.revoke", { deviceId: device.id });
    expect(second.result).toMatchObject({ epoch: first.result?.["epoch"], revokedAtMs: first.result?.["revokedAtMs"] });
    expect((await asOperator("device.token.rotate", { deviceId: device.id })).error?.data?.code).toBe(
      "PROXY_NOT_FOUND",
    );
    await expect(claim(device)).resolves.toMatchObject({ status: 401 });
    await proxy.restart();
    await expect(asDevice(device, "/v1/relay/tickets", "{}")).resolves.toMatchObject({
      status: 401,
      body: { code: "PROXY_AUTH_CLIENT_INVALIDATED" },
    });
  });

  test("ends the holders of the shared secret when it is rotated", async () => {
    const first = await asAgent("shared.auth.rotate", {});
    const headers = {
      Authorization: `Shared ${String(first.result?.["secret"])}`,
      "X-Claw-Agent-Did": agent.did,
      "Content-Type": "application/json",
    };
    const issued = await send(proxy.url, { method: "POST", path: "/v1/relay/tickets", body: "{}" }, headers);
    expect(issued.status).toBe(200);
    const relay = await openRelay(proxy.url, String(issued.body["ticket"]));
    const second = await asAgent("shared.auth.rotate", {});
    expect(second.result).toMatchObject({ generation: 2, fenced: { sockets: 1 } });
    await expect(relay.closed).resolves.toEqual({ code: 4001, reason: "gateway auth changed" });
    await expect(
      send(proxy.url, { method: "POST", path: "/v1/relay/tickets", body: "{}" }, headers),
    ).resolves.toMatchObject({ status: 401 });
  });
});
