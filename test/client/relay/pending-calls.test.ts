import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { RpcError } from "../../../src/client/index.ts";
import { parseAgentDid } from "../../../src/wire/did.ts";
import { enqueueAckFrame, frameHead, heartbeatFrame, receiptFrame, resFrame } from "../../../src/wire/frame-encoder.ts";
import { PEER_DID } from "../fake-gate.ts";
import { settle, setUp } from "./relay-under-test.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const RECEIPT = {
  originalFrameId: null,
  deliveryId: "d_1",
  toAgentDid: parseAgentDid(PEER_DID) ?? never(),
  status: "dead_lettered" as const,
  reason: "expired",
};

describe("what is handed in", () => {
  test("is accepted when the server says so", async () => {
    const { relay, open } = await setUp();
    const socket = await open();
    const result = relay.enqueue({ to: PEER_DID, payload: { a: 1 }, conversationId: "c" });
    await settle();
    const [frame] = socket.sent;
    expect(frame).toMatchObject({ type: "enqueue", toAgentDid: PEER_DID, payload: { a: 1 }, conversationId: "c" });
    socket.push(
      enqueueAckFrame(frameHead(Date.now()), { ackId: String(frame?.["id"]), accepted: true, deliveryId: "d_1" }),
    );
    expect(await result).toEqual({ deliveryId: "d_1" });
  });

  test("goes to all of a group without a recipient, and names no message of its own then", async () => {
    const { relay, open } = await setUp();
    const socket = await open();
    const result = relay.enqueue({ groupId: "grp_01K9ZJ8Q6V3N5T7W2X4Y6Z8A0B", payload: 1 });
    await settle();
    const [frame] = socket.sent;
    expect(frame).toMatchObject({ type: "enqueue", groupId: "grp_01K9ZJ8Q6V3N5T7W2X4Y6Z8A0B", payload: 1 });
    expect(frame).not.toHaveProperty("toAgentDid");
    socket.push(enqueueAckFrame(frameHead(Date.now()), { ackId: String(frame?.["id"]), accepted: true }));
    expect(await result).toEqual({ deliveryId: null });
  });

  test("waits for the socket to open", async () => {
    const { relay, socket, open } = await setUp();
    const result = relay.enqueue({ to: PEER_DID, payload: 1 });
    result.catch(() => undefined);
    await settle();
    expect(socket().sent).toEqual([]);
    await open();
    expect(socket().sent).toMatchObject([{ type: "enqueue" }]);
  });

  test.each([
    ["to", { to: `${PEER_DID}\u200b`, payload: 1 }],
    ["to", { payload: 1 }],
    ["conversationId", { to: PEER_DID, payload: 1, conversationId: "a\nb" }],
    ["replyTo", { to: PEER_DID, payload: 1, replyTo: "ftp://x" }],
    ["payload", { to: PEER_DID, payload: "x".repeat(1_048_576) }],
    ["payloadText", { to: PEER_DID, payloadText: '1,"toAgentDid":"x"' }],
  ])("and that no server takes names what is wrong with it, and is not sent: %s", async (argument, message) => {
    const { relay, open } = await setUp();
    const socket = await open();
    await expect(relay.enqueue(message)).rejects.toMatchObject({ code: "INVALID_ARGUMENT", argument });
    expect(socket.sent).toEqual([]);
  });

  test("fails with the reason of a refusal", async () => {
    const { relay, open } = await setUp();
    const socket = await open();
    const result = relay.enqueue({ to: PEER_DID, payload: 1 });
    const refused = expect(result).rejects.toMatchObject({ name: "NotAcceptedError", code: "PROXY_RELAY_QUEUE_FULL" });
    await settle();
    const ackId = String(socket.sent[0]?.["id"]);
    socket.push(enqueueAckFrame(frameHead(Date.now()), { ackId, accepted: false, reason: "PROXY_RELAY_QUEUE_FULL" }));
    await refused;
  });

  test.each([
    [
      "the socket closes before the answer",
      "RELAY_INTERRUPTED",
      (end: (code: number) => void) => Promise.resolve(end(1006)),
    ],
    ["no answer comes in time", "TIMEOUT", () => vi.advanceTimersByTimeAsync(30_000)],
  ])("may or may not have been taken when %s", async (_what, code, happen) => {
    const { relay, open } = await setUp({}, { heartbeatMs: 3_600_000 });
    const socket = await open();
    const results = [relay.enqueue({ to: PEER_DID, payload: 1 }), relay.call("task/list")];
    const failed = Promise.all(
      results.map((result) => expect(result).rejects.toMatchObject({ name: "RelayInterruptedError", code })),
    );
    await settle();
    await happen((closeCode) => socket.end(closeCode));
    await failed;
  });

  test("becomes a receipt, which is confirmed by the next heartbeat when it is handled, and not before", async () => {
    const handling = Promise.withResolvers<void>();
    const { open } = await setUp({ onReceipt: () => handling.promise });
    const socket = await open();
    socket.push(receiptFrame(frameHead(Date.now()), RECEIPT));
    const beat = frameHead(Date.now());
    socket.push(heartbeatFrame(beat));
    await settle();
    expect(socket.sent).toEqual([]);
    handling.resolve();
    await settle();
    expect(socket.sent).toMatchObject([{ type: "heartbeat_ack", ackId: beat.id }]);
  });

  test("becomes a receipt, which is not confirmed when its handler fails; later ones are", async () => {
    const failure = new Error("disk full");
    let failures = 1;
    const { open, errors } = await setUp({
      onReceipt: () => ((failures -= 1) < 0 ? undefined : Promise.reject(failure)),
    });
    const socket = await open();
    for (let batch = 0; batch < 2; batch += 1) {
      socket.push(receiptFrame(frameHead(Date.now()), RECEIPT));
      socket.push(heartbeatFrame(frameHead(Date.now())));
      await settle();
    }
    expect(errors).toEqual([failure]);
    expect(socket.sent).toHaveLength(1);
  });

  test("becomes a receipt", async () => {
    const onReceipt = vi.fn();
    const { open } = await setUp({ onReceipt });
    (await open()).push(receiptFrame(frameHead(Date.now()), RECEIPT));
    expect(onReceipt).toHaveBeenCalledWith(expect.objectContaining(RECEIPT));
  });
});

describe("a call over the socket", () => {
  test("gives its result, whichever comes first", async () => {
    const { relay, open } = await setUp();
    const socket = await open();
    const results = [relay.call("a", { x: 1 }), relay.call("b")];
    await settle();
    expect(socket.sent).toMatchObject([
      { type: "req", method: "a", params: { x: 1 } },
      { type: "req", method: "b", params: {} },
    ]);
    const [a, b] = socket.sent.map(({ id }) => String(id));
    socket.push(resFrame({ idText: JSON.stringify(b), ok: true, payloadText: '"of b"' }));
    socket.push(resFrame({ idText: JSON.stringify(a), ok: true, payloadText: '"of a"' }));
    expect(await Promise.all(results)).toEqual(["of a", "of b"]);
  });

  test("is sent with U+FFFD spelled out, which a server takes for bytes that were lost", async () => {
    const { relay, open } = await setUp();
    const socket = await open();
    void relay.call("a", { x: "\ufffd" }).catch(() => undefined);
    void relay.enqueue({ to: PEER_DID, payload: "\ufffd" }).catch(() => undefined);
    await settle();
    expect(socket.sent).toMatchObject([{ params: { x: "\ufffd" } }, { payload: "\ufffd" }]);
  });

  test("that fails says so by its code", async () => {
    const { relay, open } = await setUp();
    const socket = await open();
    const failed = relay.call("a").catch((error: unknown) => error);
    await settle();
    const error = { code: "DRAIN_TIMEOUT", message: "not drained", details: { a: 1 }, retryable: true };
    socket.push(resFrame({ idText: JSON.stringify(socket.sent[0]?.["id"]), ok: false, error }));
    expect(await failed).toBeInstanceOf(RpcError);
    expect(await failed).toMatchObject({ code: "DRAIN_TIMEOUT", retryable: true, data: { a: 1 }, number: null });
  });
});

function never(): never {
  throw new Error("no DID");
}
