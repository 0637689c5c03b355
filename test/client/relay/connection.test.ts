import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  ClockNotTrustedError,
  connectByTicket,
  CredentialNotYetValidError,
  ProblemError,
} from "../../../src/client/index.ts";
import { eventFrame, frameHead, heartbeatFrame } from "../../../src/wire/frame-encoder.ts";
import { BASE_URL, PEER_DID } from "../fake-gate.ts";
import { fakeSockets } from "../fake-socket.ts";
import { problemError, settle, setUp } from "./relay-under-test.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

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

  test.each(["", "two words", "a,b", "caf\u00e9"])("stops at a ticket that is none, as %j", async (ticket) => {
    const { WebSocket, sockets } = fakeSockets();
    const source = { baseUrl: BASE_URL, ticket: () => Promise.resolve(ticket) };
    const relay = connectByTicket(source, { onMessage: () => undefined }, { WebSocket });
    expect(await relay.ended).toMatchObject({ why: "refused", error: { code: "INVALID_TICKET" } });
    expect(sockets).toEqual([]);
  });

  test("gives up a socket that does not open in time", async () => {
    const { sockets, socket } = await setUp({}, { timeoutMs: 5_000 });
    await vi.advanceTimersByTimeAsync(5_100);
    expect(socket(0).closedByClient).toBe(true);
    expect(sockets).toHaveLength(2);
  });

  test("reports a socket that did not open, and not one that did", async () => {
    const { socket, open, errors, sockets } = await setUp();
    socket().end(1006);
    expect(errors).toMatchObject([{ name: "UnreachableError", code: "UNREACHABLE" }]);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(sockets).toHaveLength(2);
    (await open()).end(1006);
    expect(errors).toHaveLength(1);
  });

  test("closes permanently when its own side says so, also while it waits", async () => {
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

test("events reach their handler, and what is no frame is reported and survived", async () => {
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
