/** The way to a relay socket: by headers or by ticket, from which origins, and how often. */
import { runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import type { Config } from "../../../src/config.ts";
import { runtimeOf } from "../../../src/runtime.ts";
import { signProof } from "../../../src/wire/proof.ts";
import {
  gateStub,
  hashOf,
  type Holder,
  newAgent,
  newAgentHolder,
  newSharedSecret,
  open,
  pairDevice,
  withMethods,
} from "../../support/gate-participants.ts";
import { eventually } from "../../support/gate.ts";

const ORIGIN = "https://proxy.example";

beforeAll(() => withMethods([]));

/** Settings of the tests' isolate, put back after each. */
let undo: (() => void)[] = [];
afterEach(() => {
  for (const each of undo) each();
  undo = [];
});
async function set(over: Partial<Config>): Promise<void> {
  const inside = await runInDurableObject(gateStub(newAgent()), (gate) => (gate as unknown as { env: Env }).env);
  for (const each of new Set([env, inside])) {
    const { config } = runtimeOf(each);
    const before = { ...config };
    undo.push(() => Object.assign(config, before));
    Object.assign(config, over);
  }
}

async function headersOf(holder: Exclude<Holder, { kind: "agent" }>): Promise<Record<string, string>> {
  if (holder.kind === "shared") return { Authorization: `Shared ${holder.secret}`, "X-Claw-Agent-Did": holder.did };
  const signed = {
    method: "GET",
    pathWithQuery: "/relay/connect",
    timestamp: String(Math.floor(Date.now() / 1_000)),
    nonce: crypto.randomUUID(),
    bodySha256: await hashOf(""),
  };
  return {
    Authorization: `Device ${holder.token}`,
    "X-Claw-Agent-Did": holder.did,
    "X-Claw-Timestamp": signed.timestamp,
    "X-Claw-Nonce": signed.nonce,
    "X-Claw-Body-SHA256": signed.bodySha256,
    "X-Claw-Proof": await signProof(holder.key.privateKey, signed),
  };
}

function connect(headers: Record<string, string>): Promise<Response> {
  return exports.default.fetch(`${ORIGIN}/relay/connect`, { headers: { Upgrade: "websocket", ...headers } });
}

describe("a socket by headers", () => {
  test.each(["device", "shared"] as const)("opens for the holder of a %s credential", async (kind) => {
    const agent = newAgentHolder(newAgent());
    const holder = kind === "device" ? await pairDevice(agent, ["relay", "send"]) : await newSharedSecret(agent.did);
    const response = await connect(await headersOf(holder));
    expect(response.status).toBe(101);
    response.webSocket?.accept();
    response.webSocket?.close();
  });

  test("does not open for a device's token with another's proof", async () => {
    const agent = newAgentHolder(newAgent());
    const [device, other] = [await pairDevice(agent, ["relay"]), await pairDevice(agent, ["relay"])];
    const response = await connect(await headersOf({ ...device, key: other.key }));
    expect(response.status).toBe(401);
    expect(await response.json()).toMatchObject({ code: "PROXY_AUTH_INVALID_TOKEN" });
  });

  test("does not open under a token that was ended, which is told to a valid proof alone", async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    await gateStub(agent.did).call({
      caller: { kind: "operator" },
      surface: "rpc",
      requestId: "test-request",
      origin: null,
      bookmark: null,
      calls: [{ method: "device.token.revoke", params: { deviceId: device.deviceId } }],
    });
    const told = await connect(await headersOf(device));
    expect(await told.json()).toMatchObject({ code: "PROXY_AUTH_CLIENT_INVALIDATED" });
    const stranger = await pairDevice(agent, ["relay"]);
    const untold = await connect(await headersOf({ ...device, key: stranger.key }));
    expect(await untold.json()).toMatchObject({ code: "PROXY_AUTH_INVALID_TOKEN" });
  });
});

describe("a page of another origin", () => {
  const ticket = { "Sec-WebSocket-Protocol": `sallyport.ticket.spw_${"t".repeat(43)}.x` };

  test.each([
    { origin: "https://elsewhere.example", status: 403 },
    { origin: "null", status: 403 },
    { origin: `${ORIGIN}.evil.example`, status: 403 },
    { origin: "https://console.example:8443", status: 403 },
    { origin: "https://console.example", status: 401 },
    { origin: ORIGIN, status: 401 },
  ])(
    "$origin: $status before the ticket is looked at, unless it is listed or the proxy's own",
    async ({ origin, status }) => {
      await set({ relayAllowedOrigins: ["https://console.example"] });
      using warned = vi.spyOn(console, "warn");
      const response = await connect({ ...ticket, Origin: origin });
      expect(response.status).toBe(status);
      await response.body?.cancel();
      const lines = warned.mock.calls.map(([line]) => JSON.parse(String(line)) as Record<string, unknown>);
      const logged = lines.filter(({ event }) => event === "relay.refused");
      expect(logged).toHaveLength(1);
      if (status === 403) expect(logged[0]).toMatchObject({ reason: "origin not allowed", pageOrigin: origin });
      expect(JSON.stringify(logged)).not.toContain("t".repeat(43));
    },
  );
});

describe("the agent's rate", () => {
  test("counts calls and sends over its sockets too, and says when to come again", async () => {
    await set({ rateLimitPerAgent: 8 });
    const agent = newAgentHolder(newAgent());
    const line = await open(agent);
    for (let call = 0; call < 12; call += 1) line.say({ type: "req", method: "device.pair.list" });
    await eventually(() => expect(line.frames).toHaveLength(12));
    const refused = line.frames.filter((frame) => frame["ok"] === false);
    // The request for the socket was the first of the eight.
    expect(refused).toHaveLength(5);
    for (const frame of refused) expect(frame).toMatchObject({ error: { code: "OVERLOADED", retryable: true } });
    const { retryAfterMs } = (refused[0] as unknown as { error: { retryAfterMs: number } }).error;
    expect(retryAfterMs).toBeGreaterThan(50_000);
    expect(retryAfterMs).toBeLessThanOrEqual(60_000);
  });
});
