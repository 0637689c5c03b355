/** A short form of `npm run faults -- --only connector`. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../cli/program.ts";
import { check } from "../checker.ts";
import { createHistory } from "../history.ts";
import { createRandom } from "../random.ts";
import { connector } from "./connector.ts";

test("a connector, its program and the gate are killed in turn: nothing is lost, doubled or out of order, nor acknowledged that is on no disk", async () => {
  const history = createHistory(join(await temporaryFolder(), "history.jsonl"));
  const figures = await connector.run({ history, random: createRandom(7), kills: 9, say: () => undefined });
  await history.close();
  expect(check(history.events)).toEqual([]);
  for (const name of connector.needs) expect(figures[name], name).toBeGreaterThan(0);
});
