/** Whoever reads a log line finds its event in docs/operations.md, with the levels that it comes with; and nothing that is gone. */
import { describe, expect, test } from "vitest";
import document from "../../docs/operations.md?raw";

const sources = import.meta.glob<string>("../../src/**/*.ts", { query: "?raw", import: "default", eager: true });

const logged = new Map<string, Set<string>>();
for (const [path, source] of Object.entries(sources)) {
  if (path.includes("/src/client/") || path.includes("/src/cli/")) continue;
  for (const [, level = "", event = ""] of source.matchAll(/\.\s*(info|warn|error)\(\s*"([a-z]+(?:[._][a-z]+)+)"/g)) {
    logged.set(event, (logged.get(event) ?? new Set()).add(level));
  }
}

const documented = new Map<string, Set<string>>();
for (const [, event = "", levels = ""] of document.matchAll(
  /^\| `([a-z._]+)` +\| ((?:info|warn|error|, | or )+) *\|/gm,
)) {
  documented.set(event, new Set(levels.split(/, | or /)));
}

const listOf = (events: Map<string, Set<string>>): string[] =>
  [...events].map(([event, levels]) => `${event}: ${[...levels].toSorted().join(", ")}`).toSorted();

describe("docs/operations.md", () => {
  test("explains every event that is logged, at its levels, and no other", () => {
    expect(logged.size).toBeGreaterThan(40);
    expect(listOf(documented)).toEqual(listOf(logged));
  });
});
