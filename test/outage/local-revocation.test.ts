import { env } from "cloudflare:workers";
import { afterEach, expect, test, vi } from "vitest";
import { encodeBase64Url } from "../../src/wire/base64url.ts";
import type { AgentDid } from "../../src/wire/did.ts";
import { newKeyPair, rawPublicKey } from "../auth/fixture.ts";
import { type Agent, FAULTS, type Isolate, MINUTE_MS, newHarness } from "./harness.ts";

vi.setConfig({ testTimeout: 60_000 });
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

async function operator(isolate: Isolate, path: string, body: unknown): Promise<Record<string, unknown>> {
  const headers = { Authorization: `Bearer ${env.OPERATOR_TOKEN}`, "Content-Type": "application/json" };
  const answer = await isolate.ask(
    new Request(`https://proxy.example.com${path}`, { method: "POST", headers, body: JSON.stringify(body) }),
  );
  expect(answer.status).toBeLessThan(300);
  return answer.json();
}

/** An agent of the registry in this Worker. */
async function registered(embedded: Isolate, name: string): Promise<Agent & { access: string }> {
  const pair = await newKeyPair();
  const x = encodeBase64Url(await rawPublicKey(pair));
  const issued = await operator(embedded, "/v1/agents", { name, framework: "tests", publicKey: x });
  const { agentDid, ait, access } = issued as { agentDid: AgentDid; ait: string; access: { token: string } };
  return { did: agentDid, pair, x, claims: {}, ait, access: access.token };
}

test("an agent revoked here during an outage is refused at once, 10 of 10, in an isolate that knows its validation and in one that does not; others are served", async () => {
  const harness = await newHarness();
  const embedded = harness.newIsolate({ REGISTRY_URL: "embedded" });
  const [alice, mallory, bob] = [
    await registered(embedded, "alice"),
    await registered(embedded, "mallory"),
    await registered(embedded, "bob"),
  ];
  await harness.pair(alice, bob);
  await harness.pair(mallory, bob);
  // The other isolates reach the same registry over the network, and then do not.
  harness.registry.forward((request) => embedded.ask(request));
  const isolate = harness.newIsolate();
  const send = (through: Isolate, agent: typeof alice) =>
    through.send(agent, bob, { headers: { "X-Claw-Agent-Access": agent.access } });
  expect([await send(isolate, alice), await send(isolate, mallory)]).toEqual(["202", "202"]);
  harness.registry.fail(FAULTS.down);
  harness.pass(2 * MINUTE_MS);
  expect([await send(isolate, alice), await send(isolate, mallory)]).toEqual(["202", "202"]);

  await operator(embedded, "/v1/agents/revoke", { agentDid: mallory.did, reason: "stolen" });
  const fresh = harness.newIsolate();
  for (const through of [isolate, fresh]) {
    // oxlint-disable-next-line no-await-in-loop -- one isolate after the other
    const answers = await Promise.all(Array.from({ length: 10 }, () => send(through, mallory)));
    expect(answers).toEqual(Array.from({ length: 10 }, () => "401 PROXY_AUTH_REVOKED"));
    // oxlint-disable-next-line no-await-in-loop
    expect(await send(through, alice)).toBe("202");
  }
});
