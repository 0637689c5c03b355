/** Messages that a program fetches: what is never acknowledged holds nobody else up. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createPullQueue, HELD_MS } from "../../../src/connect/target/pull.ts";
import { delivery } from "../deliveries.ts";

const never = new AbortController().signal;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("what was fetched and not spoken of in time is put off, and a late word on it is none", async () => {
  const queue = createPullQueue(Date.now);
  const message = delivery();
  const outcome = queue.target(message, never);
  expect(await queue.take(10, 0, never)).toEqual([message]);
  await vi.advanceTimersByTimeAsync(HELD_MS);
  expect(await outcome).toMatchObject({ kind: "later" });
  expect(queue.settle({ deliveryId: message.deliveryId, outcome: { kind: "handled" } })).toBe(false);
  expect(queue.depth()).toBe(0);
});

test("what nobody has fetched waits", async () => {
  const queue = createPullQueue(Date.now);
  const message = delivery();
  const outcome = queue.target(message, never);
  await vi.advanceTimersByTimeAsync(10 * HELD_MS);
  expect(await queue.take(10, 0, never)).toEqual([message]);
  queue.settle({ deliveryId: message.deliveryId, outcome: { kind: "handled" } });
  expect(await outcome).toEqual({ kind: "handled" });
});

test("the end of an earlier attempt leaves a repeat of the message where it is", async () => {
  const queue = createPullQueue(Date.now);
  const [message, first] = [delivery(), new AbortController()];
  const gone = queue.target(message, first.signal);
  const again = queue.target(message, never);
  first.abort(new Error("the socket is gone"));
  await expect(gone).rejects.toThrow("gone");
  expect(await queue.take(10, 0, never)).toEqual([message]);
  queue.settle({ deliveryId: message.deliveryId, outcome: { kind: "handled" } });
  expect(await again).toEqual({ kind: "handled" });
});
