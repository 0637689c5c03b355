/**
 * `npm run bench [-- --only NAME] [--quick]`: measures the built bundle and prints a table; the same as data goes to
 * `test/bench/results.json`. How it is measured stands in `docs/benchmarks.md`.
 */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { buildBundle, type Bundle } from "./bundle.ts";
import { startLoadProcess } from "./load-process.ts";
import { printResult } from "./report.ts";
import type { Bench, RatioName, Row, RowResult } from "./row.ts";
import { servePlain, serveProxy } from "./serve.ts";

const RESULTS = join(import.meta.dirname, "results.json");
const ROUNDS = 5;
const SECONDS = { full: 1.5, quick: 1 };

const { values } = parseArgs({
  options: { only: { type: "string", multiple: true }, quick: { type: "boolean", default: false } },
});
const rows = await readRows();
const unknown = values.only?.find((name) => rows.every((row) => row.name !== name));
if (unknown !== undefined) {
  console.error(`no row is called ${unknown}; there are ${rows.map(({ name }) => name).join(", ")}`);
  process.exit(2);
}
const chosen = rows.filter(({ name, long }) =>
  values.only === undefined ? !(values.quick && long === true) : values.only.includes(name),
);

let built: Promise<Bundle> | null = null;
const bundleDir = mkdtempSync(join(tmpdir(), "sallyport-bundle-"));
const startedAt = new Date();
const results: (RowResult & { name: string; about: string; tookSeconds: number })[] = [];
const failures: string[] = [];

for (const row of chosen) {
  const { bench, end } = openBench();
  const beganAtMs = performance.now();
  try {
    // oxlint-disable-next-line no-await-in-loop -- one row at a time
    const result = await row.run(bench);
    const rowSeconds = Math.round((performance.now() - beganAtMs) / 100) / 10;
    results.push({ name: row.name, about: row.about, tookSeconds: rowSeconds, ...result });
    printResult(row, result, rowSeconds);
  } catch (error) {
    // The other rows still count; the failure is told at the end and by the exit status.
    failures.push(row.name);
    console.error(`${row.name} failed:`, error);
  } finally {
    // oxlint-disable-next-line no-await-in-loop -- everything of a row is gone before the next
    await end();
  }
}
rmSync(bundleDir, { recursive: true, force: true });

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

function bundle(): Promise<Bundle> {
  return (built ??= buildBundle(bundleDir));
}

/** What one row works with, and how all that it started is ended. */
function openBench(): { bench: Bench; end: () => Promise<void> } {
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
    seconds: values.quick ? SECONDS.quick : SECONDS.full,
    bundle,
    proxy: async (settings, other) => keep(await serveProxy(other ?? (await bundle()), settings)),
    floor: async () => keep(await servePlain("floor.ts")),
    ceiling: async () => keep(await servePlain("ceiling.ts")),
    load: () => keep(startLoadProcess()),
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
