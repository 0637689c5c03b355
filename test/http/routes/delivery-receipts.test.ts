/** What a recipient's program made of a message, over HTTP. */
import { beforeAll, describe, expect, test } from "vitest";
import { crashGate, eventually } from "../../support/gate.ts";
import { type Answer, ask, openRelay, pair, type RelaySocket, sendTo } from "../../support/front-door.ts";
import { type Agent, pairDevice, register } from "../../support/world.ts";
import type { AgentDid } from "../../../src/wire/did.ts";

const PATH = "/v1/relay/delivery-receipts";

let alice: Agent;
let bob: Agent;
let relay: RelaySocket;
beforeAll(async () => {
  [alice, bob] = [await register(), await register()];
  await pair(alice, bob);
  relay = await openRelay(bob, "v1");
});

/** A message that Bob has acknowledged. */
async function delivered(headers: Record<string, string> = {}): Promise<string> {
  const id = await sendTo(alice, bob, { n: 1 }, headers);
  await eventually(() => expect(relay.of("deliver").map((frame) => frame.id)).toContain(id));
  relay.say({ type: "deliver_ack", ackId: id, accepted: true });
  await eventually(async () => expect(await stateOf(id)).toMatchObject({ state: "delivered" }));
  return id;
}

const stateOf = async (id: string): Promise<Record<string, unknown>> =>
  (await ask(alice, "GET", `/v1/deliveries/${id}`)).body;
const report = (id: string, over: Record<string, unknown> = {}, by: Parameters<typeof ask>[0] = bob): Promise<Answer> =>
  ask(by, "POST", PATH, {
    requestId: id,
    senderAgentDid: alice.did,
    recipientAgentDid: bob.did,
    status: "delivered_to_webhook",
    ...over,
  });
const asked = (id: string): Promise<Answer> =>
  ask(alice, "GET", `${PATH}?requestId=${id}&recipientAgentDid=${bob.did}`);

test("handled: the sender's state, its receipt over the socket, and the answer to whoever asks", async () => {
  const sender = await openRelay(alice, "v1");
  const id = await delivered();
  expect(await asked(id)).toMatchObject({ status: 404, body: { found: false } });
  expect(await report(id)).toMatchObject({ status: 202, body: { accepted: true } });
  expect(await stateOf(id)).toMatchObject({ state: "handled" });
  await eventually(() =>
    expect(sender.of("receipt").filter(({ deliveryId }) => deliveryId === id)).toMatchObject([
      { status: "delivered" },
      { status: "handled" },
    ]),
  );
  expect(await asked(id)).toMatchObject({
    status: 200,
    body: {
      found: true,
      receipt: { requestId: id, senderAgentDid: alice.did, recipientAgentDid: bob.did, status: "delivered_to_webhook" },
    },
  });
  sender.close();
});

test("failed, with a reason that is bounded; the first verdict stands, and a repeat is accepted", async () => {
  const id = await delivered();
  await report(id, { status: "dead_lettered", reason: "\u{1F600}".repeat(600) });
  const { state, reason } = (await stateOf(id)) as { state: string; reason: string };
  expect([state, [...reason].length]).toEqual(["failed", 512]);
  expect((await report(id)).status).toBe(202);
  expect(await stateOf(id)).toMatchObject({ state: "failed" });
  expect(await asked(id)).toMatchObject({ body: { receipt: { status: "dead_lettered" } } });
});

test("a verdict outlasts a crash of the sender's gate, and its receipt comes with the next socket", async () => {
  const id = await delivered();
  await report(id, { status: "dead_lettered", reason: "no" });
  await crashGate(alice.did as AgentDid);
  expect(await stateOf(id)).toMatchObject({ state: "failed", reason: "no" });
  const other = await delivered();
  await report(other);
  await crashGate(alice.did as AgentDid);
  const sender = await openRelay(alice, "v1");
  await eventually(() =>
    expect(sender.of("receipt")).toContainEqual(expect.objectContaining({ deliveryId: other, status: "handled" })),
  );
  sender.close();
});

test("a repeat of the send under its key says what has become of the message", async () => {
  const key = { "Idempotency-Key": crypto.randomUUID(), "X-Claw-Recipient-Agent-Did": bob.did };
  const id = await delivered(key);
  await report(id);
  const again = await ask(alice, "POST", "/hooks/agent", { n: 1 }, key);
  expect(again).toMatchObject({
    status: 202,
    body: { deliveryId: id, state: "handled", delivered: true, queued: false },
  });
});

test("a device that may receive may report", async () => {
  const id = await delivered();
  const device = await pairDevice(bob, ["relay"]);
  const sender = await pairDevice(bob, ["send"]);
  expect((await report(id, {}, sender)).status).toBe(403);
  expect((await report(id, {}, device)).status).toBe(202);
});

describe("is one 404", () => {
  test("for a message of another's, to another, never sent, not delivered, and dead", async () => {
    const carol = await register();
    const id = await delivered();
    const waiting = await sendTo(alice, bob, { n: 2 });
    await eventually(() => expect(relay.of("deliver").map((frame) => frame.id)).toContain(waiting));
    const answers = [
      await report(waiting),
      await report(id, { senderAgentDid: carol.did }),
      await report(id, { senderAgentDid: bob.did.replace(/.{26}$/, "01KBC0000000000000000000ZZ") }),
      await report(id, { recipientAgentDid: carol.did }),
      await report("01KBC0000000000000000000ZZ"),
      await ask(carol, "POST", PATH, {
        requestId: id,
        senderAgentDid: alice.did,
        recipientAgentDid: carol.did,
        status: "delivered_to_webhook",
      }),
    ];
    relay.say({ type: "deliver_ack", ackId: waiting, accepted: false, reason: "no" });
    await eventually(async () => expect(await stateOf(waiting)).toMatchObject({ state: "dead_lettered" }));
    answers.push(await report(waiting));
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 404));
    expect(new Set(answers.map(({ body: { requestId: _requestId, ...rest } }) => JSON.stringify(rest))).size).toBe(1);
    expect(await stateOf(id)).toMatchObject({ state: "delivered" });
  });
});

test.each([
  { status: "handled" },
  { status: 1 },
  { requestId: "" },
  { requestId: "x".repeat(513) },
  { senderAgentDid: "did:x" },
  { recipientAgentDid: null },
  { reason: 1 },
])("a body with %j is 400", async (over) => {
  expect((await report("01KBC0000000000000000000ZZ", over)).status).toBe(400);
});
