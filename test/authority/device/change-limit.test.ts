/** How often devices are changed: by holder, by agent, by day; the day outlasts an eviction. */
import { expect, test } from "vitest";
import {
  CHANGES_PER_AGENT_MAX,
  CHANGES_PER_DAY_MAX,
  CHANGES_PER_HOLDER_MAX,
  createChangeLimit,
} from "../../../src/authority/device/change-limit.ts";
import { onStorage } from "../../support/gate.ts";

const DAY_MS = 86_400_000;
const START_MS = 20_000 * DAY_MS;

test("changes: a holder has its share of a minute, and all of them together theirs", async () => {
  await onStorage((sql) => {
    const limit = createChangeLimit(sql);
    const made = (holder: string, nowMs: number): number => {
      let count = 0;
      while (limit.count(holder, nowMs) === 0) count += 1;
      return count;
    };
    expect(made("one", START_MS)).toBe(CHANGES_PER_HOLDER_MAX);
    expect(made("two", START_MS + 1)).toBe(CHANGES_PER_AGENT_MAX - CHANGES_PER_HOLDER_MAX);
    expect(made("three", START_MS + 1)).toBe(0);
    expect(limit.count("three", START_MS + 59_000)).toBe(1_000);
    expect(made("one", START_MS + 60_000)).toBe(CHANGES_PER_HOLDER_MAX);
  });
});

test("changes: a day has its bound, which an eviction does not reset", async () => {
  await onStorage((sql) => {
    let made = 0;
    for (let minute = 0; minute < 24 * 60; minute += 1) {
      // Anew each minute, as after an eviction.
      const limit = createChangeLimit(sql);
      for (const holder of ["one", "two"]) while (limit.count(holder, START_MS + minute * 60_000) === 0) made += 1;
    }
    expect(made).toBe(CHANGES_PER_DAY_MAX);
    expect(createChangeLimit(sql).count("one", START_MS + DAY_MS - 5_000)).toBe(5_000);
    expect(createChangeLimit(sql).count("one", START_MS + DAY_MS)).toBe(0);
  });
});
