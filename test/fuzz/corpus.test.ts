/** What fuzzing has found, and what it is known to try, tried again with every run of the tests. */
import { describe, expect, test } from "vitest";
import { TARGETS } from "./all-targets.ts";
import found from "./corpus/found.json" with { type: "json" };
import { fuzz } from "./target.ts";

describe("what fuzzing found", () => {
  test.each(found)("$target: $what", async ({ target: name, input }) => {
    const target = TARGETS.find((candidate) => candidate.name === name);
    expect(target).toBeDefined();
    await target?.holds(input as never);
  });
});

describe("fuzzing", () => {
  test.each(TARGETS.map((target) => [target.name, target] as const))(
    "%s hold for a few inputs",
    async (_name, target) => {
      const { counterexample } = await fuzz(target, 40, 1);
      expect(counterexample).toBeNull();
    },
  );

  test("tells what breaks", async () => {
    const [target] = TARGETS;
    if (target === undefined) throw new Error("there is no target");
    const outcome = await fuzz(
      {
        ...target,
        holds(input) {
          expect(String(input).length).toBeLessThan(3);
          return true;
        },
      },
      100,
      1,
    );
    expect(outcome.counterexample?.why).toContain("less than");
  });
});
