/** `npm run faults`: breaks the real program on purpose and counts broken promises. Ends with 1 when there is one. */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { check, type Finding, PROMISES, type PromiseName, tally } from "./checker.ts";
import { createHistory } from "./history.ts";
import { createRandom } from "./random.ts";
import { clock } from "./scenarios/clock.ts";
import { connector } from "./scenarios/connector.ts";
import { database } from "./scenarios/database.ts";
import { diskFull } from "./scenarios/disk-full.ts";
import { groups } from "./scenarios/groups.ts";
import { hostileNeighbours } from "./scenarios/hostile-neighbours.ts";
import { kills } from "./scenarios/kills.ts";
import { programs } from "./scenarios/programs.ts";
import { registry } from "./scenarios/registry.ts";
import type { Scenario } from "./scenarios/scenario.ts";
import { sockets } from "./scenarios/sockets.ts";

const SCENARIOS: readonly Scenario[] = [
  kills,
  groups,
  programs,
  connector,
  sockets,
  clock,
  database,
  registry,
  diskFull,
  hostileNeighbours,
];

const { values } = parseArgs({
  options: {
    kills: { type: "string", default: "200" },
    only: { type: "string" },
    seed: { type: "string" },
    list: { type: "boolean", default: false },
  },
});
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32));
const chosen = SCENARIOS.filter(({ name }) => values.only === undefined || values.only.split(",").includes(name));
if (values.list) for (const { name, does } of SCENARIOS) console.log(`${name.padEnd(12)}${does}`);
else await main();

async function main(): Promise<void> {
  if (chosen.length === 0)
    throw new Error(`no such scenario; there are ${SCENARIOS.map(({ name }) => name).join(", ")}`);
  const folder = mkdtempSync(join(tmpdir(), "sallyport-faults-"));
  console.log(`seed ${seed} (again with --seed ${seed}); histories in ${folder}`);
  const all: Finding[] = [];
  const skipped: string[] = [];
  const vacuous: string[] = [];
  for (const scenario of chosen) {
    console.log(`\n${scenario.name}: ${scenario.does}`);
    const history = createHistory(join(folder, `${scenario.name}.jsonl`));
    const startedAtMs = performance.now();
    // oxlint-disable no-await-in-loop -- one program at a time
    const figures = await scenario.run({
      history,
      random: createRandom(seed),
      kills: Number(values.kills),
      say: (line) => console.log(`  ${Math.round((performance.now() - startedAtMs) / 1_000)} s  ${line}`),
    });
    await history.close();
    // oxlint-enable no-await-in-loop
    const idle = "cannot" in figures ? [] : scenario.needs.filter((name) => !(Number(figures[name]) > 0));
    for (const name of idle) vacuous.push(`${scenario.name}: ${name} is ${figures[name]}`);
    if ("cannot" in figures) skipped.push(`${scenario.name}: ${figures["cannot"]}`);
    const findings = check(history.events);
    all.push(...findings);
    console.log(
      `  ${Object.entries(figures)
        .map(([name, figure]) => `${name} ${figure}`)
        .join(", ")}; ${Math.round((performance.now() - startedAtMs) / 1_000)} s`,
    );
    for (const { promise, detail } of findings.slice(0, 20)) console.log(`  BROKEN ${promise}: ${detail}`);
  }

  console.log("");
  for (const [name, times] of Object.entries(tally(all)))
    console.log(`${String(times).padStart(6)}  ${PROMISES[name as PromiseName]}`);
  for (const reason of skipped) console.log(`not run: ${reason}`);
  for (const reason of vacuous) console.log(`proves nothing: ${reason}`);
  process.exit(all.length === 0 && vacuous.length === 0 ? 0 : 1);
}
