/** Messages for programs without a socket. */
import { runDurableObjectAlarm } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { crashGate, eventually, rows } from "../../support/gate.ts";
import { type Answer, ask, openRelay, pair, sendTo } from "../../support/front-door.ts";
import {
  type Agent,
  fetchWorker,
  OPERATOR_TOKEN,
  operator,
  pairDevice,
  register,
  result,
} from "../../support/world.ts";
import type { AgentDid } from "../../../src/wire/did.ts";

let alice: Agent;
let bob: Agent;
beforeEach(async () => {
  [alice, bob] = [await register(), await register()];
  await pair(alice, bob);
  return () => vi.useRealTimers();
});

type Message = { deliveryId: string; payload: unknown } & Record<string, unknown>;

async function fetched(query = "", by: Parameters<typeof ask>[0] = bob): Promise<Message[]> {
  const answer = await ask(by, "GET", `/v1/inbox${query}`);
  if (answer.status !== 200) throw new Error(`${answer.status} ${answer.text}`);
  return answer.body["messages"] as Message[];
}
const acknowledge = (acks: Record<string, unknown>[], by: Parameters<typeof ask>[0] = bob): Promise<Answer> =>
  ask(by, "POST", "/v1/inbox/ack", { acks });
const stateOf = async (id: string): Promise<unknown> => (await ask(alice, "GET", `/v1/deliveries/${id}`)).body["state"];
/** Once it is in Bob's gate. */
const arrived = async (id: string): Promise<void> => {
  const query = "SELECT delivery_id FROM inbound WHERE delivery_id = ?";
  await eventually(async () => expect(await rows(bob.did as AgentDid, query, id)).toHaveLength(1));
};

test("messages come oldest first with the members of a deliver frame, and are over when they are acknowledged", async () => {
  const ids = [await sendTo(alice, bob, { n: 1 }, { "X-Claw-Conversation-Id": "talk" }), await sendTo(alice, bob, 2)];
  for (const id of ids) await arrived(id);
  expect(await fetched()).toMatchObject([
    { deliveryId: ids[0], fromAgentDid: alice.did, toAgentDid: bob.did, payload: { n: 1 }, conversationId: "talk" },
    { deliveryId: ids[1], payload: 2 },
  ]);
  expect((await acknowledge(ids.map((deliveryId) => ({ deliveryId, accepted: true })))).body).toEqual({
    acknowledged: 2,
  });
  for (const id of ids) await eventually(async () => expect(await stateOf(id)).toBe("delivered"));
  expect(await fetched()).toEqual([]);
});

test("a payload keeps its own text", async () => {
  const body = '{"n": 1.0, "n":"\\u00e9"}';
  const id = await sendTo(alice, bob, JSON.parse(body));
  await arrived(id);
  expect((await ask(bob, "GET", "/v1/inbox")).text).toContain('"payload":{"n":"é"}');
});

test("what was fetched is its fetcher's for a minute; then the attempt has failed, and it comes again", async () => {
  // Before the gates are there, which keep the clock that they find.
  const startMs = Date.now();
  vi.useFakeTimers({ now: startMs, toFake: ["Date"] });
  [alice, bob] = [await register(), await register()];
  await pair(alice, bob);
  const id = await sendTo(alice, bob, 1);
  await arrived(id);
  expect(await fetched()).toMatchObject([{ deliveryId: id }]);
  expect(await fetched()).toEqual([]);
  vi.setSystemTime(startMs + 59_000);
  expect(await fetched()).toEqual([]);
  vi.setSystemTime(startMs + 61_000);
  await runDurableObjectAlarm(env.GATE.getByName(bob.did));
  // The retry's own wait: a second and a fifth at most.
  vi.setSystemTime(startMs + 62_300);
  expect(await fetched()).toMatchObject([{ deliveryId: id }]);
  expect((await ask(alice, "GET", `/v1/deliveries/${id}`)).body).toMatchObject({ state: "queued", attempts: 2 });
});

test("it is held over a crash of the gate, once that has been written down", async () => {
  const id = await sendTo(alice, bob, 1);
  await arrived(id);
  expect(await fetched()).toHaveLength(1);
  expect((await acknowledge([{ deliveryId: id, accepted: true }])).body).toEqual({ acknowledged: 1 });
  await crashGate(bob.did as AgentDid);
  expect(await fetched()).toEqual([]);
});

test("'not now' keeps the order of a sender, and holds back nobody else", async () => {
  const carol = await register();
  await pair(carol, bob);
  const [first, second] = [await sendTo(alice, bob, 1), await sendTo(alice, bob, 2)];
  const other = await sendTo(carol, bob, 3);
  await arrived(second);
  await arrived(other);
  expect(await fetched()).toHaveLength(3);
  await acknowledge([{ deliveryId: first, accepted: false, retryAfterMs: 0 }]);
  await acknowledge([{ deliveryId: other, accepted: true }]);
  await eventually(async () => expect((await fetched()).map(({ deliveryId }) => deliveryId)).toEqual([first, second]));
});

test("a refusal is a dead letter with its reason", async () => {
  const id = await sendTo(alice, bob, 1);
  await arrived(id);
  await fetched();
  await acknowledge([{ deliveryId: id, accepted: false, reason: "not mine" }]);
  await eventually(async () =>
    expect((await ask(alice, "GET", `/v1/deliveries/${id}`)).body).toMatchObject({
      state: "dead_lettered",
      reason: "not mine",
    }),
  );
});

describe("beside a socket and another fetcher", () => {
  test("a message is with one of them at a time, and only that one can acknowledge it", async () => {
    const device = await pairDevice(bob, ["relay"]);
    const id = await sendTo(alice, bob, 1);
    await arrived(id);
    expect(await fetched("", device)).toHaveLength(1);
    expect(await fetched()).toEqual([]);
    const socket = await openRelay(bob, "v1");
    expect((await acknowledge([{ deliveryId: id, accepted: true }])).body).toEqual({ acknowledged: 0 });
    expect(socket.of("deliver")).toEqual([]);
    expect((await acknowledge([{ deliveryId: id, accepted: true }], device)).body).toEqual({ acknowledged: 1 });
    await eventually(async () => expect(await stateOf(id)).toBe("delivered"));
    socket.close();
  });
});

describe("waiting", () => {
  test("a request that waits is answered when a message comes", async () => {
    const waiting = fetched("?waitSeconds=25");
    const id = await sendTo(alice, bob, "hello");
    expect(await waiting).toMatchObject([{ deliveryId: id, payload: "hello" }]);
  });

  test("one whose agent is revoked meanwhile gets nothing, and the revocation does not wait for it", async () => {
    const waiting = ask(bob, "GET", "/v1/inbox?waitSeconds=2");
    await ask(alice, "GET", "/v1/time");
    const before = Date.now();
    await result(operator, "device.pair.list", { agentDid: bob.did });
    const revoked = await fetchWorker(
      new Request("https://proxy.example/v1/agents/revoke", {
        method: "POST",
        headers: { Authorization: `Bearer ${OPERATOR_TOKEN}`, "Content-Type": "application/json" },
        body: JSON.stringify({ agentDid: bob.did }),
      }),
    );
    expect(revoked.status).toBe(200);
    expect(Date.now() - before).toBeLessThan(5_000);
    expect((await waiting).status).toBe(401);
  });
});

test.each([
  "limit=0",
  "limit=101",
  "limit=x",
  "waitSeconds=26",
  "waitSeconds=-1",
  "waitSeconds=1.5",
  "waitSeconds=abc",
])("%s is 400", async (query) => expect((await ask(bob, "GET", `/v1/inbox?${query}`)).status).toBe(400));

test.each([
  {},
  { acks: 1 },
  { acks: [{}] },
  { acks: [{ deliveryId: "x", accepted: "yes" }] },
  { acks: [{ deliveryId: "x", accepted: false, retryAfterMs: -1 }] },
  { acks: Array.from({ length: 101 }, () => ({ deliveryId: "x", accepted: true })) },
])("acknowledgements of %j are 400", async (body) => {
  expect((await ask(bob, "POST", "/v1/inbox/ack", body)).status).toBe(400);
});

test("a credential without the scope relay is refused, and an unknown message acknowledges nothing", async () => {
  const sender = await pairDevice(bob, ["send"]);
  expect((await ask(sender, "GET", "/v1/inbox")).status).toBe(403);
  expect((await acknowledge([{ deliveryId: "01KBC0000000000000000000ZZ", accepted: true }])).body).toEqual({
    acknowledged: 0,
  });
});
