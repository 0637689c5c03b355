import { describe, expect, test } from "vitest";
import {
  claimDeviceToken,
  createDeviceClient,
  createOperatorClient,
  createSharedClient,
  deviceIdOf,
  generateKeys,
  pairingDigest,
  rotateDeviceToken,
} from "../../../src/client/index.ts";
import {
  AGENT_DID,
  BASE_URL,
  fakeGate,
  isProven,
  proofOf,
  NOON_MS,
  PEER_DID,
  problem,
  type Route,
} from "../fake-gate.ts";

const DEVICE_ID = "A".repeat(22);
const ENDED = { deviceId: DEVICE_ID, epoch: 2, revokedAtMs: NOON_MS, fenced: { sockets: 1, inFlight: 0 } };

const called = (body: string) => JSON.parse(body) as { method: string; params: Record<string, unknown> };
const answering =
  (result: unknown): Route =>
  ({ body }) => ({ json: { jsonrpc: "2.0", id: (JSON.parse(body) as { id: unknown }).id, result } });

function operatorAt(result: unknown) {
  const gate = fakeGate({ "POST /rpc": answering(result) });
  const operator = createOperatorClient({ baseUrl: BASE_URL, token: "operator", fetch: gate.fetch });
  return { gate, operator, last: () => called(gate.seen.at(-1)?.body ?? "") };
}

describe("the client of a device", () => {
  test("shows its token, its agent and a proof by its own key", async () => {
    const keys = await generateKeys();
    const gate = fakeGate({ "POST /rpc": answering({ pending: [], paired: [] }) });
    const device = createDeviceClient({
      baseUrl: BASE_URL,
      fetch: gate.fetch,
      now: () => NOON_MS,
      keys,
      agentDid: AGENT_DID,
      token: "spd_token",
    });
    expect(await device.devices.list()).toEqual({ pending: [], paired: [] });
    const [request] = gate.seen;
    if (request === undefined) throw new Error("nothing was sent");
    expect(request.headers.get("Authorization")).toBe("Device spd_token");
    expect(request.headers.get("X-Claw-Agent-Did")).toBe(AGENT_DID);
    expect(await isProven(request, keys.publicKey)).toBe(true);
    expect(await isProven(request, (await generateKeys()).publicKey)).toBe(false);
  });

  test("signs each ticket and each call anew, and sets its clock by the server's", async () => {
    const keys = await generateKeys();
    let isRefused = true;
    const gate = fakeGate({
      "GET /v1/time": () => ({ json: { unixMs: NOON_MS } }),
      "POST /rpc": (request) => {
        const late = isRefused;
        isRefused = false;
        return late ? problem(401, "PROXY_AUTH_TIMESTAMP_SKEW") : answering({ pending: [], paired: [] })(request);
      },
    });
    const now = () => NOON_MS - 400_000;
    const options = { baseUrl: BASE_URL, fetch: gate.fetch, now, onClockCorrection: () => undefined };
    const device = createDeviceClient({ ...options, keys, agentDid: AGENT_DID, token: "spd_token" });
    await device.devices.list();
    const [first, second] = gate.to("/rpc");
    expect(proofOf(second!)?.createdSeconds).toBe(NOON_MS / 1_000);
    expect(proofOf(second!)?.nonce).not.toBe(proofOf(first!)?.nonce);
  });
});

test("the client of the shared secret shows it and its agent, and signs nothing", async () => {
  const gate = fakeGate({ "POST /rpc": answering({}) });
  const holder = createSharedClient({
    baseUrl: BASE_URL,
    fetch: gate.fetch,
    agentDid: AGENT_DID,
    secret: "sps_secret",
  });
  await holder.call("x");
  const headers = Object.fromEntries(gate.seen[0]?.headers ?? []);
  expect(headers).toMatchObject({ authorization: "Shared sps_secret", "x-claw-agent-did": AGENT_DID });
  expect(Object.keys(headers).filter((name) => name.startsWith("x-claw-"))).toEqual(["x-claw-agent-did"]);
});

describe("a claim", () => {
  test("is signed by the device's key, and has no token", async () => {
    const keys = await generateKeys();
    const token = { token: "spd_token", scopes: ["relay"], epoch: 1, expiresAtMs: NOON_MS };
    const gate = fakeGate({ "POST /v1/devices/claim": () => ({ json: token }) });
    const deviceId = await deviceIdOf(keys.publicKey);
    const options = { baseUrl: BASE_URL, fetch: gate.fetch, now: () => NOON_MS };
    expect(await claimDeviceToken({ ...options, keys, agentDid: AGENT_DID, deviceId })).toEqual(token);
    const [request] = gate.seen;
    if (request === undefined) throw new Error("nothing was sent");
    expect(JSON.parse(request.body)).toEqual({ agentDid: AGENT_DID, deviceId });
    expect(request.headers.has("Authorization")).toBe(false);
    expect(await isProven(request, keys.publicKey)).toBe(true);
  });

  test.each([
    [409, "PROXY_CONFLICT"],
    [401, "PROXY_AUTH_INVALID_TOKEN"],
  ])("that is refused with %d %s says so", async (status, code) => {
    const gate = fakeGate({ "POST /v1/devices/claim": () => problem(status, code) });
    const keys = await generateKeys();
    const claim = claimDeviceToken({
      baseUrl: BASE_URL,
      fetch: gate.fetch,
      keys,
      agentDid: AGENT_DID,
      deviceId: DEVICE_ID,
    });
    await expect(claim).rejects.toMatchObject({ name: "ProblemError", code, status });
  });
});

describe("a device that rotates itself", () => {
  const claimed = { token: "spd_2", scopes: ["relay"], epoch: 2, expiresAtMs: NOON_MS };
  const fenced = { sockets: 1, inFlight: 0 };
  const rotated = { ...claimed, deviceId: DEVICE_ID, rotatedAtMs: NOON_MS, tokenDelivery: "in-band", fenced };

  async function setUp(rotation: Route, claim: Route) {
    const keys = await generateKeys();
    const gate = fakeGate({ "POST /rpc": rotation, "POST /v1/devices/claim": claim });
    const options = { baseUrl: BASE_URL, fetch: gate.fetch, now: () => NOON_MS };
    return { gate, keys, rotate: () => rotateDeviceToken({ ...options, keys, agentDid: AGENT_DID, token: "spd_1" }) };
  }
  const lost: Route = () => Promise.reject(new TypeError("connection reset"));

  test("gets its next token with the answer", async () => {
    const { rotate, gate } = await setUp(answering(rotated), lost);
    expect(await rotate()).toEqual({ token: "spd_2", scopes: ["relay"], epoch: 2, fenced });
    expect(gate.to("/v1/devices/claim")).toEqual([]);
  });

  test.each([
    ["is lost", lost],
    ["is a gateway's", () => ({ status: 502, text: "bad gateway" })],
  ])("claims its next token by its key when the answer %s", async (_what, rotation) => {
    const { rotate, gate, keys } = await setUp(rotation, () => ({ json: claimed }));
    expect(await rotate()).toEqual({ token: "spd_2", scopes: ["relay"], epoch: 2, fenced: null });
    const [claim] = gate.to("/v1/devices/claim");
    expect(JSON.parse(claim?.body ?? "")).toEqual({ agentDid: AGENT_DID, deviceId: await deviceIdOf(keys.publicKey) });
    expect(gate.to("/rpc")).toHaveLength(1);
  });

  test("learns that the answer was lost, where nothing waits to be claimed", async () => {
    const { rotate } = await setUp(lost, () => problem(409, "PROXY_CONFLICT"));
    await expect(rotate()).rejects.toMatchObject({ name: "UnreachableError" });
  });

  test("claims nothing after a refusal", async () => {
    const { rotate, gate } = await setUp(() => problem(401, "PROXY_AUTH_INVALID_TOKEN"), lost);
    await expect(rotate()).rejects.toMatchObject({ code: "PROXY_AUTH_INVALID_TOKEN" });
    expect(gate.to("/v1/devices/claim")).toEqual([]);
  });
});

describe("the operator", () => {
  test("names the agent whose devices are meant", async () => {
    const { operator, last } = operatorAt(ENDED);
    const devices = operator.devicesOf(AGENT_DID);
    expect(await devices.revoke(DEVICE_ID)).toEqual(ENDED);
    const params = { agentDid: AGENT_DID, deviceId: DEVICE_ID };
    expect(last()).toMatchObject({ method: "device.token.revoke", params });
    await devices.remove(DEVICE_ID);
    expect(last()).toMatchObject({ method: "device.pair.remove", params });
    await devices.rename(DEVICE_ID, null);
    expect(last()).toMatchObject({ method: "device.pair.rename", params: { ...params, label: null } });
    await devices.reject("r");
    expect(last()).toMatchObject({ method: "device.pair.reject", params: { agentDid: AGENT_DID, requestId: "r" } });
  });

  test("reads the audit log and the trust by pages", async () => {
    const audit = operatorAt({ entries: [], nextCursor: "c" });
    expect(await audit.operator.audit({ subject: "s", limit: 1 })).toEqual({ entries: [], nextCursor: "c" });
    expect(audit.last()).toMatchObject({ method: "audit/list", params: { subject: "s", limit: 1 } });
    const trust = operatorAt({ pairs: [] });
    expect(await trust.operator.trust.list()).toEqual({ pairs: [], nextCursor: null });
    const removal = operatorAt({ removed: false });
    expect(await removal.operator.trust.remove(AGENT_DID, PEER_DID)).toBe(false);
    expect(removal.last()).toMatchObject({ params: { agentDid: AGENT_DID, peerAgentDid: PEER_DID } });
  });
});

describe("what an approval is bound to", () => {
  const request = { publicKey: "k".repeat(43), label: "laptop", scopes: ["relay", "send"] } as const;

  test("is the same however the scopes are ordered", async () => {
    expect(await pairingDigest({ ...request, scopes: ["send", "relay"] })).toBe(await pairingDigest(request));
  });

  test.each([
    ["another key", { publicKey: "K".repeat(43) }],
    ["another label", { label: "phone" }],
    ["no label", { label: null }],
    ["another scope more", { scopes: ["relay", "send", "admin"] as const }],
  ])("is another one for %s", async (_what, change) => {
    expect(await pairingDigest({ ...request, ...change })).not.toBe(await pairingDigest(request));
  });
});

/** The batch call of a client whose server answers this. */
function batchAt(json: unknown) {
  const gate = fakeGate({ "POST /rpc": () => ({ json }) });
  return { gate, ...createOperatorClient({ baseUrl: BASE_URL, token: "operator", fetch: gate.fetch }) };
}

describe("a batch", () => {
  const error = { code: -32053, message: "later", data: { code: "OVERLOADED", retryable: true, retryAfterMs: 7 } };

  test("finds each answer by its call, in whatever order they come", async () => {
    const { batch, gate } = batchAt([
      { jsonrpc: "2.0", id: 1, error },
      { jsonrpc: "2.0", id: 0, result: null },
    ]);
    const [first, second] = await batch([{ method: "a", params: { x: 1 } }, { method: "b" }]);
    expect(first).toEqual({ ok: true, result: null });
    expect(second).toMatchObject({
      ok: false,
      error: { name: "RpcError", code: "OVERLOADED", retryable: true, retryAfterMs: 7 },
    });
    expect(JSON.parse(gate.seen[0]?.body ?? "")).toEqual([
      { jsonrpc: "2.0", id: 0, method: "a", params: { x: 1 } },
      { jsonrpc: "2.0", id: 1, method: "b", params: {} },
    ]);
  });

  test("of none asks nothing, and of more than 50 is none", async () => {
    const { batch, gate } = batchAt([]);
    expect(await batch([])).toEqual([]);
    await expect(batch(Array.from({ length: 51 }, () => ({ method: "a" })))).rejects.toBeInstanceOf(RangeError);
    expect(gate.seen).toEqual([]);
  });

  test("that is refused as a whole, or answered in part, is an error", async () => {
    const refused = batchAt({ jsonrpc: "2.0", id: null, error: { code: -32600, message: "no" } });
    await expect(refused.batch([{ method: "a" }])).rejects.toMatchObject({ name: "RpcError", number: -32600 });
    const partial = batchAt([{ jsonrpc: "2.0", id: 0, result: 1 }]);
    await expect(partial.batch([{ method: "a" }, { method: "b" }])).rejects.toMatchObject({
      name: "UnexpectedAnswerError",
    });
  });
});
