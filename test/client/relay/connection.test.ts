import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  ClockNotTrustedError,
  CredentialNotYetValidError,
  ProblemError,
  Refuse,
  type RelayEnd,
  type RelayHandlers,
  RpcError,
} from "../../../src/client/index.ts";
import { connectRelay, type RelaySetup } from "../../../src/client/relay/connection.ts";
import {
  enqueueAckFrame,
  eventFrame,
  frameHead,
  heartbeatFrame,
  receiptFrame,
  resFrame,
} from "../../../src/wire/frame-encoder.ts";
import { parseAgentDid } from "../../../src/wire/did.ts";
import { AGENT_DID, BASE_URL, PEER_DID } from "../fake-gate.ts";
import { delivery, fakeSockets } from "../fake-socket.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Lets everything run that does not wait for time. */
const settle = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0);

async function setUp(handlers: Partial<RelayHandlers> = {}, options: Partial<RelaySetup> = {}) {
  const { WebSocket, sockets } = fakeSockets();
  const states: string[] = [];
  const errors: unknown[] = [];
  let tickets = 0;
  const relay = connectRelay({
    baseUrl: new URL(BASE_URL),
    nowMs: Date.now,
    ticket: () => Promise.resolve(`ticket-${(tickets += 1)}`),
    WebSocket,
    random: () => 0,
    handlers: {
      onMessage: () => undefined,
      onState: (state) => void states.push(state),
      onError: (error) => void errors.push(error),
      ...handlers,
    },
    ...options,
  });
  let end: RelayEnd | null = null;
  void relay.ended.then((reason) => (end = reason));
  await settle();
  const socket = (index = sockets.length - 1) => {
    const found = sockets.at(index);
    if (found === undefined) throw new Error("no socket was opened");
    return found;
  };
  const open = async (protocol?: string) => {
    socket().open(protocol);
    await settle();
    // What every socket begins with is looked at in a test of its own.
    socket().sent.shift();
    return socket();
  };
  return { relay, sockets, socket, open, states, errors, end: () => end };
}

const problemError = (status: number, code: string): ProblemError =>
  new ProblemError({ code, detail: code, status, requestId: null, retryAfterMs: null });

describe("a relay connection", () => {
  test("comes with a fresh ticket in its subprotocol", async () => {
    const { socket, open, relay, states } = await setUp();
    expect(socket().url).toBe("wss://gate.example.com/relay/connect");
    expect(socket().protocols).toEqual(["sallyport.ticket.ticket-1", "sallyport.v1"]);
    await open();
    await relay.opened();
    expect(states).toEqual(["open"]);
  });

  test.each([
    ["a restart", 1012, ""],
    ["a restart without warning", 1006, ""],
    ["a normal close", 1000, ""],
    ["going away", 1001, ""],
  ])("comes back after %s, with another ticket", async (_what, code, reason) => {
    const { open, sockets, socket, states } = await setUp();
    (await open()).end(code, reason);
    await vi.advanceTimersByTimeAsync(49);
    expect(sockets).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(sockets).toHaveLength(2);
    expect(socket().protocols).toEqual(["sallyport.ticket.ticket-2", "sallyport.v1"]);
    expect(states).toEqual(["open", "waiting", "connecting"]);
  });

  test("waits longer with each attempt, up to a maximum, and begins anew once something came in", async () => {
    const { sockets, socket, open } = await setUp(
      {},
      { backoffInitialMs: 1_000, backoffMaxMs: 4_000, random: () => 1 },
    );
    for (const waitMs of [1_000, 2_000, 4_000, 4_000]) {
      const before = sockets.length;
      socket().end(1006);
      await vi.advanceTimersByTimeAsync(waitMs - 1);
      expect(sockets).toHaveLength(before);
      await vi.advanceTimersByTimeAsync(1);
      expect(sockets).toHaveLength(before + 1);
    }
    const opened = await open();
    opened.push(heartbeatFrame(frameHead(Date.now())));
    opened.end(1006);
    const before = sockets.length;
    await vi.advanceTimersByTimeAsync(1_000);
    expect(sockets).toHaveLength(before + 1);
  });

  test("gives an overloaded server five seconds at least", async () => {
    const { open, sockets } = await setUp();
    (await open()).end(1013, "overloaded");
    await vi.advanceTimersByTimeAsync(4_999);
    expect(sockets).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(sockets).toHaveLength(2);
  });

  test.each([
    [4001, "agent revoked", "credential-ended"],
    [4001, "gateway auth changed", "credential-ended"],
    [4001, "client invalidated: rotated", "credential-ended"],
    [4001, "client invalidated: removed", "credential-ended"],
    [4001, "credential expired", "credential-ended"],
    [1000, "superseded", "superseded"],
    [1008, "policy", "policy"],
  ] as const)("stops after %d %s and says that it is %s", async (code, reason, why) => {
    const { open, sockets, end, relay } = await setUp();
    (await open()).end(code, reason);
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(sockets).toHaveLength(1);
    expect(end()).toEqual({ why, detail: reason, closeCode: code, error: null });
    expect(relay.state()).toBe("stopped");
    await expect(relay.opened()).rejects.toMatchObject({ code: "RELAY_STOPPED" });
    await expect(relay.enqueue({ to: PEER_DID, payload: 1 })).rejects.toMatchObject({ code: "RELAY_STOPPED" });
  });

  test("comes back after the end of an identity token when a newer one is in hand", async () => {
    const { open, sockets } = await setUp({}, { mayReturnAfterExpiry: () => true });
    (await open()).end(4001, "credential expired");
    await vi.advanceTimersByTimeAsync(1_000);
    expect(sockets).toHaveLength(2);
  });

  test("does not take a revocation for an expiry, whatever is in hand", async () => {
    const { open, sockets } = await setUp({}, { mayReturnAfterExpiry: () => true });
    (await open()).end(4001, "agent revoked");
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(sockets).toHaveLength(1);
  });

  test.each([
    [401, "PROXY_AUTH_REVOKED", "credential-ended"],
    [401, "PROXY_AUTH_CLIENT_INVALIDATED", "credential-ended"],
    [401, "PROXY_AUTH_INVALID_TOKEN", "credential-ended"],
    [403, "PROXY_AUTH_FORBIDDEN", "refused"],
    [404, "PROXY_NOT_FOUND", "refused"],
  ] as const)("stops when its ticket is refused with %d %s", async (status, code, why) => {
    const error = problemError(status, code);
    const { end, sockets } = await setUp({}, { ticket: () => Promise.reject(error) });
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(sockets).toHaveLength(0);
    expect(end()).toMatchObject({ why, closeCode: null, error });
  });

  test.each([
    [503, "PROXY_AUTH_DEPENDENCY_UNAVAILABLE"],
    [429, "PROXY_RATE_LIMIT_EXCEEDED"],
    [401, "PROXY_AUTH_REPLAY"],
  ])("keeps asking when its ticket is refused with %d %s", async (status, code) => {
    let refusals = 3;
    const ticket = () => ((refusals -= 1) < 0 ? Promise.resolve("t") : Promise.reject(problemError(status, code)));
    const { sockets, errors } = await setUp({}, { ticket });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(sockets.length).toBeGreaterThan(0);
    expect(errors.filter((error) => error instanceof ProblemError)).toHaveLength(3);
  });

  test.each([
    ["whose identity token does not hold yet", new CredentialNotYetValidError(7_000), 7_000],
    ["whose server has a clock that is not trusted", new ClockNotTrustedError(900_000), 30_000],
  ])("%s tries again", async (_what, error, waitMs) => {
    let failures = 1;
    const ticket = () => ((failures -= 1) < 0 ? Promise.resolve("t") : Promise.reject(error));
    const { sockets, errors } = await setUp({}, { ticket });
    await vi.advanceTimersByTimeAsync(waitMs - 1);
    expect(sockets).toHaveLength(0);
    await vi.advanceTimersByTimeAsync(1);
    expect(sockets).toHaveLength(1);
    expect(errors).toEqual([error]);
  });

  test("gives up a socket that does not open in time", async () => {
    const { sockets, socket } = await setUp({}, { timeoutMs: 5_000 });
    await vi.advanceTimersByTimeAsync(5_100);
    expect(socket(0).closedByClient).toBe(true);
    expect(sockets).toHaveLength(2);
  });

  test("tells of a socket that did not open, and not of one that did", async () => {
    const { socket, open, errors, sockets } = await setUp();
    socket().end(1006);
    expect(errors).toMatchObject([{ name: "UnreachableError", code: "UNREACHABLE" }]);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(sockets).toHaveLength(2);
    (await open()).end(1006);
    expect(errors).toHaveLength(1);
  });

  test("closes for good when its own side says so, also while it waits", async () => {
    const { relay, open, sockets, end } = await setUp();
    (await open()).end(1006);
    relay.close();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(sockets).toHaveLength(1);
    expect(end()).toMatchObject({ why: "closed" });
  });

  test("that was closed while its ticket was on the way opens no socket", async () => {
    const ticket = Promise.withResolvers<string>();
    const { relay, sockets } = await setUp({}, { ticket: () => ticket.promise });
    relay.close();
    ticket.resolve("late");
    await settle();
    expect(sockets).toHaveLength(0);
  });
});

describe("signs of life", () => {
  test("are given as soon as the socket is open", async () => {
    const { socket } = await setUp();
    socket().open();
    expect(socket().sent).toMatchObject([{ type: "heartbeat" }]);
  });

  test("are asked for, and a socket that gives none is given up", async () => {
    const { open, sockets } = await setUp({}, { heartbeatMs: 30_000, livenessMs: 10_000 });
    const socket = await open();
    await vi.advanceTimersByTimeAsync(30_000);
    expect(socket.sent.map(({ type }) => type)).toEqual(["heartbeat"]);
    await vi.advanceTimersByTimeAsync(10_100);
    expect(socket.closedByClient).toBe(true);
    expect(sockets).toHaveLength(2);
  });

  test("may be any frame", async () => {
    const { open, sockets } = await setUp({}, { heartbeatMs: 30_000, livenessMs: 10_000 });
    const socket = await open();
    await vi.advanceTimersByTimeAsync(35_000);
    socket.push(eventFrame({ event: "x", payload: null, seq: 1 }));
    await vi.advanceTimersByTimeAsync(10_000);
    expect(sockets).toHaveLength(1);
  });

  test("are given when the server asks", async () => {
    const { open } = await setUp();
    const socket = await open();
    const head = frameHead(Date.now());
    socket.push(heartbeatFrame(head));
    expect(socket.sent).toMatchObject([{ type: "heartbeat_ack", ackId: head.id }]);
  });

  test("come with the maintenance of the credential", async () => {
    const maintenance = vi.fn(() => Promise.resolve());
    const { open } = await setUp({}, { heartbeatMs: 30_000, maintenance });
    const socket = await open();
    await vi.advanceTimersByTimeAsync(30_000);
    socket.push(heartbeatFrame(frameHead(Date.now())));
    await vi.advanceTimersByTimeAsync(30_000);
    expect(maintenance).toHaveBeenCalledTimes(2);
  });
});

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

  test("is refused for good by a handler that says so", async () => {
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

  test("waits for the one before it of the same sender, and for nobody else's", async () => {
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

  test("whose handler fails is handled before the later ones of its sender, which wait for it, and hinders nobody else", async () => {
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

  test("becomes a receipt", async () => {
    const onReceipt = vi.fn();
    const { open } = await setUp({ onReceipt });
    const toAgentDid = parseAgentDid(PEER_DID);
    if (toAgentDid === null) throw new Error("no DID");
    const receipt = {
      originalFrameId: null,
      deliveryId: "d_1",
      toAgentDid,
      status: "dead_lettered" as const,
      reason: "expired",
    };
    (await open()).push(receiptFrame(frameHead(Date.now()), receipt));
    expect(onReceipt).toHaveBeenCalledWith(expect.objectContaining(receipt));
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

test("events reach whoever listens, and what is no frame is told and survived", async () => {
  const onEvent = vi.fn();
  const { open, errors, relay } = await setUp({ onEvent });
  const socket = await open();
  socket.push("{");
  socket.push(eventFrame({ event: "error", payload: { reason: "malformed" }, seq: 4 }));
  expect(onEvent).toHaveBeenCalledWith(
    expect.objectContaining({ event: "error", payload: { reason: "malformed" }, seq: 4 }),
  );
  expect(errors).toHaveLength(1);
  expect(relay.state()).toBe("open");
});
