/** Every request with a credential has its one decision, whoever refuses it: in the log, in the numbers, and in what is remembered. */
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, type MockInstance, test, vi } from "vitest";
import type { AgentDid, HumanDid } from "../../src/wire/did.ts";
import { parseOpenMetrics, valueOf } from "../telemetry/open-metrics-parser.ts";
import {
  type Agent,
  apiKeyOf,
  authorization,
  fetchWorker,
  newKey,
  operator,
  OPERATOR_TOKEN,
  pairDevice,
  register,
} from "../support/world.ts";

const ORIGIN = "https://proxy.example";
const OPERATOR = { Authorization: `Bearer ${OPERATOR_TOKEN}` };

let logged: MockInstance[] = [];
beforeEach(() => {
  logged = (["info", "log", "warn", "error"] as const).map((level) => vi.spyOn(console, level));
});
afterEach(() => {
  for (const spy of logged) spy.mockRestore();
});

/** The decisions of one request, as they were logged. */
function decisionsOf(requestId: string): Record<string, unknown>[] {
  return logged
    .flatMap((spy) => spy.mock.calls.map(([line]) => JSON.parse(String(line)) as Record<string, unknown>))
    .filter((line) => line["event"] === "auth.decision" && line["requestId"] === requestId);
}

type Asked = { status: number; code: string | undefined; decisions: Record<string, unknown>[] };

async function ask(
  path: string,
  { settings, ...init }: { method?: string; body?: string; headers: Record<string, string>; settings?: Env },
): Promise<Asked> {
  const requestId = crypto.randomUUID();
  const headers = { ...init.headers, "X-Request-Id": requestId };
  const answer = await fetchWorker(new Request(ORIGIN + path, { ...init, headers }), settings);
  const text = answer.status === 101 ? "" : await answer.text();
  const { code } = (text === "" ? {} : JSON.parse(text)) as { code?: string };
  return { status: answer.status, code, decisions: decisionsOf(requestId) };
}

async function scrape() {
  const answer = await fetchWorker(new Request(`${ORIGIN}/metrics`, { headers: OPERATOR }));
  return parseOpenMetrics(new TextDecoder().decode(await answer.arrayBuffer()));
}

const upgrade = (headers: Record<string, string>): Promise<Asked> =>
  ask("/relay/connect", { headers: { Upgrade: "websocket", ...headers } });

const sharedOf = ({ did }: Agent): Record<string, string> => ({
  Authorization: `Shared sps_${"A".repeat(43)}`,
  "X-Claw-Agent-Did": did,
});

describe("a relay socket that the gate refuses", () => {
  test("is decided as refused, for the gate's reason, and counted", async () => {
    const agent = await register();
    const refused = { route: "relay.connect", credential: "shared", outcome: "refused" };
    const reason = { stage: "gate", reason: "gate-credential-refused" };
    const before = await scrape();
    const answer = await upgrade(sharedOf(agent));
    expect(answer).toMatchObject({ status: 401, code: "PROXY_AUTH_INVALID_TOKEN" });
    expect(answer.decisions).toMatchObject([{ ...refused, ...reason, code: "PROXY_AUTH_INVALID_TOKEN" }]);
    const after = await scrape();
    for (const [name, labels] of [
      ["sallyport_decisions_total", refused],
      ["sallyport_refusals_total", reason],
    ] as const) {
      expect((valueOf(after, name, labels) ?? 0) - (valueOf(before, name, labels) ?? 0)).toBe(1);
    }
  });

  test("for its nonce is remembered, so that the same request is refused without the gate", async () => {
    const agent = await register();
    const headers = await authorization(agent, "", { method: "GET", path: "/relay/connect" });
    await useNonce(agent, headers);
    const first = await upgrade(headers);
    expect(first.decisions).toMatchObject([{ outcome: "refused", stage: "gate", reason: "gate-nonce-replayed" }]);
    const second = await upgrade(headers);
    expect(second.decisions).toMatchObject([{ outcome: "refused", stage: "replay", reason: "nonce-seen-here" }]);
    for (const answer of [first, second]) expect(answer).toMatchObject({ status: 401, code: "PROXY_AUTH_REPLAY" });
  });
});

/** What is asked of the caller beside its credential is read after the gate has decided on that. */
describe("a bookmark that is none", () => {
  const bad = { "X-Sallyport-Bookmark": "none of ours", "Content-Type": "application/json" };
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "task/list" });
  const call = (headers: Record<string, string>, settings?: Env): Promise<Asked> =>
    ask("/rpc", { method: "POST", body, headers: { ...headers, ...bad }, ...(settings && { settings }) });

  test("is told to whoever has a credential that holds, whose decision is closed", async () => {
    const agent = await register();
    const device = await pairDevice(agent, ["tasks:read"]);
    for (const caller of [agent, device, await apiKeyOf(agent, ["tasks:read"]), operator]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const answer = await call(await authorization(caller, body));
      expect(answer, caller.kind).toMatchObject({ status: 400, code: "PROXY_BAD_REQUEST" });
      expect(answer.decisions, caller.kind).toMatchObject([{ credential: caller.kind, outcome: "accepted" }]);
    }
  });

  test("is not told to anybody else: 401, and a decision that says why", async () => {
    const agent = await register();
    const device = await pairDevice(agent, ["tasks:read"]);
    const strangers = {
      device: await authorization({ ...device, key: (await newKey()).key }, body),
      shared: sharedOf(agent),
      apiKey: { Authorization: `Bearer spk_${"A".repeat(43)}` },
    };
    for (const [credential, headers] of Object.entries(strangers)) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const answer = await call(headers);
      expect(answer, credential).toMatchObject({ status: 401, code: "PROXY_AUTH_INVALID_TOKEN" });
      expect(answer.decisions, credential).toMatchObject([{ credential, outcome: "refused", stage: "gate" }]);
    }
  });
});

describe("a request that is refused on its way to the gate", () => {
  test("is decided where the operator names no agent", async () => {
    const body = JSON.stringify({ agentDid: "nobody" });
    const answer = await ask("/v1/agents/revoke", { method: "POST", body, headers: OPERATOR });
    expect(answer).toMatchObject({ status: 400, code: "PROXY_BAD_REQUEST" });
    expect(answer.decisions).toMatchObject([{ outcome: "refused", stage: "route", code: "PROXY_BAD_REQUEST" }]);
  });

  test("is decided where an API key cannot be looked up", async () => {
    const failing = { withSession: () => failing, prepare: () => failing, bind: () => failing, first: away, all: away };
    const settings = { ...env, DB: failing } as unknown as Env;
    const headers = { Authorization: `Bearer spk_${"A".repeat(43)}` };
    const answer = await ask("/rpc", { method: "POST", body: "{}", headers, settings });
    const code = "PROXY_AUTH_DEPENDENCY_UNAVAILABLE";
    expect(answer).toMatchObject({ status: 503, code });
    expect(answer.decisions).toMatchObject([
      { level: "error", outcome: "refused", stage: "credential", reason: "credential-unavailable", code },
    ]);
  });
});

async function away(): Promise<never> {
  throw new Error("D1_ERROR: the database is away");
}

/** As if the same request had come by another isolate before. */
async function useNonce(agent: Agent, headers: Record<string, string>): Promise<void> {
  const { jti, exp } = JSON.parse(atob((agent.ait.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/"))) as {
    jti: string;
    exp: number;
  };
  const [agentDid, ownerDid] = [agent.did as AgentDid, agent.ownerDid as HumanDid];
  const principal = { kind: "agent" as const, agentDid, ownerDid, jti, expMs: exp * 1_000, keyX: agent.x };
  const admission = {
    principal,
    nonce: headers["X-Claw-Nonce"] ?? "",
    timestampSeconds: Number(headers["X-Claw-Timestamp"]),
  };
  const answer = await env.GATE.getByName(agent.did).call({
    caller: { kind: "agent", admission },
    surface: "rpc",
    requestId: "another-isolate",
    origin: null,
    calls: [],
  });
  expect(answer.ok).toBe(true);
}
