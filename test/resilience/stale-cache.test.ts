import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { createStaleCache, type Freshness } from "../../src/resilience/stale-cache.ts";

const FRESHNESS: Freshness = { refreshAheadMs: 75, freshMs: 100, revalidateMs: 150, staleMs: 1_000 };

describe("a value in the stale cache", () => {
  test.each([
    { ageMs: 0, phase: "fresh", refreshDue: false },
    { ageMs: 74, phase: "fresh", refreshDue: false },
    { ageMs: 75, phase: "fresh", refreshDue: true },
    { ageMs: 99, phase: "fresh", refreshDue: true },
    { ageMs: 100, phase: "revalidate" },
    { ageMs: 149, phase: "revalidate" },
    { ageMs: 150, phase: "if-error" },
    { ageMs: 999, phase: "if-error" },
    { ageMs: 1_000, phase: "gone" },
  ])("is $phase at $ageMs ms", ({ ageMs, ...expected }) => {
    const cache = createStaleCache<string>({ maxEntries: 1, freshness: FRESHNESS });
    cache.write("k", "v", 5_000);
    const read = cache.read("k", 5_000 + ageMs);
    expect(read).toMatchObject(expected);
    if (read.phase !== "gone") expect(read).toMatchObject({ value: "v", ageMs });
  });

  test("ages as it was told when it was written, not as the cache says in general", () => {
    const cache = createStaleCache<string>({ maxEntries: 1, freshness: FRESHNESS });
    cache.write("k", "v", 0, { freshMs: 10, revalidateMs: 10, staleMs: 10 });
    expect(cache.read("k", 9).phase).toBe("fresh");
    expect(cache.read("k", 10).phase).toBe("gone");
  });

  test("is not replaced by an answer that was asked for earlier", () => {
    const cache = createStaleCache<string>({ maxEntries: 1, freshness: FRESHNESS });
    expect(cache.write("k", "asked later", 20)).toBe(true);
    expect(cache.write("k", "asked earlier", 10)).toBe(false);
    expect(cache.read("k", 20)).toMatchObject({ value: "asked later" });
  });

  test("is young, not invalid, when the clock is set back", () => {
    const cache = createStaleCache<string>({ maxEntries: 1, freshness: FRESHNESS });
    cache.write("k", "v", 10_000);
    expect(cache.read("k", 4_000)).toMatchObject({ phase: "fresh", ageMs: 0 });
  });
});

describe("the right to refresh", () => {
  test("is held by one at a time and can be given back", () => {
    const cache = createStaleCache<string>({ maxEntries: 2, freshness: FRESHNESS });
    cache.write("k", "v", 0);
    const lease = cache.claim("k", 100, 50);
    expect(lease).not.toBeNull();
    expect(cache.claim("k", 100, 50)).toBeNull();
    cache.release("k", lease ?? -1);
    expect(cache.claim("k", 100, 50)).not.toBeNull();
  });

  test("frees itself when its holder dies, and the late holder cannot give back another's", () => {
    const cache = createStaleCache<string>({ maxEntries: 2, freshness: FRESHNESS });
    cache.write("k", "v", 0);
    const dead = cache.claim("k", 100, 50);
    expect(cache.claim("k", 149, 50)).toBeNull();
    const next = cache.claim("k", 150, 50);
    expect(next).not.toBeNull();
    cache.release("k", dead ?? -1);
    expect(cache.claim("k", 151, 50)).toBeNull();
  });

  test("does not exist where nothing is cached", () => {
    expect(createStaleCache({ maxEntries: 1, freshness: FRESHNESS }).claim("k", 0, 50)).toBeNull();
  });
});

test.each([
  { freshMs: 10, revalidateMs: 9, staleMs: 10 },
  { freshMs: 10, revalidateMs: 10, staleMs: 9 },
  { refreshAheadMs: 11, freshMs: 10, revalidateMs: 10, staleMs: 10 },
  { refreshAheadMs: -1, freshMs: 10, revalidateMs: 10, staleMs: 10 },
])("ages that contradict each other are refused: %o", (freshness) => {
  expect(() => createStaleCache({ maxEntries: 1, freshness })).toThrow(RangeError);
});

const phaseAt = (ageMs: number) =>
  ageMs < 100 ? "fresh" : ageMs < 150 ? "revalidate" : ageMs < 1_000 ? "if-error" : "gone";

/** The plainest cache there can be: a list, the most recently used entry last. */
function createModel(maxEntries: number) {
  type Entry = { key: string; value: number; atMs: number; leaseUntilMs: number };
  let entries: Entry[] = [];
  const find = (key: string) => entries.find((entry) => entry.key === key);
  return {
    read(key: string, nowMs: number) {
      const entry = find(key);
      if (entry === undefined) return "gone";
      entries = entries.filter((other) => other !== entry);
      const found = phaseAt(Math.max(0, nowMs - entry.atMs));
      if (found === "gone") return "gone";
      entries.push(entry);
      return `${found} ${entry.value}`;
    },
    write(key: string, value: number, atMs: number) {
      const older = find(key);
      if (older !== undefined && older.atMs > atMs) return;
      entries = entries.filter((other) => other !== older);
      entries.push({ key, value, atMs, leaseUntilMs: -1 });
      entries = entries.slice(-maxEntries);
    },
    delete(key: string) {
      entries = entries.filter((entry) => entry.key !== key);
    },
    claim(key: string, nowMs: number) {
      const entry = find(key);
      if (entry === undefined || nowMs < entry.leaseUntilMs) return false;
      entry.leaseUntilMs = nowMs + 50;
      return true;
    },
    size: () => entries.length,
  };
}

const key = fc.constantFrom("a", "b", "c", "d");
const step = fc.oneof(
  fc.record({ do: fc.constant("read" as const), key }),
  fc.record({ do: fc.constant("write" as const), key, value: fc.nat(9), agoMs: fc.nat(200) }),
  fc.record({ do: fc.constant("delete" as const), key }),
  fc.record({ do: fc.constant("claim" as const), key }),
  fc.record({ do: fc.constant("pass" as const), byMs: fc.oneof(fc.nat(60), fc.nat(1_200)) }),
);

property.prop([fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 3 })])(
  "whatever happens to it, the cache answers like a plain list",
  (steps, maxEntries) => {
    const cache = createStaleCache<number>({ maxEntries, freshness: FRESHNESS });
    const model = createModel(maxEntries);
    let nowMs = 10_000;
    for (const taken of steps) {
      switch (taken.do) {
        case "pass":
          nowMs += taken.byMs;
          break;
        case "read": {
          const read = cache.read(taken.key, nowMs);
          const seen = read.phase === "gone" ? "gone" : `${read.phase} ${read.value}`;
          expect(seen).toBe(model.read(taken.key, nowMs));
          break;
        }
        case "write":
          cache.write(taken.key, taken.value, nowMs - taken.agoMs);
          model.write(taken.key, taken.value, nowMs - taken.agoMs);
          break;
        case "delete":
          cache.delete(taken.key);
          model.delete(taken.key);
          break;
        case "claim":
          expect(cache.claim(taken.key, nowMs, 50) !== null).toBe(model.claim(taken.key, nowMs));
          break;
      }
      expect(cache.size()).toBe(model.size());
      expect(cache.size()).toBeLessThanOrEqual(maxEntries);
    }
  },
);
