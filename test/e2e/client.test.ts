/** The client library against the real program: what a user's own code does. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import {
  type AgentClient,
  createAgentClient,
  createOperatorClient,
  generateKeys,
  type IncomingMessage,
  type Keys,
  Refuse,
  type RegisteredAgent,
  type RelayConnection,
  type RelayHandlers,
} from "../../src/client/index.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";

let proxy: Proxy;
beforeAll(async () => {
  proxy = await startProxy();
});
afterAll(() => proxy.stop());

const HOUR_MS = 3_600_000;

type Known = { keys: Keys; registered: RegisteredAgent; client: AgentClient };

const operator = () => createOperatorClient({ baseUrl: proxy.url, token: OPERATOR_TOKEN });

async function newAgent(name: string): Promise<Known> {
  const keys = await generateKeys();
  const registered = await operator().registerAgent({ name, framework: "test", publicKey: keys.publicKey });
  return { keys, registered, client: createAgentClient({ baseUrl: proxy.url, keys, credential: registered }) };
}

const profile = (agentName: string) => ({ agentName, humanName: "Ann" });

async function pair(initiator: AgentClient, responder: AgentClient): Promise<void> {
  const { ticket } = await initiator.pairing.start({ profile: profile("initiator") });
  await responder.pairing.confirm({ ticket, profile: profile("responder") });
}

async function newPair(): Promise<{ alice: Known; bob: Known }> {
  const [alice, bob] = [await newAgent("alice"), await newAgent("bob")];
  await pair(alice.client, bob.client);
  return { alice, bob };
}

/** Listens, and waits for what is told of messages that are delivered by the proxy's own hand too. */
async function listen(client: AgentClient, handlers: Partial<RelayHandlers> = {}) {
  const messages: IncomingMessage[] = [];
  const receipts: string[] = [];
  const waiting: { count: number; resolve: () => void }[] = [];
  const relay: RelayConnection = client.connect(
    {
      ...handlers,
      async onMessage(message) {
        if (message.fromAgentDid === null) return;
        await handlers.onMessage?.(message);
        messages.push(message);
        for (const each of waiting) if (messages.length >= each.count) each.resolve();
      },
      onReceipt: ({ deliveryId, status }) => void receipts.push(`${deliveryId} ${status}`),
    },
    { backoffInitialMs: 100, backoffMaxMs: 1_000 },
  );
  onTestFinished(() => relay.close());
  await relay.opened();
  const arrived = (count: number): Promise<void> =>
    messages.length >= count ? Promise.resolve() : new Promise((resolve) => waiting.push({ count, resolve }));
  return { relay, messages, receipts, arrived };
}

describe("two agents that never met", () => {
  test("cannot write to each other, come to trust each other, and then can", async () => {
    const [alice, bob] = [await newAgent("alice"), await newAgent("bob")];
    await expect(alice.client.send({ to: bob.client.agentDid, payload: 1 })).rejects.toMatchObject({
      name: "ProblemError",
      code: "PROXY_AUTH_FORBIDDEN",
      status: 403,
    });
    await pair(alice.client, bob.client);
    expect(await bob.client.pairing.peers()).toMatchObject([
      { agentDid: alice.client.agentDid, agentName: "initiator" },
    ]);
    const inbox = await listen(bob.client);
    const sent = await alice.client.send({
      to: bob.client.agentDid,
      payloadText: '{"n": 1.0}',
      conversationId: "c-1",
      waitSeconds: 10,
    });
    expect(sent).toMatchObject({ accepted: true, state: "delivered" });
    expect(inbox.messages).toMatchObject([
      { deliveryId: sent.deliveryId, payloadText: '{"n": 1.0}', conversationId: "c-1" },
    ]);
    expect(await alice.client.deliveryStatus(sent.deliveryId)).toMatchObject({ state: "delivered" });
    expect(await alice.client.pairing.remove(bob.client.agentDid)).toBe(true);
    await expect(alice.client.send({ to: bob.client.agentDid, payload: 1 })).rejects.toMatchObject({
      code: "PROXY_AUTH_FORBIDDEN",
    });
  });

  test("write over their sockets, and are told what became of it", async () => {
    const { alice, bob } = await newPair();
    const stranger = await newAgent("stranger");
    const inbox = await listen(bob.client);
    const outbox = await listen(alice.client);
    const { deliveryId } = await outbox.relay.enqueue({ to: bob.client.agentDid, payload: { hello: "bob" } });
    await inbox.arrived(1);
    expect(inbox.messages).toMatchObject([{ deliveryId, payload: { hello: "bob" } }]);
    await expect.poll(() => outbox.receipts, { timeout: 10_000 }).toEqual([`${deliveryId} delivered`]);
    await expect(outbox.relay.enqueue({ to: stranger.client.agentDid, payload: 1 })).rejects.toMatchObject({
      name: "NotAcceptedError",
    });
  });
});

describe("a client", () => {
  test.each([
    [HOUR_MS, false],
    [90 * 24 * HOUR_MS, false],
    [-HOUR_MS / 6, false],
    [-HOUR_MS, true],
  ])(
    "whose clock is off by %d ms sets it by the server's (which it is told to trust: %s)",
    async (offMs, trustServerClock) => {
      const { keys, registered } = await newAgent("clock");
      const client = createAgentClient({
        baseUrl: proxy.url,
        keys,
        credential: registered,
        now: () => Date.now() + offMs,
        trustServerClock,
        onClockCorrection: () => undefined,
      });
      expect(await client.pairing.peers()).toEqual([]);
    },
  );

  test("whose clock is an hour behind does not believe the server's unless it is told to", async () => {
    const { keys, registered } = await newAgent("clock");
    const now = () => Date.now() - HOUR_MS;
    const client = createAgentClient({ baseUrl: proxy.url, keys, credential: registered, now });
    await expect(client.pairing.peers()).rejects.toMatchObject({ code: "CLOCK_NOT_TRUSTED" });
  });

  test("with an expired access token refreshes it once for all its calls", async () => {
    const { keys, registered } = await newAgent("refresher");
    const access = { token: registered.access.token, expiresAtMs: 0 };
    let stored = 0;
    const client = createAgentClient({
      baseUrl: proxy.url,
      keys,
      credential: { ...registered, access },
      onCredential: () => void (stored += 1),
    });
    await Promise.all([1, 2, 3].map(() => client.pairing.peers()));
    expect(stored).toBe(1);
    expect(client.credential().refreshToken).not.toBe(registered.refreshToken);
  });

  test("with an access token that the server does not know refreshes it and goes on", async () => {
    const { keys, registered } = await newAgent("forgetful");
    const access = { token: registered.access.token.slice(0, -4) + "AAAA", expiresAtMs: Date.now() + HOUR_MS };
    const client = createAgentClient({ baseUrl: proxy.url, keys, credential: { ...registered, access } });
    expect(await client.pairing.peers()).toEqual([]);
  });

  test("with a new identity token goes on as before", async () => {
    const { client, registered } = await newAgent("reissued");
    await client.reissue();
    expect(client.credential().ait).not.toBe(registered.ait);
    expect(await client.pairing.peers()).toEqual([]);
  });

  test("of an agent that was re-keyed acts with the new key, and the old one is over", async () => {
    const { alice, bob } = await newPair();
    const keys = await generateKeys();
    const rekeyed = await operator().rekeyAgent(alice.client.agentDid, keys.publicKey);
    const again = createAgentClient({ baseUrl: proxy.url, keys, credential: rekeyed });
    expect(await again.send({ to: bob.client.agentDid, payload: 1 })).toMatchObject({ accepted: true });
    await expect(alice.client.pairing.peers()).rejects.toMatchObject({ name: "ProblemError", status: 401 });
  });

  test("that calls a method which is none is told so", async () => {
    const { client } = await newAgent("caller");
    await expect(client.call("no/such/method")).rejects.toMatchObject({ name: "RpcError", number: -32601 });
    const { relay } = await listen(client);
    await expect(relay.call("no/such/method")).rejects.toMatchObject({ name: "RpcError" });
  });
});

describe("a relay connection", () => {
  test("comes back by itself after the server was killed, and gets what was accepted before", async () => {
    const { alice, bob } = await newPair();
    const states: string[] = [];
    const inbox = await listen(bob.client, { onState: (state) => void states.push(state) });
    await alice.client.send({ to: bob.client.agentDid, payload: "before", waitSeconds: 10 });
    await proxy.kill();
    await expect.poll(() => states, { timeout: 10_000 }).toContain("waiting");
    await proxy.restart();
    const { deliveryId } = await alice.client.send({ to: bob.client.agentDid, payload: "after" });
    await inbox.arrived(2);
    expect(inbox.messages.map(({ payload }) => payload)).toEqual(["before", "after"]);
    await expect
      .poll(async () => (await alice.client.deliveryStatus(deliveryId)).state, { timeout: 10_000 })
      .toBe("delivered");
  });

  test("whose handler refuses makes a dead letter, which can be put back or thrown away", async () => {
    const { alice, bob } = await newPair();
    let isRefused = true;
    const inbox = await listen(bob.client, {
      onMessage: () => {
        if (isRefused) throw new Refuse("not today");
      },
    });
    const { deliveryId } = await alice.client.send({ to: bob.client.agentDid, payload: 1, waitSeconds: 10 });
    await expect
      .poll(() => alice.client.deliveryStatus(deliveryId), { timeout: 10_000 })
      .toMatchObject({ state: "dead_lettered", reason: "not today" });
    const { deadLetters } = await bob.client.deadLetters.list();
    expect(deadLetters).toMatchObject([{ fromAgentDid: alice.client.agentDid, reason: "not today", payload: 1 }]);
    expect((await operator().deadLettersOf(bob.client.agentDid).list()).deadLetters).toEqual(deadLetters);

    await bob.client.deadLetters.purge(deadLetters[0]?.id ?? "");
    expect(await bob.client.deadLetters.list()).toEqual({ deadLetters: [], nextCursor: null });
    await alice.client.send({ to: bob.client.agentDid, payload: 2, waitSeconds: 10 });
    const [second] = (await bob.client.deadLetters.list()).deadLetters;
    isRefused = false;
    await bob.client.deadLetters.replay(second?.id ?? "");
    await inbox.arrived(1);
    expect(inbox.messages).toMatchObject([{ deliveryId: second?.deliveryId, payload: 2 }]);
  });

  test("that is superseded by another of the same agent stops", async () => {
    const { client } = await newAgent("twice");
    const first = await listen(client);
    const second = await listen(client);
    expect(await first.relay.ended).toMatchObject({ why: "superseded" });
    expect(second.relay.state()).toBe("open");
  });

  test("of an agent that is revoked stops and says why", async () => {
    const { client } = await newAgent("revoked");
    const { relay } = await listen(client);
    await operator().revokeAgent(client.agentDid, "test");
    expect(await relay.ended).toMatchObject({ why: "credential-ended", detail: "agent revoked", closeCode: 4001 });
    await expect(client.pairing.peers()).rejects.toMatchObject({ code: "PROXY_AUTH_REVOKED" });
    await expect(relay.opened()).rejects.toMatchObject({ code: "RELAY_STOPPED" });
  });
});
