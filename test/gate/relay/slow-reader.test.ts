import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { RECORDED_AFTER_MS } from "../../../src/gate/queue/attempts.ts";
import { ACK_TIMEOUT_MS } from "../../../src/gate/queue/queue.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import { SENDER_WINDOW } from "../../../src/gate/queue/dispatch.ts";
import { eventually, gateStub, listen, newAgentDid, queuedMessage, pass, rows, stopClock } from "../../support/gate.ts";

beforeEach(() => stopClock());
afterEach(() => void vi.useRealTimers());

/** A reader that takes its whole window and says nothing. */
async function silentReader() {
  const bob = newAgentDid();
  const reader = await listen(bob, "nothing");
  const queuedMessages = Array.from({ length: SENDER_WINDOW + 8 }, () => queuedMessage());
  await gateStub(bob).receive(newAgentDid(), queuedMessages);
  await eventually(() => expect(reader.deliveries()).toHaveLength(SENDER_WINDOW));
  return { bob, reader, queuedMessages };
}

const openSockets = (did: AgentDid): Promise<number> =>
  runInDurableObject(
    gateStub(did),
    (_gate, state) => state.getWebSockets().filter(({ readyState }) => readyState === WebSocket.OPEN).length,
  );

describe("a reader whose window is full", () => {
  test.each([
    ["and which acknowledges nothing", false],
    ["and which acknowledges nothing, while its gate slept", true],
  ])("%s is closed with 1013 after 30 s and loses nothing", async (_case, sleeps) => {
    const { bob, reader, queuedMessages } = await silentReader();
    // What has not been answered for a while is written down.
    pass(RECORDED_AFTER_MS);
    await runDurableObjectAlarm(gateStub(bob));
    await eventually(async () =>
      expect(await rows(bob, "SELECT 1 FROM inbound WHERE is_pushed = 1")).toHaveLength(SENDER_WINDOW),
    );
    if (sleeps) await evictDurableObject(gateStub(bob), { webSockets: "hibernate" });
    pass(ACK_TIMEOUT_MS);
    await runDurableObjectAlarm(gateStub(bob));
    // Seen from the gate: to a client whose gate slept, this runtime brings the end of a socket late.
    await eventually(async () => expect(await openSockets(bob)).toBe(0));
    if (!sleeps) await expect(reader.closed).resolves.toMatchObject({ code: 1013 });
    const waiting = await rows(bob, "SELECT delivery_id FROM inbound WHERE state = 0");
    expect(waiting).toHaveLength(queuedMessages.length);
  });

  test("stays while it acknowledges now and then", async () => {
    const { bob, reader } = await silentReader();
    let isClosed = false;
    void reader.closed.then(() => (isClosed = true));
    pass(ACK_TIMEOUT_MS / 2);
    const [first] = reader.deliveries();
    if (first !== undefined) reader.acknowledge(first);
    await eventually(async () => {
      pass(50);
      expect(await rows(bob, "SELECT 1 FROM inbound WHERE state = 1")).toHaveLength(1);
    });
    pass(ACK_TIMEOUT_MS / 2);
    await runDurableObjectAlarm(gateStub(bob));
    expect(isClosed).toBe(false);
  });
});

describe("a reader that takes nothing, below a full window", () => {
  const messages = () => Array.from({ length: 5 }, () => queuedMessage());

  test("is tried once more with one message, then closed with 1013, and loses nothing", async () => {
    const bob = newAgentDid();
    const reader = await listen(bob, "nothing");
    await gateStub(bob).receive(newAgentDid(), messages());
    await eventually(() => expect(reader.deliveries()).toHaveLength(5));
    pass(ACK_TIMEOUT_MS);
    await runDurableObjectAlarm(gateStub(bob));
    pass(1_200);
    await runDurableObjectAlarm(gateStub(bob));
    await eventually(() => expect(reader.deliveries()).toHaveLength(6));
    pass(ACK_TIMEOUT_MS);
    await runDurableObjectAlarm(gateStub(bob));
    await expect(reader.closed).resolves.toMatchObject({ code: 1013 });
    expect(reader.deliveries()).toHaveLength(6);
    expect(await rows(bob, "SELECT 1 FROM inbound WHERE state = 0")).toHaveLength(5);
  });

  test("stays while it sends any frame", async () => {
    const bob = newAgentDid();
    const reader = await listen(bob, "nothing");
    await gateStub(bob).receive(newAgentDid(), messages());
    await eventually(() => expect(reader.deliveries()).toHaveLength(5));
    let isClosed = false;
    void reader.closed.then(() => (isClosed = true));
    for (let round = 0; round < 4; round++) {
      pass(ACK_TIMEOUT_MS - 1_000);
      reader.say({ type: "heartbeat" });
      await eventually(() =>
        expect(reader.frames.filter(({ type }) => type === "heartbeat_ack")).toHaveLength(round + 1),
      );
      pass(2_500);
      await runDurableObjectAlarm(gateStub(bob));
    }
    expect(isClosed).toBe(false);
  });
});
