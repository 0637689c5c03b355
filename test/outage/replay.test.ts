import { abortAllDurableObjects, evictDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, expect, test, vi } from "vitest";
import { crashGate } from "../support/gate.ts";
import { type Agent, newHarness, SECOND_MS, tallied } from "./harness.ts";

// Thousands of requests, whose time on a busy machine is not what this is about.
vi.setConfig({ testTimeout: 90_000 });
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const gateStub = (agent: Agent) => env.GATE.getByName(agent.did);

test.each<[string, (agent: Agent) => Promise<unknown>]>([
  ["is evicted", (agent) => evictDurableObject(gateStub(agent))],
  ["crashes", (agent) => crashGate(agent.did)],
  ["is lost with every other object", () => abortAllDurableObjects()],
])(
  "the gate %s: 100 of 100 replays are refused afterwards, in an isolate that remembers none, and 100 new nonces are taken",
  async (_, lose) => {
    const harness = await newHarness();
    const isolate = harness.newIsolate();
    const [alice, bob] = [await harness.newAgent(), await harness.newAgent()];
    await harness.pair(alice, bob);
    const timestamp = String(harness.nowSeconds());
    const nonces = Array.from({ length: 100 }, (__, n) => `n-${n}`);
    const sendAll = (through: typeof isolate, prefix: string) =>
      Promise.all(nonces.map((nonce) => through.send(alice, bob, { nonce: `${prefix}${nonce}`, timestamp })));
    expect(tallied(await sendAll(isolate, ""))).toEqual({ 202: 100 });

    await harness.during(lose(alice));
    harness.pass(10 * SECOND_MS);
    const fresh = harness.newIsolate();
    expect(tallied(await sendAll(fresh, ""))).toEqual({ "401 PROXY_AUTH_REPLAY": 100 });
    expect(tallied(await sendAll(fresh, "another-"))).toEqual({ 202: 100 });
  },
);
