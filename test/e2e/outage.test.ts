/**
 * The real program against a registry that fails on cue: what counts is how often the registry is called and what is answered,
 * never how long it takes. What needs the clock moved stands in `test/outage`.
 */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import {
  type Agent,
  type Answer,
  hookOf,
  pair,
  register,
  request,
  send,
  signedHeaders,
} from "../support/program/agents.ts";
import { logLines, type Proxy, startProxy } from "../support/program/proxy.ts";
import { endless, failing, hanging, lying, resetting, trickling } from "../support/program/registry-faults.ts";
import {
  type Document,
  type Fault,
  REGISTRY_ISSUER,
  type RegistryServer,
  startRegistry,
} from "../support/program/registry-server.ts";

const UNAVAILABLE = "503 PROXY_AUTH_DEPENDENCY_UNAVAILABLE";
const HOUR_MS = "3600000";
/** For what comes by itself, however slow the machine. */
const WITHIN_MS = 90_000;

type Parties = { registry: RegistryServer; proxy: Proxy };

async function startParties(settings: Record<string, string>): Promise<Parties> {
  const registry = await startRegistry();
  const proxy = await startProxy({
    REGISTRY_URL: registry.url,
    REGISTRY_ISSUER,
    RATE_LIMIT_PER_AGENT: "0",
    ...settings,
  });
  return { registry, proxy };
}

async function stopParties({ registry, proxy }: Parties): Promise<void> {
  await proxy.stop();
  await registry.down();
}

/** A registry and a proxy for one test alone. */
async function newParties(settings: Record<string, string>): Promise<Parties> {
  const parties = await startParties(settings);
  onTestFinished(() => stopParties(parties));
  return parties;
}

const outcomeOf = ({ status, body }: Answer): string => (status === 202 ? "202" : `${status} ${String(body["code"])}`);

function tallied(answers: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const answer of answers) counts[answer] = (counts[answer] ?? 0) + 1;
  return counts;
}

/** So many requests, ten at a time. */
async function load(count: number, ask: (n: number) => Promise<string>): Promise<string[]> {
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
  await Promise.all(Array.from({ length: 10 }, worker));
  return answers;
}

/** Asks until it is so; how often does not matter. */
async function until<T>(ask: () => Promise<T>, isSo: (value: T) => boolean): Promise<T> {
  const endsAtMs = Date.now() + WITHIN_MS;
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- the next one depends on this one
    const value = await ask();
    if (isSo(value)) return value;
    if (Date.now() > endsAtMs) throw new Error(`not so within ${WITHIN_MS} ms: ${JSON.stringify(value)}`);
    // oxlint-disable-next-line no-await-in-loop
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test("the registry is down: 10 known agents send on past every fresh time and over a kill: 150 of 150 are 202", async () => {
  const { registry, proxy } = await newParties({
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
    load(50, async (n) => outcomeOf(await request(proxy.url, agents[n % 10]!, hookOf(bob.did, { n }))));
  expect(tallied(await sendAll())).toEqual({ 202: 50 });

  await registry.down();
  const isServedStale = (): boolean =>
    logLines(proxy.output()).some(
      ({ event, dependency }) => event === "dependency.served_stale" && dependency === "access",
    );
  await until(
    async () => outcomeOf(await request(proxy.url, agents[0]!, hookOf(bob.did, {}))),
    (answer) => answer !== "202" || isServedStale(),
  );
  expect(tallied(await sendAll())).toEqual({ 202: 50 });

  await proxy.restart();
  expect(tallied(await sendAll())).toEqual({ 202: 50 });
  const stranger = registry.issue();
  expect(outcomeOf(await request(proxy.url, stranger, hookOf(bob.did, {})))).toMatch(
    /^(503 PROXY_AUTH_DEPENDENCY_UNAVAILABLE|403 PROXY_AUTH_FORBIDDEN)$/,
  );

  await registry.up();
  await until(
    async () => (await pair(proxy.url, registry.issue(), bob)).status,
    (status) => status === 201,
  );
});

test.each<[Document]>([["keys"], ["crl"], ["access"]])(
  "the registry answers 500 for %s to 200 requests: at most 13 calls, 8 at a time, and the breaker opens once",
  async (document) => {
    const { registry, proxy } = await newParties({ BREAKER_OPEN_MS: HOUR_MS });
    const alice = registry.issue();
    registry.fail(failing, [document]);
    const ask = async (n: number): Promise<string> =>
      outcomeOf(
        await request(proxy.url, { ...alice, accessToken: `spa_${n}` }, { method: "GET", path: "/pair/peers" }),
      );
    expect(tallied(await load(200, ask))).toEqual({ [UNAVAILABLE]: 200 });
    expect(registry.calls[document]).toBeGreaterThanOrEqual(5);
    expect(registry.calls[document]).toBeLessThanOrEqual(13);
    expect(registry.mostInFlight[document]).toBeLessThanOrEqual(8);
    const changes = logLines(proxy.output()).filter(
      (line) => line["event"] === "breaker.changed" && line["dependency"] === document,
    );
    expect(changes).toMatchObject([{ from: "closed", to: "open" }]);
  },
);

describe("the registry is slow or lies", () => {
  let parties: Parties;
  let alice: Agent;
  let bob: Agent;
  beforeAll(async () => {
    // Nothing is used past a second, and no breaker opens: each request meets the fault by itself.
    parties = await startParties({
      KEYS_TTL_MS: "1000",
      KEYS_MAX_STALE_MS: "1000",
      CRL_REFRESH_MS: "1000",
      CRL_MAX_AGE_MS: "1000",
      ACCESS_TTL_MS: "1000",
      ACCESS_MAX_STALE_MS: "1000",
      REGISTRY_TIMEOUT_MS: "1000",
      AUTH_DEADLINE_MS: "1000",
      BREAKER_FAILURES: "1000",
    });
    [alice, bob] = [parties.registry.issue(), parties.registry.issue()];
    await until(
      async () => (await pair(parties.proxy.url, alice, bob)).status,
      (status) => status === 201,
    );
  });
  afterAll(() => stopParties(parties));

  test.each<[string, Document, Fault]>([
    ["never answers", "keys", hanging],
    ["never answers", "crl", hanging],
    ["never answers", "access", hanging],
    ["trickles", "keys", trickling],
    ["trickles", "crl", trickling],
    ["never ends", "keys", endless],
    ["never ends", "crl", endless],
    ["resets the connection", "keys", resetting],
    ["resets the connection", "crl", resetting],
    ["resets the connection", "access", resetting],
    ["lies", "keys", lying],
    ["lies", "crl", lying],
    ["lies", "access", lying],
  ])(
    "%s for %s: a request is decided all the same, as 503, and served when that is over",
    async (_, document, fault) => {
      const { registry, proxy } = parties;
      registry.forgetCalls();
      registry.fail(fault, [document]);
      const ask = async (): Promise<string> => outcomeOf(await request(proxy.url, alice, hookOf(bob.did, {})));
      expect(await until(ask, (answer) => answer !== "202")).toBe(UNAVAILABLE);
      // What does not end by itself was still open when the request was decided: the proxy hung up.
      if (fault !== lying)
        await until(
          async () => registry.abandoned[document],
          (times) => times > 0,
        );
      registry.fail(null);
      expect(await until(ask, (answer) => answer === "202")).toBe("202");
    },
  );
});

test("100 of 100 replays are refused after the process was killed and restarted, and 100 messages are still there", async () => {
  const proxy = await startProxy();
  onTestFinished(() => proxy.stop());
  const [agent, receiver] = [await register(proxy.url, "sender"), await register(proxy.url, "receiver")];
  expect((await pair(proxy.url, agent, receiver)).status).toBe(201);
  const sends = Array.from({ length: 100 }, (_, n) => {
    const signed = hookOf(receiver.did, { n });
    return { signed, headers: signedHeaders(agent, signed) };
  });
  const sendAll = (): Promise<string[]> =>
    load(100, async (n) => outcomeOf(await send(proxy.url, sends[n]!.signed, sends[n]!.headers)));
  expect(tallied(await sendAll())).toEqual({ 202: 100 });
  await proxy.restart();
  expect(tallied(await sendAll())).toEqual({ "401 PROXY_AUTH_REPLAY": 100 });
  const fresh = await request(proxy.url, agent, hookOf(receiver.did, { n: 100 }));
  expect(fresh.body).toMatchObject({ accepted: true, queueDepth: 101 });
});
