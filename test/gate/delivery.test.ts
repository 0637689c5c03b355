import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { QueuedMessage } from "../../src/gate/protocol/transfer.ts";
import type { AgentDid } from "../../src/wire/did.ts";
import { isUlid } from "../../src/wire/ulid.ts";
import {
  admissionOf,
  alarmOf,
  call,
  crashGate,
  eventually,
  gateStub,
  listen,
  newAgentDid,
  queuedMessage,
  pass,
  rows,
  send,
  sent,
  START_MS,
  stopClock,
} from "../support/gate.ts";

const TTL_MS = 3_600_000;

let alice: AgentDid;
let bob: AgentDid;
beforeEach(() => {
  stopClock();
  alice = newAgentDid();
  bob = newAgentDid();
});
afterEach(() => void vi.useRealTimers());

const statusOf = (from: AgentDid, deliveryId: string) => call(from, "delivery.get", { deliveryId });

const stateOf = async (from: AgentDid, deliveryId: string) => (await statusOf(from, deliveryId))["state"];

/** Nothing but the alarm: the gate is put to sleep first, and no request follows. */
async function onlyTheAlarm(did: AgentDid): Promise<void> {
  await evictDurableObject(gateStub(did));
  expect(await runDurableObjectAlarm(gateStub(did))).toBe(true);
}

/** Waits for what comes with time: the clock goes on by a tick of the hand-over at each look. */
const inTime = (look: () => void | Promise<void>): Promise<void> =>
  eventually(() => {
    pass(250);
    return look();
  });

/** Lets this sender's share of the recipient's queue be full. */
async function fill(recipient: AgentDid, sender: AgentDid): Promise<QueuedMessage[]> {
  const queuedMessages = Array.from({ length: 100 }, () => queuedMessage());
  expect(await gateStub(recipient).receive(sender, queuedMessages)).toEqual({ taken: 100 });
  return queuedMessages;
}

describe("a message", () => {
  test("reaches a recipient that listens, byte for byte, under an id that can be acknowledged, and its sender learns of it", async () => {
    const relay = await listen(bob);
    const sender = await listen(alice);
    const deliveryId = await sent(
      alice,
      bob,
      { b: 1, a: "ü\u0000" },
      { conversationId: "c", replyTo: "https://r.example/", contentType: "application/json" },
    );
    await eventually(async () => expect(await stateOf(alice, deliveryId)).toBe("delivered"));
    const [frame] = relay.deliveries();
    expect(frame).toMatchObject({
      v: 1,
      deliveryId,
      fromAgentDid: alice,
      toAgentDid: bob,
      conversationId: "c",
      replyTo: "https://r.example/",
      contentType: "application/json",
    });
    expect(isUlid(frame?.id ?? "")).toBe(true);
    expect(relay.texts.find((text) => text.includes('"deliver"'))).toContain('"payload":{"b":1,"a":"ü\\u0000"}');
    expect(relay.texts.join()).not.toContain("trustEpoch");
    expect(await statusOf(alice, deliveryId)).toMatchObject({ state: "delivered", attempts: 1 });
    await eventually(() =>
      expect(sender.receipts()).toMatchObject([{ deliveryId, toAgentDid: bob, status: "delivered" }]),
    );
  });

  test("keeps its white space, its order of members and its numbers", async () => {
    const relay = await listen(bob);
    const body = '{ "z":1.0,\n\t"a" : 1e2, "a":12345678901234567890 }';
    const submission = { admission: admissionOf(alice), to: bob, trustEpoch: 1, bytes: body.length };
    await gateStub(alice).submit(JSON.stringify(submission), body);
    await eventually(() => expect(relay.texts.some((text) => text.endsWith(`"payload":${body}}`))).toBe(true));
  });

  test("of 1 MiB fits into a frame of 1 MiB and 16 KiB, with everything that may stand around it", async () => {
    const relay = await listen(bob);
    const body = `"${"x".repeat(1_048_574)}"`;
    const quotes = '"'.repeat(256);
    await gateStub(alice).submit(
      JSON.stringify({
        admission: admissionOf(alice),
        to: bob,
        trustEpoch: 1,
        bytes: body.length,
        conversationId: quotes,
        contentType: `application/json;x="${"\\".repeat(100)}"`,
        replyTo: `https://r.example/${"x".repeat(2_000)}`,
      }),
      body,
    );
    await eventually(() => expect(relay.deliveries()).toHaveLength(1));
    const [text = ""] = relay.texts.filter((each) => each.includes('"type":"deliver"'));
    expect(new TextEncoder().encode(text).length).toBeLessThanOrEqual(1_048_576 + 16_384);
    expect(text.endsWith(`"payload":${body}}`)).toBe(true);
  });

  test("among many comes in the order of sending, to a recipient that comes and goes", async () => {
    const numbers = Array.from({ length: 60 }, (_, n) => n);
    for (const n of numbers.slice(0, 30)) await sent(alice, bob, n);
    const first = await listen(bob, "nothing");
    await inTime(() => expect(first.deliveries()).toHaveLength(30));
    for (const frame of first.deliveries().slice(0, 10)) first.acknowledge(frame);
    await eventually(async () =>
      expect(await rows(bob, "SELECT COUNT(*) AS n FROM inbound WHERE state = 1")).toEqual([{ n: 10 }]),
    );
    await Promise.all(numbers.slice(30).map((n) => sent(alice, bob, n)));
    const second = await listen(bob);
    expect(await first.closed).toEqual({ code: 1000, reason: "superseded" });
    await inTime(async () => {
      await runDurableObjectAlarm(gateStub(bob));
      expect(second.deliveries()).toHaveLength(50);
    });
    expect(second.deliveries().map(({ payload }) => payload)).toEqual(numbers.slice(10));
  });

  test("that its recipient refuses is dead at once, and its sender has a receipt", async () => {
    await listen(bob, "refuse");
    const sender = await listen(alice);
    const deliveryId = await sent(alice, bob, {});
    await eventually(() =>
      expect(sender.receipts()).toMatchObject([{ deliveryId, status: "dead_lettered", reason: "not today" }]),
    );
    expect(await statusOf(alice, deliveryId)).toMatchObject({
      state: "dead_lettered",
      reason: "not today",
      attempts: 1,
    });
  });

  test("that died keeps its receipt for a sender that is offline, however many there are", async () => {
    await sent(alice, bob, {});
    await runInDurableObject(gateStub(alice), (_gate, { storage }) => {
      for (let n = 0; n < 1_200; n++) {
        storage.sql.exec(
          "INSERT INTO outbound (delivery_id, to_did, state, bytes, created_at_ms, updated_at_ms, receipt_due, reason, envelope) VALUES (?, ?, 3, 0, ?, ?, 1, 'expired', '{}')",
          `01K${String(n).padStart(23, "0")}`,
          bob,
          START_MS,
          START_MS,
        );
      }
    });
    await evictDurableObject(gateStub(alice));
    // A socket that is half dead: everything is sent, and nothing says that it arrived.
    const halfDead = await listen(alice);
    await eventually(() => expect(halfDead.receipts()).toHaveLength(1_200));
    await crashGate(alice);
    const sender = await listen(alice);
    await eventually(() => expect(sender.receipts()).toHaveLength(1_200));
    const asked = () => sender.frames.filter(({ type }) => type === "heartbeat");
    await eventually(() => expect(asked()).toHaveLength(3));
    for (const { id } of asked()) sender.say({ type: "heartbeat_ack", ackId: id });
    await eventually(async () =>
      expect(await rows(alice, "SELECT COUNT(*) AS n FROM outbound WHERE receipt_due = 1")).toEqual([{ n: 0 }]),
    );
    const again = await listen(alice);
    again.say({ type: "heartbeat" });
    await eventually(() => expect(again.frames.some(({ type }) => type === "heartbeat_ack")).toBe(true));
    expect(again.receipts()).toEqual([]);
  });

  test.each(["acknowledges", "asks"])("that died has its receipt until its sender %s", async (how) => {
    await listen(bob, "refuse");
    const sender = await listen(alice);
    const deliveryId = await sent(alice, bob, {});
    await eventually(() => expect(sender.receipts()).toHaveLength(1));
    const due = () => rows(alice, "SELECT receipt_due FROM outbound");
    expect(await due()).toEqual([{ receipt_due: 1 }]);
    if (how === "asks") expect(await stateOf(alice, deliveryId)).toBe("dead_lettered");
    else for (const frame of sender.receipts()) sender.acknowledge(frame);
    await eventually(async () => expect(await due()).toEqual([{ receipt_due: 0 }]));
  });

  test("that is not acknowledged is tried again after 30 seconds, by the alarm alone", async () => {
    const relay = await listen(bob, "nothing");
    await sent(alice, bob, {});
    await eventually(() => expect(relay.deliveries()).toHaveLength(1));
    // Before a gate may sleep, what has not been answered is written down.
    pass(2_000);
    await runDurableObjectAlarm(gateStub(bob));
    pass(28_000);
    await onlyTheAlarm(bob);
    const retryAt = (await alarmOf(bob)) ?? 0;
    expect(retryAt - Date.now()).toBeGreaterThanOrEqual(800);
    expect(retryAt - Date.now()).toBeLessThanOrEqual(1_200);
    vi.setSystemTime(retryAt);
    await onlyTheAlarm(bob);
    await eventually(() => expect(relay.deliveries()).toHaveLength(2));
    const [first, second] = relay.deliveries();
    expect(second).toMatchObject({ id: first?.id, deliveryId: first?.["deliveryId"] });
    // The acknowledgement of the first attempt ends the second.
    relay.acknowledge(first ?? ({} as never));
    await eventually(async () =>
      expect(await rows(alice, "SELECT state, attempts FROM outbound")).toEqual([{ state: 2, attempts: 2 }]),
    );
  });

  test("that is worked on does not fail, and comes again later when its recipient says not now", async () => {
    const relay = await listen(bob, "nothing");
    const ids = [await sent(alice, bob, 1), await sent(alice, bob, 2)];
    await inTime(() => expect(relay.deliveries()).toHaveLength(2));
    const processed = (): Promise<void> => {
      relay.say({ type: "heartbeat" });
      const acks = relay.frames.filter(({ type }) => type === "heartbeat_ack").length;
      return eventually(() =>
        expect(relay.frames.filter(({ type }) => type === "heartbeat_ack").length).toBeGreaterThan(acks),
      );
    };
    for (let turn = 0; turn < 3; turn++) {
      pass(20_000);
      relay.say({ type: "deliver_working", ackId: ids[0] });
      await processed();
      await runDurableObjectAlarm(gateStub(bob));
    }
    expect(await gateStub(bob).attempts(ids[0] ?? "")).toBe(1);
    expect(relay.deliveries()).toHaveLength(2);
    relay.say({ type: "deliver_ack", ackId: ids[0], accepted: false, retryAfterMs: 5_000 });
    await inTime(async () => {
      await runDurableObjectAlarm(gateStub(bob));
      expect(relay.deliveries().map(({ payload }) => payload)).toEqual([1, 2, 1, 2]);
    });
    for (const frame of relay.deliveries().slice(2)) relay.acknowledge(frame);
    await inTime(async () => expect(await stateOf(alice, ids[1] ?? "")).toBe("delivered"));
    expect(await statusOf(alice, ids[0] ?? "")).toMatchObject({ state: "delivered", attempts: 2 });
    expect(await statusOf(alice, ids[1] ?? "")).toMatchObject({ state: "delivered", attempts: 1 });
  });

  test("repeated under its idempotency key is the same message, and delivered once", async () => {
    const relay = await listen(bob);
    const idempotency = { key: "k", bodySha256: "s" };
    const ids = await Promise.all(Array.from({ length: 8 }, () => sent(alice, bob, {}, { idempotency })));
    expect(new Set(ids).size).toBe(1);
    await eventually(async () => expect(await stateOf(alice, ids[0] ?? "")).toBe("delivered"));
    expect(await send(alice, bob, {}, { idempotency })).toMatchObject({ ok: true, state: "delivered" });
    expect(relay.deliveries()).toHaveLength(1);
  });

  test("is known for 24 hours after its end, and then not found; a stranger never learns of it", async () => {
    await listen(bob);
    const deliveryId = await sent(alice, bob, {});
    await eventually(async () => expect(await stateOf(alice, deliveryId)).toBe("delivered"));
    expect(await statusOf(bob, deliveryId)).toEqual({ code: "PROXY_NOT_FOUND" });
    pass(86_400_000 - 1);
    expect(await stateOf(alice, deliveryId)).toBe("delivered");
    pass(1);
    expect(await statusOf(alice, deliveryId)).toEqual({ code: "PROXY_NOT_FOUND" });
  });
});

describe("the hand-over", () => {
  test("is made by the alarm alone after a crash between the commit and it", async () => {
    for (let sender = 0; sender < 5; sender++) await fill(bob, newAgentDid());
    const deliveryId = await sent(alice, bob, "the last");
    await eventually(async () => expect((await alarmOf(alice)) ?? Infinity).toBeLessThanOrEqual(Date.now() + 2_000));
    await crashGate(alice);
    const relay = await listen(bob);
    await eventually(() => expect(relay.deliveries()).toHaveLength(500));
    pass(6_000);
    expect(await runDurableObjectAlarm(gateStub(alice))).toBe(true);
    await eventually(() => expect(relay.deliveries().map((frame) => frame["deliveryId"])).toContain(deliveryId));
    await eventually(async () => expect(await stateOf(alice, deliveryId)).toBe("delivered"));
  });

  test("that is repeated after a crash is known by its id: the recipient hears of it once", async () => {
    const relay = await listen(bob);
    const deliveryId = await sent(alice, bob, "once");
    await eventually(async () => expect(await stateOf(alice, deliveryId)).toBe("delivered"));
    // As if the process had died before it wrote down that the recipient has the message.
    await rows(
      alice,
      "UPDATE outbound SET state = 0, body = '\"once\"', envelope = '{}' WHERE delivery_id = ?",
      deliveryId,
    );
    await crashGate(alice);
    expect(await stateOf(alice, deliveryId)).toBe("queued");
    await inTime(async () => {
      await runDurableObjectAlarm(gateStub(alice));
      expect(await rows(alice, "SELECT state, body FROM outbound")).toEqual([{ state: 1, body: null }]);
    });
    expect(relay.deliveries()).toHaveLength(1);
  });

  test("to a full queue waits in the outbox, and at its time the message is dead with a receipt", async () => {
    await fill(bob, alice);
    const deliveryId = await sent(alice, bob, "too late");
    await eventually(async () => expect(await rows(alice, "SELECT state FROM outbound")).toEqual([{ state: 0 }]));
    expect(await statusOf(alice, deliveryId)).toMatchObject({ state: "queued", attempts: 0 });
    pass(TTL_MS);
    await onlyTheAlarm(alice);
    const sender = await listen(alice);
    await eventually(() =>
      expect(sender.receipts()).toMatchObject([{ deliveryId, status: "dead_lettered", reason: "expired" }]),
    );
    expect(await call(bob, "dead-letter.list", { limit: 1 })).toMatchObject({
      deadLetters: [{ id: deliveryId, reason: "expired", payload: "too late", fromAgentDid: alice }],
    });
  });

  test("keeps the order of 64 sends that come at once", async () => {
    const ids = await Promise.all(Array.from({ length: 64 }, (_, n) => sent(alice, bob, n)));
    expect(ids).toEqual(ids.toSorted());
    const relay = await listen(bob);
    await inTime(() => expect(relay.deliveries().map(({ payload }) => payload)).toEqual(ids.map((_, n) => n)));
  });
});

describe("dead letters", () => {
  test("are replayed to their recipient, and their sender sees them delivered after all", async () => {
    const refusing = await listen(bob, "refuse");
    const deliveryId = await sent(alice, bob, "again");
    await eventually(async () => expect(await stateOf(alice, deliveryId)).toBe("dead_lettered"));
    refusing.socket.close(1000);
    const relay = await listen(bob);
    expect(await call(bob, "dead-letter.replay", { id: deliveryId })).toEqual({ id: deliveryId, replayed: true });
    await inTime(async () => expect(await stateOf(alice, deliveryId)).toBe("delivered"));
    expect(relay.deliveries()).toMatchObject([{ deliveryId, payload: "again" }]);
    expect(await call(bob, "dead-letter.replay", { id: deliveryId })).toEqual({ code: "PROXY_NOT_FOUND" });
  });

  test("that are replayed wait again, as their sender sees, and have another receipt when they die again", async () => {
    const sender = await listen(alice);
    let relay = await listen(bob, "refuse");
    const deliveryId = await sent(alice, bob, "again");
    await eventually(() => expect(sender.receipts()).toHaveLength(1));
    relay.socket.close(1000);
    pass(60_000);
    expect(await call(bob, "dead-letter.replay", { id: deliveryId })).toEqual({ id: deliveryId, replayed: true });
    await inTime(async () => expect(await stateOf(alice, deliveryId)).toBe("queued"));
    pass(60_000);
    relay = await listen(bob, "refuse");
    await inTime(async () => expect(await stateOf(alice, deliveryId)).toBe("dead_lettered"));
    expect(sender.receipts()).toMatchObject([
      { deliveryId, status: "dead_lettered", reason: "not today" },
      { deliveryId, status: "dead_lettered", reason: "not today" },
    ]);
  });

  test("are purged, and not found afterwards", async () => {
    await listen(bob, "refuse");
    const deliveryId = await sent(alice, bob, {});
    await eventually(async () => expect(await stateOf(alice, deliveryId)).toBe("dead_lettered"));
    expect(await call(bob, "dead-letter.purge", { id: deliveryId })).toEqual({ id: deliveryId, purged: true });
    expect(await call(bob, "dead-letter.purge", { id: deliveryId })).toEqual({ code: "PROXY_NOT_FOUND" });
    expect(await call(bob, "dead-letter.list", {})).toEqual({ deadLetters: [] });
    // The sender's view stays what it was.
    expect(await stateOf(alice, deliveryId)).toBe("dead_lettered");
  });

  test("are listed in pages that end", async () => {
    await gateStub(bob).receive(
      alice,
      Array.from({ length: 5 }, () => queuedMessage({ createdAtMs: START_MS - TTL_MS })),
    );
    const seen: unknown[] = [];
    let cursor: unknown;
    do {
      // oxlint-disable-next-line no-await-in-loop -- one page after the other
      const page = await call(bob, "dead-letter.list", { limit: 2, ...(cursor === undefined ? {} : { cursor }) });
      seen.push((page["deadLetters"] as unknown[]).length);
      cursor = page["nextCursor"];
    } while (cursor !== undefined && seen.length < 10);
    expect(seen).toEqual([2, 2, 1]);
  });

  test("that are large come in shorter pages, and none is left out", async () => {
    const body = JSON.stringify("x".repeat(1_000_000));
    const large = Array.from({ length: 10 }, () =>
      queuedMessage({ createdAtMs: START_MS - TTL_MS, body, bytes: body.length }),
    );
    await gateStub(bob).receive(alice, large.slice(0, 5));
    await gateStub(bob).receive(alice, large.slice(5));
    const ids: unknown[] = [];
    let cursor: unknown;
    do {
      // oxlint-disable-next-line no-await-in-loop -- one page after the other
      const page = await call(bob, "dead-letter.list", cursor === undefined ? {} : { cursor });
      ids.push(...(page["deadLetters"] as { id: string }[]).map(({ id }) => id));
      cursor = page["nextCursor"];
    } while (cursor !== undefined && ids.length < 20);
    expect(ids).toEqual(large.map(({ deliveryId }) => deliveryId).toReversed());
  });

  test("come with their own text, however deep it nests", async () => {
    const body = "[".repeat(100_000) + "]".repeat(100_000);
    await gateStub(bob).receive(alice, [queuedMessage({ createdAtMs: START_MS - TTL_MS, body, bytes: body.length })]);
    const { deadLetters } = (await call(bob, "dead-letter.list", {})) as { deadLetters: { payload: unknown }[] };
    expect(depthOf(deadLetters[0]?.payload)).toBe(100_000);
  });
});

/** How deep arrays of one array each nest. */
function depthOf(value: unknown): number {
  let depth = 0;
  for (let inner = value; Array.isArray(inner); inner = (inner as unknown[])[0]) depth += 1;
  return depth;
}

describe("a fence for a peer", () => {
  test("ends what the peer has queued, with receipts, and lets nothing of its old trust in, before or after an eviction", async () => {
    const queued = await sent(alice, bob, "queued");
    await eventually(async () => expect(await rows(bob, "SELECT state FROM inbound")).toEqual([{ state: 0 }]));
    await gateStub(bob).fencePeer(alice, 2);
    await eventually(async () =>
      expect(await statusOf(alice, queued)).toMatchObject({ state: "dead_lettered", reason: "trust removed" }),
    );
    // The sender's gate has not been notified, and goes by a cached trust.
    const cached = await sent(alice, bob, "by cached trust");
    await inTime(async () =>
      expect(await statusOf(alice, cached)).toMatchObject({ state: "dead_lettered", reason: "trust removed" }),
    );
    await evictDurableObject(gateStub(bob));
    const later = await sent(alice, bob, "by cached trust");
    await inTime(async () => expect(await stateOf(alice, later)).toBe("dead_lettered"));
    const relay = await listen(bob);
    const anew = await sent(alice, bob, "paired anew", { trustEpoch: 3 });
    await inTime(async () => expect(await stateOf(alice, anew)).toBe("delivered"));
    expect(relay.deliveries().map(({ payload }) => payload)).toEqual(["paired anew"]);
  });

  test("at the sender's own gate refuses the send itself", async () => {
    await gateStub(alice).fencePeer(bob, 2);
    expect(await send(alice, bob, {}, { trustEpoch: 1 })).toEqual({
      ok: false,
      refusal: { reason: "gate-peer-fenced" },
    });
    expect((await send(alice, bob, {}, { trustEpoch: 2 })).ok).toBe(true);
  });

  test("is never lowered", async () => {
    await gateStub(alice).fencePeer(bob, 4);
    await gateStub(alice).fencePeer(bob, 2);
    expect((await send(alice, bob, {}, { trustEpoch: 3 })).ok).toBe(false);
  });
});

describe("a notification of the proxy's own", () => {
  test("is queued once per id, comes in the order of making, and can be acknowledged", async () => {
    const deliveryId = "01K0000000000000000000000A";
    const message = { fromAgentDid: null, payload: '{"kind":"pair.confirmed"}', deliveryId };
    await Promise.all([gateStub(bob).notify(message), gateStub(bob).notify(message)]);
    const others = await Promise.all(
      Array.from({ length: 20 }, (_, n) => gateStub(bob).notify({ fromAgentDid: null, payload: String(n) })),
    );
    const relay = await listen(bob);
    await eventually(async () =>
      expect(await rows(bob, "SELECT COUNT(*) AS n FROM inbound WHERE state = 1")).toEqual([{ n: 21 }]),
    );
    await gateStub(bob).notify(message);
    expect(relay.deliveries()).toHaveLength(21);
    expect(relay.deliveries()[0]).toMatchObject({
      id: deliveryId,
      deliveryId,
      fromAgentDid: null,
      payload: { kind: "pair.confirmed" },
    });
    expect(
      relay
        .deliveries()
        .slice(1)
        .map(({ payload }) => payload),
    ).toEqual(others.map((_, n) => n));
  });
});

/** What a waiting request began under; it holds. */
const SENDER = { epoch: 0, jti: "any", expMs: Number.MAX_SAFE_INTEGER };

describe("waiting for a delivery", () => {
  test("ends with its acknowledgement, its death, or its time", async () => {
    const relay = await listen(bob, "nothing");
    const deliveryId = await sent(alice, bob, {});
    const [short, long] = [
      gateStub(alice).awaitDelivery(deliveryId, 50, SENDER),
      gateStub(alice).awaitDelivery(deliveryId, 15_000, SENDER),
    ];
    expect(await short).toMatchObject({ delivered: false });
    await eventually(() => expect(relay.deliveries()).toHaveLength(1));
    relay.acknowledge(relay.deliveries()[0] ?? ({} as never));
    expect(await long).toMatchObject({ delivered: true });
    expect(await gateStub(alice).awaitDelivery(deliveryId, 15_000, SENDER)).toMatchObject({ delivered: true });
    const refused = await sent(alice, bob, {});
    const dying = gateStub(alice).awaitDelivery(refused, 15_000, SENDER);
    await inTime(() => expect(relay.deliveries()).toHaveLength(2));
    relay.acknowledge(relay.deliveries()[1] ?? ({} as never), false);
    expect(await dying).toMatchObject({ delivered: false });
  });
});

describe("an idle gate", () => {
  test("with an open socket sleeps, sets no alarm but the end of its credential, and delivers to that socket when it wakes", async () => {
    const relay = await listen(bob);
    await sent(alice, bob, 1);
    await eventually(async () => expect(await rows(alice, "SELECT state FROM outbound")).toEqual([{ state: 2 }]));
    const alarms: number[] = [];
    const daysMs = 20 * 86_400_000;
    for (
      let at = await alarmOf(bob);
      at !== null && at < START_MS + daysMs && alarms.length < 20;
      at = await alarmOf(bob)
    ) {
      vi.setSystemTime(at);
      alarms.push(at);
      // oxlint-disable-next-line no-await-in-loop -- one alarm after the other
      await onlyTheAlarm(bob);
    }
    expect(alarms.length).toBeLessThan(8);
    expect(await rows(bob, "SELECT COUNT(*) AS n FROM inbound")).toEqual([{ n: 0 }]);
    expect(await alarmOf(bob)).toBe(START_MS + 30 * 86_400_000);
    await evictDurableObject(gateStub(bob));
    await sent(alice, bob, 2);
    await eventually(() => expect(relay.deliveries().map(({ payload }) => payload)).toEqual([1, 2]));
  });

  test("that no caller has proved anything to has no tables", async () => {
    const stranger = newAgentDid();
    expect(await gateStub(stranger).attempts("01K0000000000000000000000A")).toBeNull();
    expect(
      await runInDurableObject(gateStub(stranger), (_gate, { storage }) =>
        storage.sql.exec("SELECT name FROM sqlite_master").toArray(),
      ),
    ).toEqual([]);
  });
});
