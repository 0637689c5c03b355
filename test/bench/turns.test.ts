import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { type Pause, takeTurns } from "./turns.ts";

/** Runs rows of steps, a number being a pause, and tells what was done in which order. */
async function order(rows: Record<string, (string | number)[]>): Promise<string[]> {
  const done: string[] = [];
  let atWork = 0;
  const run = async (name: string, pause: Pause): Promise<void> => {
    atWork += 1;
    for (const step of rows[name] ?? []) {
      if (atWork !== 1) throw new Error("two rows at once");
      if (typeof step === "number") {
        atWork -= 1;
        // oxlint-disable-next-line no-await-in-loop -- in their order
        await pause(step);
        atWork += 1;
      } else {
        // oxlint-disable-next-line no-await-in-loop -- in their order
        await sleep(1);
        done.push(`${name} ${step}`);
      }
    }
    atWork -= 1;
  };
  await takeTurns(Object.keys(rows), run);
  return done;
}

describe("rows that take turns", () => {
  test.each<{ promise: string; rows: Record<string, (string | number)[]>; expected: string[] }>([
    { promise: "go one after the other", rows: { a: ["1", "2"], b: ["1"] }, expected: ["a 1", "a 2", "b 1"] },
    {
      promise: "come back before the next one where their time is up",
      rows: { a: ["1", 0, "2"], b: ["1", "2"], c: ["1"] },
      expected: ["a 1", "a 2", "b 1", "b 2", "c 1"],
    },
    {
      promise: "go on while one only waits, and wait for it when it alone is left, as often as it pauses",
      rows: { a: ["1", 30, "2", 30, "3"], b: ["1", "2"] },
      expected: ["a 1", "b 1", "b 2", "a 2", "a 3"],
    },
  ])("$promise", async ({ rows, expected }) => {
    expect(await order(rows)).toEqual(expected);
  });
});
