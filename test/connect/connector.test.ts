/** What a connector says, and how often it asks, while the program behind it is wrong for hours. The clock is moved. */
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { IncomingMessage, RelayConnection, RelayEnd } from "../../src/client/index.ts";
import { createComplaints } from "../../src/connect/complaints.ts";
import { type Connector, startConnector } from "../../src/connect/connector.ts";
import type { Outcome } from "../../src/connect/message.ts";
import { openInboxStore } from "../../src/connect/store/inbox.ts";
import { temporaryFolder } from "../cli/program.ts";
import { BOB, delivery } from "./deliveries.ts";

const HOUR_MS = 3_600_000;

beforeEach(() => void vi.useFakeTimers({ now: Date.UTC(2026, 11, 1, 10, 0, 0) }));
afterEach(() => void vi.useRealTimers());

/** A connector with an inbox, whose relay is the test's own. */
async function connected(target: () => Promise<Outcome>) {
  const said: string[] = [];
  let onMessage: (message: IncomingMessage) => void | Promise<void> = () => undefined;
  let end: (end: RelayEnd) => void = () => undefined;
  const relay: Partial<RelayConnection> = {
    state: () => "open",
    close: () => end({ why: "closed", detail: "", closeCode: null, error: null }),
    ended: new Promise((resolve) => {
      end = resolve;
    }),
  };
  const inbox = openInboxStore(join(await temporaryFolder(), "inbox.sqlite"));
  const connector: Connector = startConnector({
    client: {
      agentDid: BOB,
      connect(handlers) {
        onMessage = (message) => handlers.onMessage({ ...message, reply: () => Promise.reject(new Error("no reply")) });
        return relay as RelayConnection;
      },
      deliveryReceipts: { report: () => Promise.resolve() },
    },
    target,
    inbox,
    complaints: createComplaints((line) => said.push(line), Date.now),
    onState: () => undefined,
    onMessage: () => undefined,
    onReceipt: () => undefined,
    now: Date.now,
  });
  const stop = async (): Promise<void> => {
    const stopped = connector.stop();
    await vi.advanceTimersByTimeAsync(10_000);
    await stopped;
    inbox.close();
  };
  return { said, inbox, stop, take: (message: IncomingMessage) => onMessage(message) };
}

test("a program that answers 500 for an hour: one line a minute at most, attempts further and further apart, nothing lost", async () => {
  let isDown = true;
  const handled: string[] = [];
  const attempts: number[] = [];
  const { said, inbox, stop, take } = await connected(() => {
    attempts.push(Date.now());
    if (isDown) return Promise.resolve({ kind: "later", reason: "answered 500" });
    handled.push("handled");
    return Promise.resolve({ kind: "handled" });
  });
  for (let n = 0; n < 3; n += 1) {
    const { payloadText, receivedAtMs: _at, ...message } = delivery();
    await take({ ...message, payloadText, payload: n });
  }
  await vi.advanceTimersByTimeAsync(HOUR_MS);
  expect(said[0]).toBe("program: answered 500");
  expect(said.length).toBeLessThanOrEqual(61);
  expect(said.at(-1)).toMatch(/^program: answered 500, for \d+ min \(\d+ times\)$/);
  // 1, 2, 4 … 256 seconds, then every five minutes: of the first message alone, since it holds back the others.
  expect(attempts.length).toBeGreaterThan(10);
  expect(attempts.length).toBeLessThan(30);
  expect(inbox.usage().messages).toBe(3);
  isDown = false;
  await vi.advanceTimersByTimeAsync(HOUR_MS);
  expect(handled).toHaveLength(3);
  expect(inbox.usage().messages).toBe(0);
  expect(said.at(-1)).toMatch(/^program: well again after \d+ (min|h) \(\d+ times\)$/);
  await stop();
});

test("a program that asks for a time gets it, and no more than an hour", async () => {
  const attempts: number[] = [];
  const { stop, take } = await connected(() => {
    attempts.push(Date.now());
    const retryAfterMs = attempts.length === 1 ? 90_000 : 86_400_000;
    return Promise.resolve({ kind: "later", reason: "answered 429", retryAfterMs });
  });
  const { payloadText, receivedAtMs: _at, ...message } = delivery();
  await take({ ...message, payloadText, payload: 1 });
  await vi.advanceTimersByTimeAsync(3 * HOUR_MS);
  const gaps = attempts.slice(1).map((at, index) => Math.round((at - (attempts[index] ?? 0)) / 1_000));
  expect(gaps).toEqual([90, 3_600, 3_600]);
  await stop();
});
