import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { hasSchema } from "../../src/gate/storage/schema.ts";
import { alarmOf, eventually, gateStub, newAgentDid, queuedMessage, rows, stopClock } from "../support/gate.ts";

beforeEach(() => stopClock());
afterEach(() => void vi.useRealTimers());

describe("an object that is named by no agent's DID", () => {
  test.each([
    ["by another name", () => env.GATE.getByName("nobody")],
    ["by an id alone", () => env.GATE.get(env.GATE.newUniqueId())],
  ])("%s takes nothing and makes no tables", async (_how, stub) => {
    const answers = await runInDurableObject(stub(), async (gate, { storage }) => {
      const outcome = (work: Promise<unknown>) => work.then(String, (error: unknown) => String(error));
      return [
        await outcome(gate.receive(newAgentDid(), [queuedMessage()])),
        await outcome(gate.notify({ fromAgentDid: null, payload: "{}" })),
        hasSchema(storage.sql),
      ];
    });
    const refused = "Error: a gate is named by the DID of its agent";
    expect(answers).toEqual([refused, refused, false]);
  });
});

describe("an alarm that keeps failing", () => {
  test("is set anew before the platform's last repeats, and later ones find it", async () => {
    const bob = newAgentDid();
    await gateStub(bob).receive(newAgentDid(), [queuedMessage()]);
    await runInDurableObject(gateStub(bob), async (gate, { storage }) => {
      await storage.deleteAlarm();
      vi.spyOn(storage, "transactionSync").mockImplementationOnce(() => {
        throw new Error("the disk is full");
      });
      // It takes the object down with it.
      void gate.alarm({ isRetry: true, retryCount: 4, scheduledTime: Date.now() }).catch(() => undefined);
    });
    // Woken by whatever comes next, the gate finds the alarm; nothing that waits here would have set one so early.
    await eventually(async () => expect(await alarmOf(bob)).toBe(Date.now() + 300_000));
    expect(await rows(bob, "SELECT state FROM inbound")).toEqual([{ state: 0 }]);
  });
});
