import { expect, test } from "vitest";
import { createRefusalMemory } from "../../../src/auth/limits/refusal-memory.ts";
import { refusal } from "../../../src/auth/reasons.ts";

const NOT_TRUSTED = refusal("peer-not-trusted");
const KEY = "K".repeat(43);

test("refusal memory: the same request gets the same answer for ten seconds, without a look", () => {
  const memory = createRefusalMemory(600);
  expect(memory.recall(KEY, "n", 0)).toBeNull();
  memory.remember(KEY, "n", NOT_TRUSTED, 0);
  expect(memory.recall(KEY, "n", 9_999)).toEqual(NOT_TRUSTED);
  expect(memory.recall(KEY, "n", 10_000)).toBeNull();
  expect(memory.recall(KEY, "other", 1)).toBeNull();
  expect(memory.recall("L".repeat(43), "n", 1)).toBeNull();
});

test("refusal memory: a key that is refused too often waits for the rest of its minute", () => {
  const memory = createRefusalMemory(3);
  for (const nonce of ["a", "b", "c"]) memory.remember(KEY, nonce, NOT_TRUSTED, 1_000);
  expect(memory.recall(KEY, "d", 21_000)).toEqual({ reason: "refused-too-often", retryAfterMs: 40_000 });
  expect(memory.recall("L".repeat(43), "d", 21_000)).toBeNull();
  expect(memory.recall(KEY, "d", 61_000)).toBeNull();
});

test("refusal memory: repeats of one request are limited, and silence nobody but themselves", () => {
  const memory = createRefusalMemory(3);
  memory.remember(KEY, "recorded", NOT_TRUSTED, 0);
  const answers = Array.from({ length: 5 }, (_, at) => memory.recall(KEY, "recorded", at)?.reason);
  expect(answers).toEqual([
    "peer-not-trusted",
    "peer-not-trusted",
    "refused-too-often",
    "refused-too-often",
    "refused-too-often",
  ]);
  expect(memory.recall(KEY, "signed anew", 10)).toBeNull();
});

test("refusal memory: a limit of 0 limits nothing, and repeats still cost no look", () => {
  const memory = createRefusalMemory(0);
  for (let count = 0; count < 2_000; count += 1) memory.remember(KEY, `n${count}`, NOT_TRUSTED, 0);
  expect(memory.recall(KEY, "new", 0)).toBeNull();
  expect(memory.recall(KEY, "n1", 0)).toEqual(NOT_TRUSTED);
});
