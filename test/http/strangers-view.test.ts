/** What somebody without a valid credential sees: the same, call by call, whether the agent that it names exists or not. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { didAuthority, newDid, parseAgentDid } from "../../src/wire/did.ts";
import { encodeBase64Url } from "../../src/wire/base64url.ts";
import { newGroupId } from "../../src/wire/group-id.ts";
import { newUlid } from "../../src/wire/ulid.ts";
import { watch } from "../support/db-spy.ts";
import { stopClock } from "../support/gate.ts";
import { type Agent, authorization, createTask, fetchWorker, pairDevice, register, result } from "../support/world.ts";

const CALLS = 30;
const DEVICE_ID = "A".repeat(22);

let there: Agent;
let stranger: Agent;
let unverified: CryptoKey;
let groupId: string;

beforeAll(async () => {
  there = await register();
  stranger = await register();
  // Everything that an agent can have: a gate with tables, a device, a shared secret, a task.
  await pairDevice(there, ["relay", "send", "admin"]);
  await result(there, "shared.auth.rotate", {});
  await createTask(there, { agentDid: there.did, name: "known" });
  groupId = String((await result(there, "group/create", { name: "known" }))["groupId"]);
  unverified = ((await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair).privateKey;
});

const absent = (): string => newDid(didAuthority(parseAgentDid(there.did)!), "agent", newUlid(Date.now()));
const secret = (prefix: string): string => prefix + encodeBase64Url(crypto.getRandomValues(new Uint8Array(32)));
const relayTicket = (did: string): string =>
  `sallyport.ticket.${secret("spw_")}.${encodeBase64Url(new TextEncoder().encode(did))}`;

type Ask = { method: string; path: string; body?: string; headers: Record<string, string> };
type Route = (did: string) => Ask | Promise<Ask>;

/** A proof by a key that is nobody's. */
const proven = async (ask: Ask): Promise<Ask> => {
  const device = { kind: "device", agentDid: "", deviceId: "", token: "", key: unverified } as const;
  const signed = await authorization(device, ask.body ?? "", { method: ask.method, path: ask.path });
  return { ...ask, headers: { ...signed, ...ask.headers } };
};
const withDevice = (method: string, path: string, body?: string) => (did: string) =>
  proven({
    method,
    path,
    ...(body === undefined ? {} : { body }),
    headers: { Authorization: `Device ${secret("spd_")}`, "X-Claw-Agent-Did": did },
  });
const withShared = (method: string, path: string, body?: string) => (did: string) => ({
  method,
  path,
  ...(body === undefined ? {} : { body }),
  headers: { Authorization: `Shared ${secret("sps_")}`, "X-Claw-Agent-Did": did },
});
/** The identity token of a real agent with another `sub`: its signature is wrong. */
const withForgedToken = (method: string, path: string, body?: string) => async (did: string) => {
  const [head = "", , signature = ""] = there.ait.split(".");
  const claims = JSON.parse(atob((there.ait.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/"))) as object;
  const forged = encodeBase64Url(
    new TextEncoder().encode(JSON.stringify({ ...claims, sub: did, jti: newUlid(Date.now()) })),
  );
  const asked = await proven({ method, path, ...(body === undefined ? {} : { body }), headers: {} });
  return { ...asked, headers: { ...asked.headers, Authorization: `Claw ${head}.${forged}.${signature}` } };
};

const CALL = '{"jsonrpc":"2.0","id":1,"method":"task/list","params":{}}';
const ROUTES: Record<string, Route> = {
  "POST /rpc as a device": withDevice("POST", "/rpc", CALL),
  "POST /rpc with a shared secret": withShared("POST", "/rpc", CALL),
  "POST /rpc with a forged token": withForgedToken("POST", "/rpc", CALL),
  "POST /hooks/agent with a forged token": withForgedToken("POST", "/hooks/agent", "{}"),
  "POST /pair/start with a forged token": withForgedToken("POST", "/pair/start", "{}"),
  "POST /v1/agents/auth/refresh with a forged token": withForgedToken("POST", "/v1/agents/auth/refresh", "{}"),
  "GET /v1/deliveries/:id as a device": withDevice("GET", "/v1/deliveries/any"),
  "GET /v1/deliveries/:id with a shared secret": withShared("GET", "/v1/deliveries/any"),
  "POST /v1/relay/tickets as a device": withDevice("POST", "/v1/relay/tickets"),
  "POST /v1/relay/tickets with a shared secret": withShared("POST", "/v1/relay/tickets"),
  "GET /relay/connect as a device": async (did) => {
    const asked = await withDevice("GET", "/relay/connect")(did);
    return { ...asked, headers: { ...asked.headers, Upgrade: "websocket" } };
  },
  "GET /relay/connect with a shared secret": (did) => {
    const asked = withShared("GET", "/relay/connect")(did);
    return { ...asked, headers: { ...asked.headers, Upgrade: "websocket" } };
  },
  "GET /relay/connect with a ticket": (did) => ({
    method: "GET",
    path: "/relay/connect",
    headers: { Upgrade: "websocket", "Sec-WebSocket-Protocol": relayTicket(did) },
  }),
  "POST /v1/devices/claim": (agentDid) =>
    proven({
      method: "POST",
      path: "/v1/devices/claim",
      body: JSON.stringify({ agentDid, deviceId: DEVICE_ID }),
      headers: {},
    }),
  "POST /v1/agents/auth/validate": (agentDid) => ({
    method: "POST",
    path: "/v1/agents/auth/validate",
    body: JSON.stringify({ agentDid, aitJti: newUlid(Date.now()) }),
    headers: { "X-Claw-Agent-Access": secret("spa_") },
  }),
  "POST /hooks/agent by an agent that is not paired": async (did) => {
    const headers = await authorization(stranger, "{}", { method: "POST", path: "/hooks/agent" });
    return {
      method: "POST",
      path: "/hooks/agent",
      body: "{}",
      headers: { ...headers, "X-Claw-Recipient-Agent-Did": did },
    };
  },
  "POST /hooks/agent in a group that the agent is not in": async (did) => {
    const headers = await authorization(stranger, "{}", { method: "POST", path: "/hooks/agent" });
    const group = did === there.did ? groupId : newGroupId(Date.now());
    return { method: "POST", path: "/hooks/agent", body: "{}", headers: { ...headers, "X-Claw-Group-Id": group } };
  },
  "POST /hooks/agent to one in a group that the agent is not in": async (did) => {
    const headers = await authorization(stranger, "{}", { method: "POST", path: "/hooks/agent" });
    const group = did === there.did ? groupId : newGroupId(Date.now());
    return {
      method: "POST",
      path: "/hooks/agent",
      body: "{}",
      headers: { ...headers, "X-Claw-Group-Id": group, "X-Claw-Recipient-Agent-Did": did },
    };
  },
  "POST /rpc by an agent that may nothing on it": async (agentDid) => {
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "task/create", params: { agentDid, name: "known" } });
    return { method: "POST", path: "/rpc", body, headers: await authorization(stranger, body) };
  },
};

const PROFILE = "/v1/agents/profile?did=";
ROUTES["GET /v1/agents/profile by an agent that does not know it"] = async (did) => {
  const path = PROFILE + encodeURIComponent(did);
  return { method: "GET", path, headers: await authorization(stranger, "", { method: "GET", path }) };
};
ROUTES["GET /v1/agents/profile with a forged token"] = (did) =>
  withForgedToken("GET", PROFILE + encodeURIComponent(did))(did);

let addresses = 0;

/** Everything that the caller can tell of 30 calls, and what they cost the database. */
async function seen(route: Route, did: string): Promise<{ answers: unknown[]; trips: number }> {
  const { db, trips } = watch(env.DB);
  const settings = { ...env, DB: db } as Env;
  const address = `198.51.100.${(addresses += 1)}`;
  const answers: unknown[] = [];
  for (let call = 0; call < CALLS; call += 1) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    const { method, path, body, headers } = await route(did);
    const request = new Request(`https://proxy.example${path}`, {
      method,
      headers: { ...headers, "CF-Connecting-IP": address, "X-Request-Id": "the-same-id" },
      ...(body === undefined ? {} : { body }),
    });
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    const answer = await fetchWorker(request, settings);
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    answers.push([
      answer.status,
      [...answer.headers].filter(([name]) => name !== "x-sallyport-bookmark"),
      await answer.text(),
    ]);
  }
  return { answers, trips: trips.length };
}

describe("a stranger's view: thirty calls look the same, and cost one look at the database each at most, whether the agent exists or not", () => {
  test.each(Object.entries(ROUTES))("%s", async (_name, route) => {
    vi.spyOn(console, "warn").mockReturnValue();
    vi.spyOn(console, "log").mockReturnValue();
    stopClock(Date.now());
    onTestFinished(() => {
      vi.useRealTimers();
      vi.restoreAllMocks();
    });
    const nobody = absent();
    const [existing, missing] = [await seen(route, there.did), await seen(route, nobody)];
    expect(missing.answers).toEqual(existing.answers);
    // Of an agent that exists the Worker remembers that; of one that does not, it looks each time, and wakes no gate.
    expect(existing.trips).toBeLessThanOrEqual(CALLS);
    expect(missing.trips).toBeLessThanOrEqual(CALLS);
    // A gate that nobody has proved anything to keeps nothing.
    const tables = await runInDurableObject(
      env.GATE.getByName(nobody),
      (_gate, { storage }) => [...storage.sql.exec("SELECT name FROM sqlite_master WHERE name NOT LIKE '_cf%'")].length,
    );
    expect(tables).toBe(0);
  });
});
