import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Refuse } from "../../../src/client/index.ts";
import { AGENT_DID, PEER_DID } from "../fake-gate.ts";
import { delivery } from "../fake-socket.ts";
import { settle, setUp } from "./relay-under-test.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("a message", () => {
  test("is acknowledged when it is handled, and not before", async () => {
    const handling = Promise.withResolvers<void>();
    const onMessage = vi.fn(() => handling.promise);
    const { open } = await setUp({ onMessage });
    const socket = await open();
    const text = delivery("d_1", { text: "hi" });
    socket.push(text);
    await settle();
    expect(onMessage).toHaveBeenCalledWith({
      deliveryId: "d_1",
      fromAgentDid: PEER_DID,
      toAgentDid: AGENT_DID,
      payload: { text: "hi" },
      payloadText: '{"text":"hi"}',
    });
    expect(socket.sent).toEqual([]);
    handling.resolve();
    await settle();
    expect(socket.sent).toMatchObject([
      { type: "deliver_ack", ackId: (JSON.parse(text) as { id: string }).id, accepted: true },
    ]);
  });

  test("is refused permanently by a handler that says so", async () => {
    const { open, errors } = await setUp({ onMessage: () => Promise.reject(new Refuse("not for me")) });
    const socket = await open();
    socket.push(delivery("d_1", 1));
    await settle();
    expect(socket.sent).toMatchObject([{ type: "deliver_ack", accepted: false, reason: "not for me" }]);
    expect(errors).toEqual([]);
  });

  test("stays unacknowledged when its handler fails, and is handled again when it comes again", async () => {
    const failure = new Error("disk full");
    let failures = 1;
    const onMessage = vi.fn(() => ((failures -= 1) < 0 ? undefined : Promise.reject(failure)));
    const { open, errors } = await setUp({ onMessage });
    const socket = await open();
    socket.push(delivery("d_1", 1));
    await settle();
    expect(socket.sent).toEqual([]);
    expect(errors).toEqual([failure]);
    socket.push(delivery("d_1", 1));
    await settle();
    expect(onMessage).toHaveBeenCalledTimes(2);
    expect(socket.sent).toMatchObject([{ accepted: true }]);
  });

  test("that comes twice is handled once and acknowledged twice, over whichever socket it came", async () => {
    const onMessage = vi.fn();
    const { open } = await setUp({ onMessage });
    const first = await open();
    first.push(delivery("d_1", 1));
    await settle();
    first.end(1006);
    await vi.advanceTimersByTimeAsync(1_000);
    const second = await open();
    second.push(delivery("d_1", 1));
    await settle();
    expect(onMessage).toHaveBeenCalledTimes(1);
    expect(first.sent).toMatchObject([{ accepted: true }]);
    expect(second.sent).toMatchObject([{ accepted: true }]);
    expect(second.sent[0]?.["ackId"]).not.toBe(first.sent[0]?.["ackId"]);
  });

  test("that was refused is handled again when it is replayed", async () => {
    let isRefused = true;
    const { open } = await setUp({ onMessage: () => (isRefused ? Promise.reject(new Refuse("no")) : undefined) });
    const socket = await open();
    socket.push(delivery("d_1", 1));
    await settle();
    isRefused = false;
    socket.push(delivery("d_1", 1));
    await settle();
    expect(socket.sent).toMatchObject([{ accepted: false }, { accepted: true }]);
  });

  test("that comes again while it is handled is handled once", async () => {
    const handling = Promise.withResolvers<void>();
    const onMessage = vi.fn(() => handling.promise);
    const { open } = await setUp({ onMessage });
    const socket = await open();
    socket.push(delivery("d_1", 1));
    socket.push(delivery("d_1", 1));
    handling.resolve();
    await settle();
    expect(onMessage).toHaveBeenCalledTimes(1);
    expect(socket.sent).toMatchObject([{ accepted: true }, { accepted: true }]);
  });

  test("waits for the one before it of the same sender, and for no other sender's", async () => {
    const started: unknown[] = [];
    const releases = new Map<unknown, () => void>();
    const { open } = await setUp({
      onMessage: ({ payload }) => {
        started.push(payload);
        return new Promise((resolve) => releases.set(payload, resolve));
      },
    });
    const socket = await open();
    socket.push(delivery("d_1", "peer 1"));
    socket.push(delivery("d_2", "peer 2"));
    socket.push(delivery("d_3", "self 1", AGENT_DID));
    await settle();
    expect(started).toEqual(["peer 1", "self 1"]);
    releases.get("peer 1")?.();
    await settle();
    expect(started).toEqual(["peer 1", "self 1", "peer 2"]);
  });

  test("whose handler fails is handled before the later ones of its sender, which wait for it, and hinders no other sender", async () => {
    const handled: unknown[] = [];
    let failures = 1;
    const { open, errors } = await setUp({
      onMessage: ({ payload }) => {
        if (payload === 1 && (failures -= 1) >= 0) throw new Error("once");
        handled.push(payload);
      },
    });
    const socket = await open();
    for (const n of [1, 2, 3]) socket.push(delivery(`d_${n}`, n));
    await settle();
    // What is pushed after the failure, and before the server has noticed it.
    socket.push(delivery("d_4", 4));
    socket.push(delivery("d_5", "of another", AGENT_DID));
    await settle();
    expect(handled).toEqual(["of another"]);
    expect(errors).toHaveLength(1);
    for (const n of [1, 2, 3, 4]) socket.push(delivery(`d_${n}`, n));
    await settle();
    expect(handled).toEqual(["of another", 1, 2, 3, 4]);
    expect(socket.sent).toHaveLength(5);
    expect(new Set(socket.sent.map(({ type }) => type))).toEqual(new Set(["deliver_ack"]));
  });

  test("that fails again holds the later ones back again", async () => {
    const handled: unknown[] = [];
    let failures = 2;
    const { open } = await setUp({
      onMessage: ({ payload }) => {
        if (payload === 1 && (failures -= 1) >= 0) throw new Error("twice");
        handled.push(payload);
      },
    });
    const socket = await open();
    for (let attempt = 0; attempt < 3; attempt += 1) {
      for (const n of [1, 2]) socket.push(delivery(`d_${n}`, n));
      await settle();
    }
    expect(handled).toEqual([1, 2]);
  });

  test("that fails and never comes again, since it became a dead letter, holds the later ones back once", async () => {
    const handled: unknown[] = [];
    const { open } = await setUp({
      onMessage: ({ payload }) => {
        if (payload === 1) throw new Error("always");
        handled.push(payload);
      },
    });
    const socket = await open();
    for (const n of [1, 2, 3]) socket.push(delivery(`d_${n}`, n));
    await settle();
    expect(handled).toEqual([]);
    for (const n of [2, 3]) socket.push(delivery(`d_${n}`, n));
    await settle();
    expect(handled).toEqual([2, 3]);
  });

  test("whose handler fails is asked for again after a second, then after ever longer, where the server knows of that", async () => {
    const { open } = await setUp({ onMessage: () => Promise.reject(new Error("disk full")) });
    const socket = await open("sallyport.v1");
    for (let attempt = 0; attempt < 12; attempt += 1) {
      socket.push(delivery("d_1", 1));
      await settle();
    }
    const waits = socket.sent.map(({ type, accepted, retryAfterMs }) => {
      expect({ type, accepted }).toEqual({ type: "deliver_ack", accepted: false });
      return Number(retryAfterMs) / 1_000;
    });
    const steps = [1, 2, 4, 8, 16, 32, 64, 120, 120, 120, 120, 120];
    expect(waits).toHaveLength(steps.length);
    for (const [at, step] of steps.entries()) {
      expect(waits[at]).toBeGreaterThanOrEqual(0.8 * step);
      expect(waits[at]).toBeLessThanOrEqual(1.2 * step);
    }
  });

  test("whose handler fails is an error on the console where nothing else is asked for", async () => {
    const error = vi.spyOn(console, "error").mockImplementation(() => undefined);
    const failure = new Error("disk full");
    const { open } = await setUp({ onMessage: () => Promise.reject(failure), onError: undefined });
    (await open()).push(delivery("d_1", 1));
    await settle();
    expect(error).toHaveBeenCalledWith(expect.any(String), failure);
    error.mockRestore();
  });

  describe("that takes long", () => {
    const working = (sent: Record<string, unknown>[]) =>
      sent.filter(({ type }) => type === "deliver_working").map(({ ackId }) => ackId);
    const idOf = (frame: string): unknown => (JSON.parse(frame) as { id: unknown }).id;

    test("is said to be in work every few seconds, it alone, until it is handled", async () => {
      const handling = Promise.withResolvers<void>();
      const { open } = await setUp({ onMessage: () => handling.promise }, { heartbeatMs: 3_600_000 });
      const socket = await open("sallyport.v1");
      const [first, second] = [delivery("d_1", 1), delivery("d_2", 2)];
      socket.push(first);
      socket.push(second);
      await vi.advanceTimersByTimeAsync(16_000);
      expect(working(socket.sent)).toEqual(Array(3).fill(idOf(first)));
      handling.resolve();
      await vi.advanceTimersByTimeAsync(60_000);
      expect(working(socket.sent)).toHaveLength(3);
      expect(socket.sent.filter(({ type }) => type === "deliver_ack")).toHaveLength(2);
    });

    test("is so on the socket that it has come by last, under the id that it has there", async () => {
      const { open, sockets } = await setUp(
        { onMessage: () => new Promise(() => undefined) },
        { heartbeatMs: 3_600_000 },
      );
      const first = await open("sallyport.v1");
      first.push(delivery("d_1", 1));
      await settle();
      first.end(1006);
      await vi.advanceTimersByTimeAsync(1_000);
      expect(sockets).toHaveLength(2);
      const second = await open("sallyport.v1");
      const again = delivery("d_1", 1);
      second.push(again);
      await vi.advanceTimersByTimeAsync(5_000);
      expect(working(second.sent)).toEqual([idOf(again)]);
      expect(working(first.sent)).toEqual([]);
    });

    test("is not, where the server has not chosen the subprotocol that knows of it", async () => {
      const { open } = await setUp({ onMessage: () => new Promise(() => undefined) }, { heartbeatMs: 3_600_000 });
      const socket = await open();
      socket.push(delivery("d_1", 1));
      await vi.advanceTimersByTimeAsync(60_000);
      expect(socket.sent).toEqual([]);
    });
  });

  test("is remembered among the last ten thousand", async () => {
    const onMessage = vi.fn();
    const { open } = await setUp({ onMessage });
    const socket = await open();
    for (let n = 0; n < 10_001; n += 1) socket.push(delivery(`d_${n}`, 1));
    await settle();
    socket.push(delivery("d_1", 1));
    await settle();
    expect(onMessage).toHaveBeenCalledTimes(10_001);
    socket.push(delivery("d_0", 1));
    await settle();
    expect(onMessage).toHaveBeenCalledTimes(10_002);
  });
});
