import { expect, test } from "vitest";
import { checkReplay, createReplayMemory, nonceAgeMs } from "../../src/auth/replay.ts";

const [KEY, OTHER_KEY] = ["K".repeat(43), "L".repeat(43)];
const AGE_MS = nonceAgeMs(300);

test("replay: a nonce is refused once the gate has had it, for that key alone", () => {
  const memory = createReplayMemory(AGE_MS);
  expect(checkReplay(memory, KEY, "n", 0).ok).toBe(true);
  memory.remember(KEY, "n", 0);
  const again = checkReplay(memory, KEY, "n", 0);
  expect(again.ok ? null : again.error.reason).toBe("nonce-seen-here");
  expect(checkReplay(memory, OTHER_KEY, "n", 0).ok).toBe(true);
  expect(checkReplay(memory, KEY, "n ", 0).ok).toBe(true);
});

test("replay: the memory never holds more than two generations, and forgets the oldest", () => {
  const memory = createReplayMemory(AGE_MS, 100);
  for (let index = 0; index < 1_000; index += 1) {
    memory.remember(KEY, `n${index}`, 0);
    expect(memory.size()).toBeLessThanOrEqual(200);
  }
  expect(memory.has(KEY, "n999", 0)).toBe(true);
  expect(memory.has(KEY, "n900", 0)).toBe(true);
  expect(memory.has(KEY, "n0", 0)).toBe(false);
});

test("replay: a nonce is kept as long as it may matter, and not for ever", () => {
  expect(AGE_MS).toBe(660_000);
  const memory = createReplayMemory(AGE_MS);
  memory.remember(KEY, "late", AGE_MS - 1);
  for (let atMs = AGE_MS; atMs < 2 * AGE_MS; atMs += 60_000) expect(memory.has(KEY, "late", atMs)).toBe(true);
  expect(memory.has(KEY, "late", 3 * AGE_MS)).toBe(false);
  expect(memory.size()).toBe(0);
});

test("replay: what an isolate has not looked at for two ages is gone at once", () => {
  const memory = createReplayMemory(AGE_MS);
  memory.remember(KEY, "n", 1_000_000);
  expect(memory.has(KEY, "n", 1_000_000 + 2 * AGE_MS)).toBe(false);
  expect(memory.size()).toBe(0);
});
