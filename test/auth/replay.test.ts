import { expect, test } from "vitest";
import { checkReplay, createReplayMemory } from "../../src/auth/replay.ts";

const [KEY, OTHER_KEY] = ["K".repeat(43), "L".repeat(43)];

test("a nonce is refused once the gate has had it, for that key alone", () => {
  const memory = createReplayMemory();
  expect(checkReplay(memory, KEY, "n").ok).toBe(true);
  memory.remember(KEY, "n");
  const again = checkReplay(memory, KEY, "n");
  expect(again.ok ? null : again.error.reason).toBe("nonce-seen-here");
  expect(checkReplay(memory, OTHER_KEY, "n").ok).toBe(true);
  expect(checkReplay(memory, KEY, "n ").ok).toBe(true);
});

test("is bounded: it never holds more than two generations, and forgets the oldest", () => {
  const memory = createReplayMemory(100);
  for (let index = 0; index < 1_000; index += 1) {
    memory.remember(KEY, `n${index}`);
    expect(memory.size()).toBeLessThanOrEqual(200);
  }
  expect(memory.has(KEY, "n999")).toBe(true);
  expect(memory.has(KEY, "n900")).toBe(true);
  expect(memory.has(KEY, "n0")).toBe(false);
});
