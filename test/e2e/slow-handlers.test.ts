/** Handlers that take long or fail, with the real library on the real program, which waits 3 s for an acknowledgement here. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type AgentClient, createAgentClient, createOperatorClient, generateKeys } from "../../src/client/index.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";

const ACK_TIMEOUT_MS = 3_000;

let proxy: Proxy;
beforeAll(async () => {
  proxy = await startProxy({}, { ACK_TIMEOUT_MS });
});
afterAll(() => proxy.stop());

/** Two agents that trust each other. */
async function newPair(): Promise<[AgentClient, AgentClient]> {
  const operator = createOperatorClient({ baseUrl: proxy.url, token: OPERATOR_TOKEN });
  const register = async (name: string): Promise<AgentClient> => {
    const keys = await generateKeys();
    const credential = await operator.registerAgent({ name, framework: "test", publicKey: keys.publicKey });
    return createAgentClient({ baseUrl: proxy.url, keys, credential });
  };
  const [one, other] = [await register("one"), await register("other")];
  const { ticket } = await one.pairing.start({ profile: { agentName: "one", humanName: "Ann" } });
  await other.pairing.confirm({ ticket, profile: { agentName: "other", humanName: "Bo" } });
  return [one, other];
}

test("a handler that takes longer than the server waits is not given its message again, nor is it taken for dead", async () => {
  const [sender, recipient] = await newPair();
  const handled: unknown[] = [];
  const relay = recipient.connect(
    {
      async onMessage({ fromAgentDid, payload }) {
        if (fromAgentDid === null) return;
        handled.push(payload);
        await sleep(2 * ACK_TIMEOUT_MS + 1_000);
      },
    },
    { workingMs: 300 },
  );
  await relay.opened();
  const to = recipient.agentDid;
  const sent = [await sender.send({ to, payload: 1 }), await sender.send({ to, payload: 2 })];
  const states = () => Promise.all(sent.map(({ deliveryId }) => sender.deliveryStatus(deliveryId)));
  await expect.poll(states, { timeout: 60_000, interval: 500 }).toMatchObject([
    { state: "delivered", attempts: 1 },
    { state: "delivered", attempts: 1 },
  ]);
  expect(handled).toEqual([1, 2]);
  relay.close();
});

test("messages of one sender are handled in their order although the handler of the first fails once", async () => {
  const [sender, recipient] = await newPair();
  const handled: unknown[] = [];
  const errors: unknown[] = [];
  let failures = 1;
  const to = recipient.agentDid;
  for (const payload of [1, 2, 3, 4, 5]) await sender.send({ to, payload });
  const relay = recipient.connect({
    onMessage({ fromAgentDid, payload }) {
      if (fromAgentDid === null) return;
      if (payload === 1 && (failures -= 1) >= 0) throw new Error("once");
      handled.push(payload);
    },
    onError: (error) => void errors.push(error),
  });
  await expect.poll(() => handled, { timeout: 60_000, interval: 200 }).toHaveLength(5);
  expect(handled).toEqual([1, 2, 3, 4, 5]);
  expect(errors).toMatchObject([{ message: "once" }]);
  relay.close();
});
