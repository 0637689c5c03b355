/** The real program against a registry that fails on cue. What needs the clock moved instead of slept stands in `test/outage`. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { createAgentClient, createOperatorClient, generateKeys } from "../../src/client/index.ts";
import { parseOpenMetrics, valueOf } from "../telemetry/open-metrics-parser.ts";
import {
  type Agent,
  type Answer,
  hookOf,
  pair,
  register,
  request,
  send,
  signedHeaders,
  OPERATOR_TOKEN,
} from "../support/program/agents.ts";
import { logLines, type Proxy, startProxy } from "../support/program/proxy.ts";
import { type Document, ISSUER, type Mode, startRegistry, type TestRegistry } from "./registry.ts";

const DOCUMENTS = ["keys", "crl", "access"] as const;
const UNAVAILABLE = "503 PROXY_AUTH_DEPENDENCY_UNAVAILABLE";

async function startTown(settings: Record<string, string> = {}): Promise<{ registry: TestRegistry; proxy: Proxy }> {
  const registry = await startRegistry();
  const proxy = await startProxy({
    REGISTRY_URL: registry.url,
    REGISTRY_ISSUER: ISSUER,
    RATE_LIMIT_PER_AGENT: "0",
    ...settings,
  });
  return { registry, proxy };
}

/** A town for one test alone. */
async function newTown(settings: Record<string, string> = {}) {
  const town = await startTown(settings);
  onTestFinished(async () => {
    await town.proxy.stop();
    await town.registry.down();
  });
  return town;
}

const told = ({ status, body }: Answer): string => (status === 202 ? "202" : `${status} ${String(body["code"])}`);

function tallied(answers: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const answer of answers) counts[answer] = (counts[answer] ?? 0) + 1;
  return counts;
}

/** So many requests, so many at a time. */
async function load(count: number, atOnce: number, ask: (n: number) => Promise<string>): Promise<string[]> {
  const answers: string[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      const n = next;
      next += 1;
      // oxlint-disable-next-line no-await-in-loop -- one worker asks one after the other
      answers.push(await ask(n));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return answers;
}

/** Asks until it is so; how often does not matter. */
async function until<T>(ask: () => Promise<T>, isSo: (value: T) => boolean, withinMs = 15_000): Promise<T> {
  const endsAtMs = Date.now() + withinMs;
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- the next one depends on this one
    const value = await ask();
    if (isSo(value)) return value;
    if (Date.now() > endsAtMs) throw new Error(`not so within ${withinMs} ms: ${JSON.stringify(value)}`);
    // oxlint-disable-next-line no-await-in-loop
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

describe("the registry is down", () => {
  test("10 known agents send on past every fresh time, and again after the process was killed and restarted: 150 of 150 are 202", async () => {
    const { registry, proxy } = await newTown({
      ACCESS_TTL_MS: "1000",
      CRL_REFRESH_MS: "1000",
      KEYS_TTL_MS: "1000",
      BREAKER_OPEN_MS: "1000",
    });
    const bob = registry.issue();
    const agents = Array.from({ length: 10 }, () => registry.issue());
    const paired = await Promise.all(agents.map((agent) => pair(proxy.url, agent, bob)));
    expect(paired.map(({ status }) => status)).toEqual(agents.map(() => 201));
    const sendAll = (): Promise<string[]> =>
      load(50, 10, async (n) => told(await request(proxy.url, agents[n % 10]!, hookOf(bob.did, { n }))));
    expect(tallied(await sendAll())).toEqual({ 202: 50 });

    await registry.down();
    const isServedStale = (): boolean =>
      logLines(proxy.output()).some(
        ({ event, dependency }) => event === "dependency.served_stale" && dependency === "access",
      );
    await until(
      async () => told(await request(proxy.url, agents[0]!, hookOf(bob.did, {}))),
      (answer) => answer !== "202" || isServedStale(),
    );
    expect(tallied(await sendAll())).toEqual({ 202: 50 });

    await proxy.restart();
    expect(tallied(await sendAll())).toEqual({ 202: 50 });
    const stranger = registry.issue();
    expect(told(await request(proxy.url, stranger, hookOf(bob.did, {})))).toMatch(
      /^(503 PROXY_AUTH_DEPENDENCY_UNAVAILABLE|403 PROXY_AUTH_FORBIDDEN)$/,
    );

    await registry.up();
    await until(
      async () => (await pair(proxy.url, registry.issue(), bob)).status,
      (status) => status === 201,
      45_000,
    );
  }, 180_000);
});

describe("the registry answers 500 to 1 000 requests", () => {
  test.each(DOCUMENTS)(
    "for %s: at most 13 calls in all and 8 at a time; after 2 s one probe is the recovery",
    async (document) => {
      const { registry, proxy } = await newTown({ BREAKER_OPEN_MS: "2000" });
      const [alice, bob] = [registry.issue(), registry.issue()];
      registry.set("500", [document]);
      const ask = async (n: number): Promise<string> =>
        told(await request(proxy.url, { ...alice, accessToken: `spa_${n}` }, { method: "GET", path: "/pair/peers" }));
      const startedAtMs = Date.now();
      expect(tallied(await load(1_000, 50, ask))).toEqual({ [UNAVAILABLE]: 1_000 });
      const probes = Math.ceil((Date.now() - startedAtMs) / 2_000);
      console.log(
        `${document}: 1 000 × 503 in ${Date.now() - startedAtMs} ms, ${registry.calls[document]} calls, ${registry.mostInFlight[document]} at a time`,
      );
      expect(registry.calls[document]).toBeGreaterThanOrEqual(5);
      expect(registry.calls[document]).toBeLessThanOrEqual(13 + probes);
      expect(registry.mostInFlight[document]).toBeLessThanOrEqual(8);
      const opened = logLines(proxy.output()).filter(
        (line) => line["event"] === "breaker.changed" && line["dependency"] === document && line["from"] === "closed",
      );
      expect(opened).toHaveLength(1);

      registry.set("up");
      registry.forgetCalls();
      await until(
        async () => (await pair(proxy.url, alice, bob)).status,
        (status) => status === 201,
      );
      expect(registry.calls[document]).toBeLessThanOrEqual(2);
    },
    120_000,
  );
});

describe("the registry is slow or lies", () => {
  let registry: TestRegistry;
  let proxy: Proxy;
  let alice: Agent;
  let bob: Agent;
  beforeAll(async () => {
    // Nothing is used past a second, and no breaker opens: each request meets the fault by itself.
    ({ registry, proxy } = await startTown({
      KEYS_TTL_MS: "1000",
      KEYS_MAX_STALE_MS: "1000",
      CRL_REFRESH_MS: "1000",
      CRL_MAX_AGE_MS: "1000",
      ACCESS_TTL_MS: "1000",
      ACCESS_MAX_STALE_MS: "1000",
      BREAKER_FAILURES: "1000",
    }));
    [alice, bob] = [registry.issue(), registry.issue()];
    expect((await pair(proxy.url, alice, bob)).status).toBe(201);
  });
  afterAll(async () => {
    await proxy.stop();
    await registry.down();
  });

  test.each<[string, Mode, Document]>([
    ["answers after 15 s", { afterMs: 15_000 }, "keys"],
    ["answers after 15 s", { afterMs: 15_000 }, "crl"],
    ["answers after 15 s", { afterMs: 15_000 }, "access"],
    ["never answers", "hanging", "access"],
    ["trickles", "trickling", "keys"],
    ["trickles", "trickling", "crl"],
    ["never ends", "endless", "keys"],
    ["never ends", "endless", "crl"],
    ["resets the connection", "resetting", "keys"],
    ["resets the connection", "resetting", "crl"],
    ["resets the connection", "resetting", "access"],
    ["lies", "lying", "keys"],
    ["lies", "lying", "crl"],
    ["lies", "lying", "access"],
  ])(
    "%s (%j, %s): a request is decided within 5.5 s, as 503, and served when that is over",
    async (_, mode, document) => {
      registry.set(mode, [document]);
      let tookMs = 0;
      const ask = async (): Promise<string> => {
        const startedAtMs = performance.now();
        const answer = told(await request(proxy.url, alice, hookOf(bob.did, {})));
        tookMs = performance.now() - startedAtMs;
        expect(tookMs).toBeLessThan(5_500);
        return answer;
      };
      expect(await until(ask, (answer) => answer !== "202")).toBe(UNAVAILABLE);
      console.log(`${document} ${JSON.stringify(mode)}: decided in ${Math.round(tookMs)} ms`);
      registry.set("up");
      expect(await until(ask, (answer) => answer === "202")).toBe("202");
    },
  );
});

describe("clocks, and a process that dies", () => {
  let proxy: Proxy;
  beforeAll(async () => {
    proxy = await startProxy();
  });
  afterAll(() => proxy.stop());

  const operator = () => createOperatorClient({ baseUrl: proxy.url, token: OPERATOR_TOKEN });
  const newClient = async (name: string, aheadMs = 0) => {
    const keys = await generateKeys();
    const registered = await operator().registerAgent({ name, framework: "test", publicKey: keys.publicKey });
    const codes: string[] = [];
    const client = createAgentClient({
      baseUrl: proxy.url,
      keys,
      credential: registered,
      now: () => Date.now() + aheadMs,
      fetch: async (url, init) => {
        const answer = await fetch(url, init);
        codes.push(`${answer.status} ${new URL(url).pathname}`);
        return answer;
      },
    });
    return { client, codes };
  };
  const scrape = async () =>
    parseOpenMetrics(
      await (await fetch(`${proxy.url}/metrics`, { headers: { Authorization: `Bearer ${OPERATOR_TOKEN}` } })).text(),
    );

  test.each([250, -250])(
    "a skew of %i s is accepted, warned of with the agent, counted, and told to the admin",
    async (seconds) => {
      const { client, codes } = await newClient("off", seconds * 1_000);
      await client.pairing.peers();
      expect(codes).toEqual(["200 /pair/peers"]);
      const mine = (event: string) =>
        logLines(proxy.output()).filter((line) => line["event"] === event && line["agentDid"] === client.agentDid);
      await until(
        async () => mine("auth.clock_skew"),
        (lines) => lines.length > 0,
      );
      const [warning] = mine("auth.clock_skew");
      expect(Math.abs(Number(warning?.["skewMs"]) - seconds * 1_000)).toBeLessThan(5_000);
      expect(mine("auth.decision").at(-1)).toMatchObject({ outcome: "accepted", skewMs: warning?.["skewMs"] });
      const direction = seconds > 0 ? "ahead" : "behind";
      const families = await scrape();
      expect(valueOf(families, "sallyport_clock_skew_warnings_total", { direction })).toBeGreaterThanOrEqual(1);
      expect(valueOf(families, "sallyport_agent_clock_drifts_total", { direction })).toBe(1);
      const audited = await until(
        async () => {
          const headers = { Authorization: `Bearer ${OPERATOR_TOKEN}`, "Content-Type": "application/json" };
          const body = JSON.stringify({
            jsonrpc: "2.0",
            id: 1,
            method: "audit/list",
            params: { action: "agent.clock_drift" },
          });
          return (await fetch(`${proxy.url}/rpc`, { method: "POST", headers, body })).text();
        },
        (text) => text.includes(client.agentDid),
      );
      expect(audited).toContain("agent.clock_drift");
    },
  );

  test.each([301, -302])("a skew of %i s is refused, and the client corrects itself", async (seconds) => {
    const { client, codes } = await newClient("far off", seconds * 1_000);
    await client.pairing.peers();
    expect(codes).toEqual(["401 /pair/peers", "200 /v1/time", "200 /pair/peers"]);
    await client.pairing.peers();
    expect(codes.at(-1)).toBe("200 /pair/peers");
    expect(codes).toHaveLength(4);
  });

  test("100 of 100 replays are refused after the process was killed and restarted, and 100 messages are still there", async () => {
    const [agent, receiver] = [await register(proxy.url, "sender"), await register(proxy.url, "receiver")];
    expect((await pair(proxy.url, agent, receiver)).status).toBe(201);
    const sends = Array.from({ length: 100 }, (_, n) => {
      const signed = hookOf(receiver.did, { n });
      return { signed, headers: signedHeaders(agent, signed) };
    });
    const sendAll = (): Promise<string[]> =>
      load(100, 10, async (n) => told(await send(proxy.url, sends[n]!.signed, sends[n]!.headers)));
    expect(tallied(await sendAll())).toEqual({ 202: 100 });
    await proxy.restart();
    expect(tallied(await sendAll())).toEqual({ "401 PROXY_AUTH_REPLAY": 100 });
    const fresh = await request(proxy.url, agent, hookOf(receiver.did, { n: 100 }));
    expect(fresh.body).toMatchObject({ accepted: true, queueDepth: 101 });
  });
});
