import { afterEach, describe, expect, test, vi } from "vitest";
import { PLAIN_FRAME_BYTES_MAX, REFUSALS_MAX } from "../../../src/gate/relay/frame-limits.ts";
import { SOCKETS_PER_HOLDER_MAX } from "../../../src/gate/relay/sockets.ts";
import { newUlid } from "../../../src/wire/ulid.ts";
import {
  call,
  type Line,
  newAgent,
  newAgentHolder,
  open,
  pairDevice,
  gateStub,
} from "../../support/gate-participants.ts";
import { eventually, queuedMessage } from "../../support/gate.ts";

afterEach(() => void vi.restoreAllMocks());

const RATE = 600;
const MIB = 1_048_576;
const heartbeats = (line: Line): number => line.frames.filter(({ type }) => type === "heartbeat_ack").length;
const answers = (line: Line, type: string) => line.frames.filter((frame) => frame.type === type);

/** An agent, and a device of it that has been counted twice: for its claim and for its socket. */
async function deviceOnLine(scopes: Parameters<typeof pairDevice>[1] = ["relay", "send", "tasks:read"]) {
  const agent = newAgentHolder(newAgent());
  const device = await pairDevice(agent, scopes);
  return { agent, device, line: await open(device), left: RATE / 2 - 2 };
}

/** JSON of so many bytes that costs as much to parse as any: each object has a shape of its own. */
function dearFrame(members: Record<string, unknown>, bytes: number): string {
  const parts: string[] = [];
  let length = 0;
  for (let n = 0; length < bytes - 200; n++) {
    const part = `{"${n}":1}`;
    parts.push(part);
    length += part.length + 1;
  }
  return `${JSON.stringify({ v: 1, id: newUlid(Date.now()), ts: new Date().toISOString(), ...members }).slice(0, -1)},"x":[${parts.join(",")}]}`;
}

/** Counts how often a text longer than 64 KiB is parsed, wherever that is done. */
function countLongParses(): { parses: () => number } {
  const parse = vi.spyOn(JSON, "parse");
  return { parses: () => parse.mock.calls.filter(([text]) => String(text).length > 65_536).length };
}

describe("frames of a device", () => {
  test("heartbeats count against its share of the rate, and those beyond it are not answered", async () => {
    const { agent, line, left } = await deviceOnLine();
    for (let n = 0; n < left + 50; n++) line.say({ type: "heartbeat" });
    const own = await open(agent);
    own.say({ type: "heartbeat" });
    await eventually(() => expect(heartbeats(own)).toBe(1));
    await eventually(() => expect(heartbeats(line)).toBe(left));
    const id = line.say({ type: "enqueue", toAgentDid: newAgent(), payload: {} });
    await eventually(() =>
      expect(answers(line, "enqueue_ack")).toMatchObject([{ ackId: id, accepted: false, reason: "OVERLOADED" }]),
    );
    line.socket.send(JSON.stringify({ type: "req", id: "call", method: "task/list" }));
    await eventually(() => {
      const [res] = answers(line, "res");
      expect(res).toMatchObject({ id: "call", ok: false, error: { code: "OVERLOADED", retryable: true } });
    });
    expect(heartbeats(line)).toBe(left);
    expect(line.closure()).toBeNull();
  });

  test("malformed and unknown ones count too", async () => {
    const { line, left } = await deviceOnLine();
    for (let n = 0; n < left - 8; n++) line.say({ type: "heartbeat" });
    for (let n = 0; n < 8; n++) line.say({ type: n % 2 === 0 ? "none" : "deliver_ack" });
    line.say({ type: "heartbeat" });
    await eventually(() => expect(answers(line, "event")).toHaveLength(8));
    expect(heartbeats(line)).toBe(left - 8);
  });

  test("a flood of them closes the socket with 1013", async () => {
    const { line, left } = await deviceOnLine();
    for (let n = 0; n <= left + REFUSALS_MAX; n++) line.say({ type: "heartbeat" });
    await expect(line.closed).resolves.toMatchObject({ code: 1013, reason: "too many frames" });
    expect(heartbeats(line)).toBe(left);
  });

  test("a call that ends an authority passes beyond the rate", async () => {
    const { device, line, left } = await deviceOnLine(["relay", "devices"]);
    for (let n = 0; n < left; n++) line.say({ type: "heartbeat" });
    await eventually(() => expect(heartbeats(line)).toBe(left));
    const request = { type: "req", id: "end", method: "device.token.revoke", params: { deviceId: device.deviceId } };
    line.socket.send(JSON.stringify(request));
    await eventually(() => expect(answers(line, "res")).toMatchObject([{ id: "end", ok: true }]));
    await expect(line.closed).resolves.toMatchObject({ code: 4001 });
  });

  test("an acknowledgement of what was pushed costs nothing, a second one counts", async () => {
    const { agent, line, left } = await deviceOnLine();
    await gateStub(agent.did).receive(newAgent(), [queuedMessage({ createdAtMs: Date.now() })]);
    await eventually(() => expect(answers(line, "deliver")).toHaveLength(1));
    const ackId = answers(line, "deliver")[0]!["id"];
    line.say({ type: "deliver_ack", ackId, accepted: true });
    line.say({ type: "deliver_ack", ackId, accepted: true });
    for (let n = 0; n < left; n++) line.say({ type: "heartbeat" });
    line.say({ type: "enqueue", toAgentDid: newAgent(), payload: {} });
    await eventually(() => expect(answers(line, "enqueue_ack")).toHaveLength(1));
    expect(heartbeats(line)).toBe(left - 1);
  });

  test("one that says its type twice is refused", async () => {
    const { line } = await deviceOnLine();
    line.socket.send(`{"type":"heartbeat","id":"${newUlid(Date.now())}","method":"task/list","type":"req"}`);
    await eventually(() =>
      expect(answers(line, "event")).toMatchObject([{ payload: { detail: "type: stands there twice" } }]),
    );
  });
});

describe("a frame longer than 4 KiB", () => {
  test.each(["heartbeat", "heartbeat_ack", "deliver_ack", "none"])(
    "of type %s closes the socket with 1009 and is not parsed",
    async (type) => {
      const { line } = await deviceOnLine();
      const parse = vi.spyOn(JSON, "parse");
      const text = dearFrame({ type, ackId: newUlid(Date.now()), accepted: true }, PLAIN_FRAME_BYTES_MAX + 300);
      line.socket.send(text);
      await expect(line.closed).resolves.toMatchObject({ code: 1009 });
      expect(parse.mock.calls.filter(([parsed]) => parsed === text)).toEqual([]);
    },
  );

  test.each([5_000, 20_000, 900_000])(
    "of %i bytes carries a message or a call, wherever its type stands",
    async (bytes) => {
      const { line } = await deviceOnLine();
      const payload = "x".repeat(bytes);
      const head = { v: 1, ts: new Date().toISOString(), toAgentDid: newAgent() };
      const ids = [newUlid(Date.now()), newUlid(Date.now())];
      line.socket.send(JSON.stringify({ type: "enqueue", ...head, id: ids[0], payload }));
      line.socket.send(JSON.stringify({ payload, ...head, id: ids[1], type: "enqueue" }));
      line.socket.send(JSON.stringify({ params: { payload }, type: "req", id: 3, method: "task/none" }));
      await eventually(() =>
        expect(answers(line, "res")).toMatchObject([{ id: 3, error: { code: "METHOD_NOT_FOUND" } }]),
      );
      expect(answers(line, "enqueue_ack").map(({ ackId }) => ackId)).toEqual(ids);
    },
  );

  test("that hides behind a long first member what it is, closes the socket with 1009", async () => {
    const { line } = await deviceOnLine();
    line.socket.send(
      JSON.stringify({
        x: "y".repeat(5_000),
        v: 1,
        type: "heartbeat",
        id: newUlid(Date.now()),
        ts: new Date().toISOString(),
      }),
    );
    await expect(line.closed).resolves.toMatchObject({ code: 1009 });
  });
});

describe("a device that is revoked while it sends what is dear to parse", () => {
  test("as heartbeats on all its sockets: nothing of it is parsed, and the end is answered", async () => {
    const { agent, device } = await deviceOnLine(["relay", "tasks:read"]);
    const lines = await Promise.all(Array.from({ length: SOCKETS_PER_HOLDER_MAX - 1 }, () => open(device)));
    const { parses } = countLongParses();
    const text = dearFrame({ type: "heartbeat" }, MIB);
    for (const { socket } of lines) for (let n = 0; n < 4; n++) socket.send(text);
    expect(
      await call(agent.did, "device.token.revoke", { agentDid: agent.did, deviceId: device.deviceId }),
    ).toMatchObject({
      ok: true,
    });
    await Promise.all(lines.map(({ closed }) => closed));
    expect(parses()).toBe(0);
  });

  test("as calls: the end comes between two of them, and none is parsed after it", async () => {
    const { agent, device } = await deviceOnLine(["relay", "tasks:read"]);
    const lines = await Promise.all([open(device), open(device)]);
    const { parses } = countLongParses();
    for (let n = 0; n < 8; n++) {
      for (const { socket } of lines) socket.send(dearFrame({ type: "req", method: "task/list" }, MIB / 2));
    }
    // The first has been parsed, the others wait.
    await eventually(() => expect(parses()).toBeGreaterThan(0));
    const end = await call(agent.did, "device.token.revoke", { agentDid: agent.did, deviceId: device.deviceId });
    const before = parses();
    expect(end).toMatchObject({ ok: true });
    expect(before).toBeLessThan(16);
    await Promise.all(lines.map(({ closed }) => closed));
    expect(parses()).toBe(before);
  });
});
