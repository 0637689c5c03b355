/**
 * `npm run bench [-- --only NAME] [--quick]`: measures the built bundle and prints a table; the same as data goes to
 * `test/bench/results.json`. How it is measured stands in `docs/benchmarks.md`.
 */
import { readdirSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type BuiltWorker, type Bundle, buildWorker, PROXY } from "../support/program/bundle.ts";
import { startLoadProcess } from "./load-process.ts";
import { printResult } from "./report.ts";
import type { Bench, RatioName, Row, RowResult } from "./row.ts";
import { servePlain, serveProxy } from "./serve.ts";
import { type Pause, takeTurns } from "./turns.ts";

const RESULTS = join(import.meta.dirname, "results.json");
const ROUNDS = 5;
const SECONDS = 0.75;

const { values } = parseArgs({
  options: { only: { type: "string", multiple: true }, quick: { type: "boolean", default: false } },
});
const rows = await readRows();
const unknown = values.only?.find((name) => rows.every((row) => row.name !== name));
if (unknown !== undefined) {
  console.error(`no row is called ${unknown}; there are ${rows.map(({ name }) => name).join(", ")}`);
  process.exit(2);
}
const chosen = rows.filter(({ name, long, byNameOnly }) =>
  values.only === undefined ? byNameOnly !== true && !(values.quick && long === true) : values.only.includes(name),
);

const bundles = new Map<BuiltWorker, Promise<Bundle>>();
const startedAt = new Date();
const results: (RowResult & { name: string; about: string; tookSeconds: number })[] = [];
const failures: string[] = [];

// All at once and before anything is measured.
await Promise.all(chosen.flatMap(({ builds = [PROXY] }) => builds).map((worker) => bundle(worker)));
await takeTurns(chosen, runRow);

const ratios: Partial<Record<RatioName, number>> = Object.assign({}, ...results.map((result) => result.ratios ?? {}));
const tookSeconds = Math.round((Date.now() - startedAt.getTime()) / 1_000);
const machine = { processors: cpus().length, model: cpus()[0]?.model ?? "unknown", node: process.version };
const mode = { quick: values.quick, only: values.only ?? null };
writeFileSync(
  RESULTS,
  `${JSON.stringify({ at: startedAt.toISOString(), tookSeconds, ...mode, machine, ratios, rows: results, failures }, null, 2)}\n`,
);
console.log(`\n${tookSeconds} s; as data: test/bench/results.json`);
process.exit(failures.length === 0 ? 0 : 1);

async function runRow(row: Row, pause: Pause): Promise<void> {
  let pausedMs = 0;
  const beganAtMs = performance.now();
  const { bench, end } = openBench(async (atLeastMs) => {
    const pausedAtMs = performance.now();
    await pause(atLeastMs);
    pausedMs += performance.now() - pausedAtMs;
  });
  try {
    const result = await row.run(bench);
    const rowSeconds = Math.round((performance.now() - beganAtMs - pausedMs) / 100) / 10;
    results.push({ name: row.name, about: row.about, tookSeconds: rowSeconds, ...result });
    printResult(row, result, rowSeconds);
  } catch (error) {
    // The other rows still count; the failure is told at the end and by the exit status.
    failures.push(row.name);
    console.error(`${row.name} failed:`, error);
  } finally {
    await end();
  }
}

function bundle(worker: BuiltWorker): Promise<Bundle> {
  const known = bundles.get(worker) ?? buildWorker(worker);
  bundles.set(worker, known);
  return known;
}

/** What one row works with, and how all that it started is ended. */
function openBench(pause: Pause): { bench: Bench; end: () => Promise<void> } {
  const started: { stop(): Promise<void> }[] = [];
  const keep = <T extends { stop(): Promise<void> }>(one: T): T => {
    // Stopped once, whoever does it.
    const stop = one.stop.bind(one);
    let stopped: Promise<void> | null = null;
    one.stop = () => (stopped ??= stop());
    started.push(one);
    return one;
  };
  const bench: Bench = {
    quick: values.quick,
    rounds: ROUNDS,
    seconds: SECONDS,
    bundle: (worker = PROXY) => bundle(worker),
    proxy: async (settings, other) => keep(await serveProxy(other ?? (await bundle(PROXY)), settings)),
    floor: async () => keep(await servePlain("floor.ts")),
    ceiling: async () => keep(await servePlain("ceiling.ts")),
    load: () => keep(startLoadProcess()),
    pause,
    keep,
  };
  return {
    bench,
    async end() {
      await Promise.all(started.map((one) => one.stop()));
    },
  };
}

/** Every file in `rows/` is a row: a new one needs no list. */
async function readRows(): Promise<Row[]> {
  const files = readdirSync(join(import.meta.dirname, "rows")).filter((file) => file.endsWith(".ts"));
  const modules = await Promise.all(
    files.toSorted().map((file) => import(`./rows/${file}`) as Promise<{ default: Row }>),
  );
  return modules.map((module) => module.default);
}
