import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { nestsDeeperThan, valueNestsDeeperThan } from "../../src/wire/nesting.ts";

/** Levels of objects and arrays, counted the plain way. */
const depthOf = (value: unknown): number =>
  typeof value === "object" && value !== null ? 1 + Math.max(0, ...Object.values(value).map(depthOf)) : 0;

describe("how deep JSON nests", () => {
  test.each<[string, number]>([
    ["1", 0],
    ['"[[[{"', 0],
    ['"\\"[["', 0],
    ["{}", 1],
    ["[]", 1],
    ['{"[[[":"]]"}', 1],
    ['[{"a":[]},[]]', 3],
  ])("%s: %d", (json, depth) => {
    expect(nestsDeeperThan(json, depth)).toBe(false);
    expect(valueNestsDeeperThan(JSON.parse(json), depth)).toBe(false);
    if (depth === 0) return;
    expect(nestsDeeperThan(json, depth - 1)).toBe(true);
    expect(valueNestsDeeperThan(JSON.parse(json), depth - 1)).toBe(true);
  });

  property.prop([fc.json({ maxDepth: 6 }), fc.nat({ max: 7 })])(
    "is the same read as text and as a value",
    (json, max) => {
      const isDeeper = depthOf(JSON.parse(json)) > max;
      expect(nestsDeeperThan(json, max)).toBe(isDeeper);
      expect(valueNestsDeeperThan(JSON.parse(json), max)).toBe(isDeeper);
    },
  );

  test("is told of a million levels as well", () => {
    const json = "[".repeat(1_000_000) + "]".repeat(1_000_000);
    expect(nestsDeeperThan(json, 128)).toBe(true);
    expect(valueNestsDeeperThan(JSON.parse(json), 128)).toBe(true);
  });
});
