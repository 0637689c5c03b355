/**
 * What each HTTP entrance costs for the dearest input it takes, before a bound counts its caller: nothing is parsed, no more is
 * read than the table of docs/security.md says, and no bytes stay held. Counted, not timed.
 */
import { env } from "cloudflare:workers";
import { beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { runtimeOf } from "../../src/runtime.ts";
import { encodeBase64Url } from "../../src/wire/base64url.ts";
import { watch } from "../support/db-spy.ts";
import {
  type Agent,
  apiKeyOf,
  authorization,
  type Caller,
  type Device,
  fetchWorker,
  pairDevice,
  register,
} from "../support/world.ts";

const MIB = 1_048_576;
const CELL = '{"0":1},';
/** An array of many small objects is what costs a parser most for its size. */
const dear = (bytes: number): string => `[${CELL.repeat(Math.floor((bytes - 2 - CELL.length) / CELL.length))}{"0":1}]`;
const secret = (prefix: string): string => prefix + encodeBase64Url(crypto.getRandomValues(new Uint8Array(32)));

let agent: Agent;
let device: Device;
let nobody: Device;
beforeAll(async () => {
  agent = await register();
  device = await pairDevice(agent, ["relay", "send"]);
  const { privateKey } = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
  nobody = { kind: "device", agentDid: agent.did, deviceId: "", token: secret("spd_"), key: privateKey };
});

beforeEach(() => {
  vi.spyOn(console, "warn").mockReturnValue();
  vi.spyOn(console, "log").mockReturnValue();
  onTestFinished(() => void vi.restoreAllMocks());
});

let addresses = 0;

type Cost = { statuses: Set<number>; parsed: number; trips: number; heldBytes: number };

/** Sends so many requests from one address, and counts what they cost the isolate, its gates included. */
async function costOf(calls: number, ask: () => Promise<Request> | Request): Promise<Cost> {
  const { db, trips } = watch(env.DB);
  const settings = { ...env, DB: db } as Env;
  const address = `203.0.113.${(addresses += 1)}`;
  const parse = vi.spyOn(JSON, "parse");
  const statuses = new Set<number>();
  for (let call = 0; call < calls; call += 1) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    const request = await ask();
    request.headers.set("CF-Connecting-IP", address);
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    const answer = await fetchWorker(request, settings);
    statuses.add(answer.status);
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await answer.arrayBuffer();
  }
  const parsed = parse.mock.calls.filter(([text]) => String(text).startsWith(`[${CELL}`)).length;
  parse.mockRestore();
  return { statuses, parsed, trips: trips.length, heldBytes: runtimeOf(settings).bodies.heldBytes() };
}

async function signed(caller: Caller, path: string, body: string, more: Record<string, string> = {}): Promise<Request> {
  const headers = { ...(await authorization(caller, body, { method: "POST", path })), ...more };
  return new Request(`https://proxy.example${path}`, { method: "POST", body, headers });
}

/** The agent's own token, broken in its signature. */
const forged = (): string => `Claw ${agent.ait.slice(0, -8)}AAAAAAA${agent.ait.slice(-1)}`;
const bearing = (path: string, credential: string) => () =>
  new Request(`https://proxy.example${path}`, {
    method: "POST",
    body: dear(MIB),
    headers: { Authorization: credential, "X-Claw-Agent-Did": agent.did, "Content-Type": "application/json" },
  });

type Entrance = { ask: () => Promise<Request> | Request; tripsPerCall: number };
const STRANGERS: Record<string, Entrance> = {
  // Whether the agent is registered is looked at once in an isolate.
  "POST /rpc as a device": { ask: () => signed(nobody, "/rpc", dear(MIB)), tripsPerCall: 0.2 },
  "POST /rpc with a shared secret": { ask: () => bearing("/rpc", `Shared ${secret("sps_")}`)(), tripsPerCall: 0.2 },
  "POST /rpc with an API key": { ask: () => bearing("/rpc", `Bearer ${secret("spk_")}`)(), tripsPerCall: 1 },
  "POST /rpc with an operator's token": { ask: bearing("/rpc", "Bearer guess-of-an-operator"), tripsPerCall: 0 },
  "POST /rpc with an operator's key": { ask: () => bearing("/rpc", `Bearer ${secret("spo_")}`)(), tripsPerCall: 1 },
  // Its key and the list are looked at once in an isolate.
  "POST /rpc with a forged token": {
    ask: () => signed(nobody, "/rpc", dear(MIB), { Authorization: forged(), "X-Claw-Agent-Access": "any" }),
    tripsPerCall: 0.6,
  },
  "POST /hooks/agent with a forged token": {
    ask: () =>
      signed(nobody, "/hooks/agent", dear(MIB), {
        Authorization: forged(),
        "X-Claw-Agent-Access": "any",
        "X-Claw-Recipient-Agent-Did": agent.did.replace(/.$/, (last) => (last === "0" ? "1" : "0")),
      }),
    tripsPerCall: 0.6,
  },
  "POST /pair/start with a forged token": {
    ask: () => signed(nobody, "/pair/start", dear(MIB), { Authorization: forged() }),
    tripsPerCall: 0.6,
  },
  "POST /v1/agents with an operator's token": { ask: bearing("/v1/agents", "Bearer guess"), tripsPerCall: 0 },
  "POST /v1/devices/claim": { ask: () => signed(nobody, "/v1/devices/claim", dear(MIB)), tripsPerCall: 0 },
  "POST /v1/agents/enroll": {
    ask: () => signed(nobody, "/v1/agents/enroll", dear(MIB), { Authorization: `Invite ${secret("spi_")}` }),
    tripsPerCall: 0,
  },
  "POST /v1/agents/auth/validate": { ask: bearing("/v1/agents/auth/validate", "Bearer any"), tripsPerCall: 0 },
  "POST to no route": { ask: bearing("/nowhere", "Bearer any"), tripsPerCall: 0 },
};

describe("an entrance, for a caller who has proved nothing", () => {
  test.each(Object.entries(STRANGERS))(
    "%s: parses nothing, holds nothing, and reads no more than it may",
    async (_name, entrance) => {
      const calls = 5;
      const cost = await costOf(calls, entrance.ask);
      expect([...cost.statuses].every((status) => status >= 400 && status < 500)).toBe(true);
      expect(cost).toMatchObject({ parsed: 0, heldBytes: 0 });
      expect(cost.trips).toBeLessThanOrEqual(Math.ceil(entrance.tripsPerCall * calls));
    },
  );

  test.each([
    ["API keys", "spk_"],
    ["operators' keys", "spo_"],
  ])("POST /rpc with guesses at %s: once its address is locked, sixty reads a minute", async (_what, prefix) => {
    const cost = await costOf(200, () => bearing("/rpc", `Bearer ${secret(prefix)}`)());
    expect(cost.trips).toBeLessThanOrEqual(10 + 60);
    expect(cost.statuses).toEqual(new Set([401, 429]));
  });
});

describe("an entrance, for a caller over its rate", () => {
  const OVER = 640;
  const body = dear(8_192);

  test("POST /rpc: a device's bodies are parsed while it is within its share, and not beyond", async () => {
    const cost = await costOf(OVER / 2, () => signed(device, "/rpc", body));
    expect(cost.statuses).toEqual(new Set([200, 429]));
    expect(cost.parsed).toBeLessThanOrEqual(300);
    expect(cost.parsed).toBeGreaterThan(0);
    expect(cost.heldBytes).toBe(0);
    // Whether the agent is registered, once.
    expect(cost.trips).toBeLessThanOrEqual(1);
  });

  test("POST /rpc: an API key's likewise, at one read of its row each", async () => {
    const other = await register();
    const key = await apiKeyOf(other, ["tasks:read"]);
    const cost = await costOf(OVER / 2, () => signed(key, "/rpc", body));
    expect(cost.statuses).toEqual(new Set([200, 429]));
    expect(cost.parsed).toBeLessThanOrEqual(300);
    // The row of each, and when it was used, once a minute.
    expect(cost.trips).toBeLessThanOrEqual(OVER / 2 + 2);
  });
});
