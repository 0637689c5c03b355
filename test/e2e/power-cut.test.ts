/** What the alarms alone do after a power cut: nobody asks the gate that has to act. */
import { afterEach, describe, expect, test } from "vitest";
import { type Agent, hookOf, pair, register, request } from "../support/program/agents.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";
import { connectRelay } from "../support/program/relay-client.ts";

let proxy: Proxy;
afterEach(() => proxy.stop());

/** An agent that may send to the recipient. */
async function sender(name: string, recipient: Agent): Promise<Agent> {
  const agent = await register(proxy.url, name);
  expect((await pair(proxy.url, agent, recipient)).status).toBe(201);
  return agent;
}

async function sent(from: Agent, to: Agent, payload: unknown): Promise<string> {
  const answer = await request(proxy.url, from, hookOf(to.did, payload));
  expect(answer).toMatchObject({ status: 202, body: { state: "queued" } });
  return String(answer.body["deliveryId"]);
}

/** Each starts the program twice. */
describe("after a SIGKILL", { timeout: 180_000 }, () => {
  test("the alarm hands over what waited in an outbox, and what was on its way is pushed again", async () => {
    proxy = await startProxy({ RELAY_QUEUE_MAX: "2" });
    const bob = await register(proxy.url, "bob");
    const carol = await sender("carol", bob);
    const dave = await sender("dave", bob);
    const alice = await sender("alice", bob);

    // Carol and Dave fill Bob's queue, so Alice's message stays with her.
    const before = await connectRelay(proxy.url, bob, false);
    const onItsWay = await sent(carol, bob, "from carol");
    await before.next((each) => each["deliveryId"] === onItsWay);
    await sent(dave, bob, "from dave");
    const held = await sent(alice, bob, "from alice");

    await proxy.restart();
    const relay = await connectRelay(proxy.url, bob);
    // Nobody speaks to Alice's gate; neither Carol's nor Dave's report goes there.
    const arrived = await relay.next((each) => each["deliveryId"] === held, 30_000);
    expect(arrived).toMatchObject({ payload: "from alice", fromAgentDid: alice.did });
    const again = await relay.next((each) => each["deliveryId"] === onItsWay);
    expect(again).toMatchObject({ payload: "from carol", fromAgentDid: carol.did });
    relay.close();
  });

  test("the alarm ends what is past its time, and tells its sender", async () => {
    proxy = await startProxy({ RELAY_QUEUE_TTL_MS: "2000" }, { ACK_TIMEOUT_MS: 5_000 });
    const bob = await register(proxy.url, "bob");
    const alice = await sender("alice", bob);
    const before = await connectRelay(proxy.url, bob, false);
    const deliveryId = await sent(alice, bob, {});
    await before.next((each) => each["deliveryId"] === deliveryId);
    // Alice's gate has struck it off, or it would hand it over again and wake Bob's: only then it asks Bob's for the attempts.
    const path = `/v1/deliveries/${deliveryId}`;
    while (Number((await request(proxy.url, alice, { method: "GET", path })).body["attempts"] ?? 0) < 1);
    await proxy.restart();
    // Alice listens at her own gate; Bob's has to wake by itself.
    const relay = await connectRelay(proxy.url, alice);
    const receipt = await relay.next(({ type }) => type === "receipt", 30_000);
    expect(receipt).toMatchObject({ deliveryId, toAgentDid: bob.did, status: "dead_lettered", reason: "expired" });
    relay.close();
  });
});
