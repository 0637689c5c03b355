/** What clients of both dialects get. The table of the base dialect stands here once more, strict, in this test's own words. */
import { beforeAll, describe, expect, test } from "vitest";
import * as z from "zod/mini";
import { createDialectCases } from "../../support/dialect-cases.ts";
import { deliverText, receiptText } from "../../../src/gate/relay/dialect.ts";
import type { Receipt } from "../../../src/gate/outbox/outbox.ts";
import { eventually } from "../../support/gate.ts";
import { openRelay, pair, type RelaySocket, sendTo } from "../../support/front-door.ts";
import { type Agent, apiKeyOf, createTask, operator, pairDevice, register, result } from "../../support/world.ts";

const ULID = z.string().check(z.regex(/^[0-9A-HJKMNP-TV-Z]{26}$/));
const DID = z.string().check(z.regex(/^did:cdi:[a-z0-9.-]+:agent:[0-9A-HJKMNP-TV-Z]{26}$/));
const TEXT = z.string().check(z.minLength(1));
const head = { v: z.literal(1), id: ULID, ts: z.string().check(z.regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/)) };
const BASE = z.discriminatedUnion("type", [
  z.strictObject({
    ...head,
    type: z.literal("deliver"),
    fromAgentDid: DID,
    toAgentDid: DID,
    payload: z.unknown(),
    deliverySource: z.optional(TEXT),
    contentType: z.optional(TEXT),
    groupId: z.optional(z.string().check(z.regex(/^grp_[0-9A-HJKMNP-TV-Z]{26}$/))),
    conversationId: z.optional(TEXT),
    replyTo: z.optional(z.string().check(z.refine((text: string) => URL.canParse(text)))),
  }),
  z.strictObject({
    ...head,
    type: z.literal("deliver_ack"),
    ackId: ULID,
    accepted: z.boolean(),
    reason: z.optional(TEXT),
  }),
  z.strictObject({
    ...head,
    type: z.literal("enqueue_ack"),
    ackId: ULID,
    accepted: z.boolean(),
    reason: z.optional(TEXT),
  }),
  z.strictObject({ ...head, type: z.literal("heartbeat") }),
  z.strictObject({ ...head, type: z.literal("heartbeat_ack"), ackId: ULID }),
  z.strictObject({
    ...head,
    type: z.literal("receipt"),
    originalFrameId: ULID,
    toAgentDid: DID,
    status: z.enum(["delivered_to_webhook", "dead_lettered"]),
    reason: z.optional(TEXT),
  }),
]);

/** Throws where a strict client would drop a frame. */
const strict = (frames: readonly unknown[]): unknown[] => frames.map((frame) => z.parse(BASE, frame));

describe("a message as a client of the base dialect reads it", () => {
  const { self, messages } = createDialectCases();

  test.each(messages)("$what has no member beyond its table", ({ push, shows }) => {
    const text = deliverText(self, push, "base", Date.UTC(2026, 11, 1));
    const [frame] = strict([JSON.parse(text ?? "null")]) as [Record<string, unknown>];
    expect(frame).toMatchObject({ ...shows, id: push.deliveryId, toAgentDid: self });
    expect(text).toContain(`"payload":`);
  });

  test("keeps its payload to the byte", () => {
    const [{ push }] = messages as [(typeof messages)[number]];
    expect(deliverText(self, { ...push, body: '{"n": 1e400}' }, "base", 0)).toContain('"payload":{"n": 1e400}}');
  });

  test("a confirmed pairing is the notice that it knows, and none where the responder gave no origin", () => {
    const notice = (profile: Record<string, string>) => ({
      socketId: "s",
      deliveryId: "01KBC00000000000000000000A",
      envelope: { fromAgentDid: null, contentType: "application/json" },
      body: JSON.stringify({
        kind: "pair.confirmed",
        initiatorAgentDid: self,
        responderAgentDid: messages[0]?.push.envelope.fromAgentDid,
        responderProfile: { agentName: "bob", humanName: "Bo", ...profile },
        confirmedAtMs: Date.UTC(2026, 11, 1, 10),
      }),
    });
    const text = deliverText(self, notice({ proxyOrigin: "https://gate.example.com" }), "base", 0);
    const [frame] = strict([JSON.parse(text ?? "null")]);
    expect(frame).toMatchObject({
      fromAgentDid: messages[0]?.push.envelope.fromAgentDid,
      deliverySource: "proxy.events.queue.pair_accepted",
      payload: {
        type: "pair.accepted",
        initiatorAgentDid: self,
        responderProfile: { agentName: "bob", humanName: "Bo", proxyOrigin: "https://gate.example.com" },
        issuerProxyOrigin: "https://gate.example.com",
        eventTimestampUtc: "2026-12-01T10:00:00.000Z",
        message: expect.any(String) as string,
      },
    });
    expect(deliverText(self, notice({}), "base", 0)).toBe(null);
    expect(deliverText(self, notice({}), "v1", 0)).toContain("pair.confirmed");
  });
});

test.each([
  { status: "delivered", base: "delivered_to_webhook" },
  { status: "handled", base: "delivered_to_webhook" },
  { status: "failed", base: "dead_lettered" },
  { status: "dead_lettered", base: "dead_lettered" },
] as const)("a receipt that says $status says $base in the base dialect", ({ status, base }) => {
  const { self } = createDialectCases();
  const receipt: Receipt = {
    deliveryId: "01KBC00000000000000000000A",
    toAgentDid: self,
    originFrameId: "01KBC00000000000000000000F",
    status,
    reason: "why",
  };
  const [frame] = strict([JSON.parse(receiptText(receipt, "base", 0) ?? "null")]);
  expect(frame).toMatchObject({ status: base, originalFrameId: receipt.originFrameId, reason: "why" });
  // Of what was handed in over HTTP there is no frame: that it arrived is not said, how it ended is, by the delivery's id.
  const byHttp = receiptText({ ...receipt, originFrameId: null }, "base", 0);
  if (status === "delivered") expect(byHttp).toBe(null);
  else expect(strict([JSON.parse(byHttp ?? "null")])).toMatchObject([{ originalFrameId: receipt.deliveryId }]);
  expect(JSON.parse(receiptText(receipt, "v1", 0) ?? "null")).toMatchObject({ status, deliveryId: receipt.deliveryId });
  expect(receiptText({ ...receipt, reason: "" }, "base", 0)).not.toContain("reason");
});

describe("over real sockets", () => {
  let alice: Agent;
  let bob: Agent;
  beforeAll(async () => {
    [alice, bob] = [await register(), await register()];
    await pair(alice, bob);
  });

  const acknowledge = (socket: RelaySocket, id: string): string =>
    socket.say({ type: "deliver_ack", ackId: id, accepted: true });

  test("a conversation of a base client: enqueue, deliver, acknowledge, refuse, receipt, and nothing that it would drop", async () => {
    const base = await openRelay(alice, "base");
    const other = await openRelay(bob, "base");
    const sent = base.say({ type: "enqueue", toAgentDid: bob.did, payload: { n: 1 }, conversationId: "talk" });
    await eventually(() => expect(base.of("enqueue_ack")).toMatchObject([{ ackId: sent, accepted: true }]));
    await eventually(() => expect(other.of("deliver")).toMatchObject([{ fromAgentDid: alice.did, payload: { n: 1 } }]));
    acknowledge(other, other.of("deliver")[0]?.id ?? "");
    await eventually(() =>
      expect(base.of("receipt")).toMatchObject([{ originalFrameId: sent, status: "delivered_to_webhook" }]),
    );
    const refused = base.say({ type: "enqueue", toAgentDid: bob.did, payload: 2 });
    await eventually(() => expect(other.of("deliver")).toHaveLength(2));
    other.say({ type: "deliver_ack", ackId: other.of("deliver")[1]?.id, accepted: false, reason: "not mine" });
    await eventually(() =>
      expect(base.of("receipt")[1]).toMatchObject({
        originalFrameId: refused,
        status: "dead_lettered",
        reason: "not mine",
      }),
    );
    base.say({ type: "heartbeat" });
    base.raw("no frame at all");
    await eventually(() => expect(base.of("heartbeat_ack")).toHaveLength(1));
    strict(base.frames);
    strict(other.frames);
    for (const socket of [base, other]) socket.close();
  });

  test("a base client sends in a group, to one and to all, and what comes of it is in its table", async () => {
    const [host, one, two] = [await register(), await register(), await register()];
    const { groupId } = (await result(host, "group/create", { name: "team" })) as { groupId: string };
    for (const member of [one, two]) {
      // oxlint-disable-next-line no-await-in-loop -- in this order
      const { token } = await result(host, "group/invite", { groupId });
      // oxlint-disable-next-line no-await-in-loop
      await result(member, "group/join", { token });
    }
    const base = await openRelay(host, "base");
    const others = [await openRelay(one, "base"), await openRelay(two, "base")] as const;
    const toAll = base.say({ type: "enqueue", groupId, payload: { n: 1 } });
    await eventually(() => expect(base.of("enqueue_ack")).toMatchObject([{ ackId: toAll, accepted: true }]));
    for (const other of others) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await eventually(() => expect(other.of("deliver")).toMatchObject([{ fromAgentDid: host.did, groupId }]));
      acknowledge(other, other.of("deliver")[0]?.id ?? "");
    }
    const isOfAll = { originalFrameId: toAll, status: "delivered_to_webhook" };
    await eventually(() => expect(base.of("receipt")).toMatchObject([isOfAll, isOfAll]));
    expect(
      base
        .of("receipt")
        .map((frame) => String(frame["toAgentDid"]))
        .toSorted(),
    ).toEqual([one.did, two.did].toSorted());
    base.say({ type: "enqueue", groupId, toAgentDid: two.did, payload: 2 });
    await eventually(() => expect(others[1].of("deliver")[1]).toMatchObject({ groupId, payload: 2 }));
    const refused = base.say({ type: "enqueue", groupId: "a label", toAgentDid: one.did, payload: 3 });
    await eventually(() => expect(base.of("enqueue_ack")[2]).toMatchObject({ ackId: refused, accepted: false }));
    for (const socket of [base, ...others]) {
      strict(socket.frames);
      socket.close();
    }
  });

  test("a refused enqueue, a message of a service account, and one of the operator are in its table", async () => {
    const stranger = await register();
    const base = await openRelay(bob, "base");
    const refused = base.say({ type: "enqueue", toAgentDid: stranger.did, payload: 1 });
    await eventually(() => expect(base.of("enqueue_ack")).toMatchObject([{ ackId: refused, accepted: false }]));
    const key = await apiKeyOf(bob, ["tasks:read", "tasks:write"]);
    const task = await createTask(key, { agentDid: bob.did });
    await result(key, "message/send", { taskId: task.taskId, content: "hello" });
    await result(operator, "message/send", { taskId: task.taskId, content: "hi" });
    await eventually(() => expect(base.of("deliver")).toHaveLength(2));
    // Two senders, in either order.
    const sources = (strict(base.of("deliver")) as { deliverySource: string }[]).map(
      ({ deliverySource }) => deliverySource,
    );
    expect(sources.toSorted()).toEqual(["operator:root", `service_account:${key.serviceAccountId}`]);
    expect(base.of("deliver").every(({ fromAgentDid }) => fromAgentDid === bob.did)).toBe(true);
    strict(base.frames);
    base.close();
  });

  test("sockets of both kinds at one agent each get their own, and a later one of the other kind the repeat", async () => {
    const carol = await register();
    await pair(alice, carol);
    const device = await pairDevice(carol, ["relay"]);
    const first = await openRelay(carol, "base");
    const id = await sendTo(alice, carol, { n: 1 });
    await eventually(() => expect(first.of("deliver")).toMatchObject([{ id }]));
    expect(first.of("deliver")[0]).not.toHaveProperty("deliveryId");
    const second = await openRelay(device, "v1");
    first.close();
    await eventually(() => expect(second.of("deliver")).toMatchObject([{ id, deliveryId: id }]));
    acknowledge(second, id);
    second.close();
  });

  test("the sender's name is in the frames of sallyport.v1, of an agent and of its device alike, and in no other", async () => {
    const dave = await register();
    await pair(alice, dave);
    const device = await pairDevice(alice, ["send"]);
    const v1 = await openRelay(dave, "v1");
    await sendTo(alice, dave, 1);
    await eventually(() => expect(v1.of("deliver")).toHaveLength(1));
    const sending = await openRelay(device, "v1");
    sending.say({ type: "enqueue", toAgentDid: dave.did, payload: 2 });
    await eventually(() => expect(v1.of("deliver")).toHaveLength(2));
    const names = v1.of("deliver").map(({ fromName }) => fromName);
    expect(names).toEqual([expect.stringMatching(/^[A-Za-z0-9._ -]{1,64}$/), names[0]]);
    for (const { id } of v1.of("deliver")) acknowledge(v1, id);
    v1.close();
    const base = await openRelay(dave, "base");
    await sendTo(alice, dave, 3);
    await eventually(() => expect(base.of("deliver")).toMatchObject([{ payload: 3 }]));
    strict(base.frames);
    for (const socket of [sending, base]) socket.close();
  });

  test("events, errors of frames included, go to sockets of sallyport.v1 alone", async () => {
    const v1 = await openRelay(bob, "v1");
    v1.raw("no frame");
    await eventually(() =>
      expect(v1.of("event")).toMatchObject([{ event: "error", payload: { code: "MALFORMED_FRAME" } }]),
    );
    v1.close();
  });
});
