import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { ACK_TIMEOUT_MS } from "../../../src/gate/queue/queue.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import { LANE_WINDOW } from "../../../src/gate/queue/dispatch.ts";
import { eventually, gateStub, listen, newAgentDid, queuedMessage, pass, rows, stopClock } from "../../support/gate.ts";

beforeEach(() => stopClock());
afterEach(() => void vi.useRealTimers());

/** A reader that takes its whole window and says nothing. */
async function silentReader() {
  const bob = newAgentDid();
  const reader = await listen(bob, "nothing");
  const queuedMessages = Array.from({ length: LANE_WINDOW + 8 }, () => queuedMessage());
  await gateStub(bob).receive(newAgentDid(), queuedMessages);
  await eventually(() => expect(reader.deliveries()).toHaveLength(LANE_WINDOW));
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
    if (sleeps) await evictDurableObject(gateStub(bob), { webSockets: "hibernate" });
    pass(ACK_TIMEOUT_MS);
    await runDurableObjectAlarm(gateStub(bob));
    // Seen from the gate: to a client whose gate slept, this runtime brings the end of a socket late.
    await eventually(async () => expect(await openSockets(bob)).toBe(0));
    if (!sleeps) await expect(reader.closed).resolves.toMatchObject({ code: 1013 });
    const waiting = await rows(bob, "SELECT delivery_id FROM queue WHERE state = 0");
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
      expect(await rows(bob, "SELECT 1 FROM queue WHERE state = 1")).toHaveLength(1);
    });
    pass(ACK_TIMEOUT_MS / 2);
    await runDurableObjectAlarm(gateStub(bob));
    expect(isClosed).toBe(false);
  });
});
