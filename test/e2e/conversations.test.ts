/** Replies, requests and messages as a sequence, between two agents and the real program. */
import { once } from "node:events";
import { spawn } from "node:child_process";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import {
  type AgentClient,
  type AgentClientOptions,
  createAgentClient,
  createOperatorClient,
  exportKeys,
  generateKeys,
  NoReplyError,
  Refuse,
  ReplyLimitError,
} from "../../src/client/index.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { root } from "../support/program/bundle.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";

let proxy: Proxy;
beforeAll(async () => {
  proxy = await startProxy();
});
afterAll(() => proxy.stop());

type Known = { readonly client: AgentClient; readonly options: AgentClientOptions };

async function newAgent(name: string, more: Partial<AgentClientOptions> = {}): Promise<Known> {
  const keys = await generateKeys();
  const operator = createOperatorClient({ baseUrl: proxy.url, token: OPERATOR_TOKEN });
  const registered = await operator.registerAgent({ name, framework: "test", publicKey: keys.publicKey });
  const options = { baseUrl: proxy.url, keys, credential: registered, ...more };
  const client = createAgentClient(options);
  onTestFinished(() => client.close());
  return { client, options };
}

async function newPair(more: Partial<AgentClientOptions> = {}): Promise<{ alice: AgentClient; bob: AgentClient }> {
  const [alice, bob] = [(await newAgent("alice", more)).client, (await newAgent("bob", more)).client];
  await pair(alice, bob);
  return { alice, bob };
}

async function pair(one: AgentClient, other: AgentClient): Promise<void> {
  const profile = { agentName: "agent", humanName: "Ann" };
  const { ticket } = await one.pairing.start({ profile });
  await other.pairing.confirm({ ticket, profile });
}

/** The next message of a sequence that an agent has sent. */
async function nextOf(sequence: ReturnType<AgentClient["messages"]>) {
  for (;;) {
    const { value, done } = await sequence.next();
    if (done === true) throw new Error("the sequence is over");
    if (value.fromAgentDid !== null) return value;
  }
}

describe("a request", () => {
  test("is answered by the recipient's reply, which no other handler sees", async () => {
    const { alice, bob } = await newPair();
    const seen: unknown[] = [];
    bob.connect({
      onMessage: async (message) =>
        void (message.fromAgentDid === null || (await message.reply({ got: message.payload }))),
    });
    alice.connect({ onMessage: ({ payload, fromAgentDid }) => void (fromAgentDid === null || seen.push(payload)) });
    const replies = await Promise.all([1, 2, 3].map((n) => alice.request({ to: bob.agentDid, payload: n })));
    expect(replies.map(({ payload }) => payload)).toEqual([1, 2, 3].map((got) => ({ got })));
    expect(seen).toEqual([]);
  });

  test("listens by itself where nobody does, and leaves other messages for later", async () => {
    const { alice, bob } = await newPair();
    const carol = (await newAgent("carol")).client;
    await pair(carol, alice);
    bob.connect({
      async onMessage(message) {
        if (message.fromAgentDid === null) return;
        await carol.send({ to: alice.agentDid, payload: "something else" });
        await message.reply("the answer");
      },
    });
    expect((await alice.request({ to: bob.agentDid, payload: 1 })).payload).toBe("the answer");
    expect((await nextOf(alice.messages())).payload).toBe("something else");
  });

  test("says that no answer came, that it was refused, and that it was given up", async () => {
    const { alice, bob } = await newPair();
    const request = { to: bob.agentDid, payload: 1 };
    await expect(alice.request({ ...request, timeoutMs: 50 })).rejects.toThrow(NoReplyError);
    const controller = new AbortController();
    const given = alice.request({ ...request, signal: controller.signal });
    controller.abort(new Error("enough"));
    await expect(given).rejects.toThrow("enough");
    bob.connect({ onMessage: () => Promise.reject(new Refuse("not for me")) });
    await expect(alice.request(request)).rejects.toThrow("not for me");
    await expect(alice.request({ ...request, timeoutMs: 0 })).rejects.toMatchObject({ argument: "timeoutMs" });
  });
});

describe("a reply", () => {
  test("stays in the conversation of its message, and begins one where there is none", async () => {
    const { alice, bob } = await newPair();
    const [atBob, atAlice] = [bob.messages(), alice.messages()];
    await alice.send({ to: bob.agentDid, payload: 1, conversationId: "about one" });
    await (await nextOf(atBob)).reply(2);
    const second = await nextOf(atAlice);
    expect(second).toMatchObject({ payload: 2, conversationId: "about one" });
    // Whoever writes a message out gets its data alone.
    expect(Object.values({ ...second }).filter((value) => typeof value === "function")).toEqual([]);
    const { deliveryId } = await alice.send({ to: bob.agentDid, payload: 3 });
    await (await nextOf(atBob)).reply(4);
    expect(await nextOf(atAlice)).toMatchObject({ payload: 4, conversationId: deliveryId });
  });

  test("two programs that answer each other come to an end, which says why", async () => {
    const { alice, bob } = await newPair({ replyLimit: { max: 5 } });
    const limited: unknown[] = [];
    let replies = 0;
    for (const agent of [alice, bob]) {
      agent.connect({
        async onMessage(message) {
          if (message.fromAgentDid === null) return;
          try {
            await message.reply("and you?");
            replies += 1;
          } catch (error) {
            limited.push(error);
            throw error;
          }
        },
      });
    }
    await alice.send({ to: bob.agentDid, payload: "hello" });
    await expect.poll(() => limited.length).toBe(1);
    // The last one is counted when its sender has the answer, and its recipient may be faster.
    await expect.poll(() => replies).toBe(10);
    expect(limited[0]).toBeInstanceOf(ReplyLimitError);
    expect(limited[0]).toMatchObject({ code: "REPLY_LIMIT", message: expect.stringContaining("replyLimit") as string });
    // What got no reply is a dead letter, and does not come again.
    await expect
      .poll(
        async () =>
          (await alice.deadLetters.list()).deadLetters.length + (await bob.deadLetters.list()).deadLetters.length,
      )
      .toBe(1);
  });
});

describe("messages as a sequence", () => {
  test("are acknowledged when the next one is asked for; what was in hand when the loop ends comes again", async () => {
    const { alice, bob } = await newPair();
    for (const payload of [1, 2, 3]) await alice.send({ to: bob.agentDid, payload });
    const taken: unknown[] = [];
    const body = async () => {
      for await (const { fromAgentDid, payload } of bob.messages()) {
        if (fromAgentDid === null) continue;
        taken.push(payload);
        if (payload === 2) throw new Error("the body fails");
      }
    };
    await expect(body()).rejects.toThrow("the body fails");
    for await (const message of bob.messages()) {
      if (message.fromAgentDid === null) continue;
      taken.push(message.payload);
      message.acknowledge();
      if (message.payload === 2) break;
    }
    expect((await nextOf(bob.messages())).payload).toBe(3);
    expect(taken).toEqual([1, 2, 2]);
  });

  test("end with the signal's reason, and without an error where the agent is closed", async () => {
    const { bob } = await newPair();
    const drain = async (signal?: AbortSignal) => {
      for await (const { deliveryId } of bob.messages({ signal })) expect(deliveryId).toBeTruthy();
    };
    await expect(drain(AbortSignal.abort(new Error("enough")))).rejects.toThrow("enough");
    const controller = new AbortController();
    const waiting = drain(controller.signal);
    setTimeout(() => controller.abort(new Error("later")), 20);
    await expect(waiting).rejects.toThrow("later");
    const closed = drain();
    setTimeout(() => bob.close(), 20);
    await expect(closed).resolves.toBeUndefined();
  });
});

test("the error of a handler is printed, and its message comes again", async () => {
  const { alice, bob } = await newPair();
  const printed = vi.spyOn(console, "error").mockImplementation(() => undefined);
  onTestFinished(() => printed.mockRestore());
  const attempts: string[] = [];
  bob.connect({
    onMessage({ fromAgentDid, deliveryId }) {
      if (fromAgentDid === null) return;
      attempts.push(deliveryId);
      if (attempts.length === 1) throw new Error("the first time it fails");
    },
  });
  await alice.send({ to: bob.agentDid, payload: 1 });
  await expect.poll(() => attempts.length).toBe(2);
  expect(attempts[1]).toBe(attempts[0]);
  expect(String(printed.mock.calls[0]?.[1])).toContain("the first time it fails");
});

test("whatever waits at a relay can be given up", async () => {
  const { options } = await newAgent("alone");
  const away = createAgentClient({ ...options, baseUrl: "http://127.0.0.1:9" });
  const relay = away.connect({ onMessage: () => undefined, onError: () => undefined });
  const signal = AbortSignal.timeout(20);
  const waits = [
    relay.opened({ signal }),
    relay.call("tasks.list", {}, { signal }),
    relay.enqueue({ payload: 1, signal }),
  ];
  for (const { status } of await Promise.allSettled(waits)) expect(status).toBe("rejected");
  const ending = new AbortController();
  const ended = away.connect({ onMessage: () => undefined, onError: () => undefined }, { signal: ending.signal }).ended;
  ending.abort();
  expect((await ended).why).toBe("closed");
  away.close();
  expect((await relay.ended).why).toBe("closed");
});

test("close lets the process end by itself", async () => {
  const { options } = await newAgent("short");
  const given = { ...options, keys: await exportKeys(options.keys) };
  const program = `
    import { createAgentClient, importKeys } from "${root}/src/client/index.ts";
    const options = JSON.parse(process.argv[1]);
    const agent = createAgentClient({ ...options, keys: await importKeys(options.keys) });
    await agent.connect({ onMessage: () => undefined }).opened();
    agent.close();
    console.log("closed");`;
  const child = spawn(
    process.execPath,
    ["--input-type=module-typescript", "-e", program, "--", JSON.stringify(given)],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  onTestFinished(() => void child.kill("SIGKILL"));
  await once(child.stdout, "data");
  expect(await once(child, "exit")).toEqual([0, null]);
});

test.each([
  ["to", (agent: AgentClient) => agent.send({ to: 7 as never, payload: 1 })],
  ["payload", (agent: AgentClient) => agent.send({ to: "did", payload: undefined })],
  ["payload", (agent: AgentClient) => agent.send({ to: "did", payload: () => 1 })],
  ["conversationId", (agent: AgentClient) => agent.send({ to: "did", payload: 1, conversationId: "" })],
  ["groupId", (agent: AgentClient) => agent.sendToGroup({ groupId: null as never, payload: 1 })],
  ["deliveryId", (agent: AgentClient) => agent.deliveryStatus(undefined as never)],
  ["waitSeconds", (agent: AgentClient) => agent.send({ to: "did", payload: 1, waitSeconds: -1 })],
])("the error of an argument names it: %s", async (argument, act) => {
  const { client } = await newAgent("wrong");
  await expect(act(client)).rejects.toMatchObject({ name: "InvalidArgumentError", argument });
});

test("a client that is made with nothing says what is missing", () => {
  const make = (options: object) => () => createAgentClient(options as never);
  expect(make({})).toThrow(expect.objectContaining({ argument: "keys" }) as Error);
  expect(make({ keys: {} })).toThrow(expect.objectContaining({ argument: "credential" }) as Error);
  expect(make({ keys: {}, credential: {} })).toThrow(expect.objectContaining({ argument: "baseUrl" }) as Error);
});
