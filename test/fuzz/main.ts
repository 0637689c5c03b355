/** `npm run fuzz`: inputs of every kind that a stranger can send, and what has to hold for each. Ends with 1 when one breaks it. */
import { parseArgs } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { TARGETS } from "./all-targets.ts";
import { fuzzProgram, PROGRAM } from "./program-inputs.ts";
import { fuzz, type Outcome } from "./target.ts";

const MEBIBYTE = 1_048_576;
/** Of all inputs, how many go to the running program. */
const PROGRAM_RATIO = 0.03;
/** A parser keeps nothing, so what is held after a run is what was held before, and room for the collector. */
const GROWTH_MAX_BYTES = 64 * MEBIBYTE;

const { values } = parseArgs({
  options: {
    inputs: { type: "string", default: "220000" },
    only: { type: "string" },
    seed: { type: "string" },
    list: { type: "boolean", default: false },
  },
});
const inputs = Number(values.inputs);
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
const names = values.only?.split(",");
const chosen = TARGETS.filter(({ name }) => names === undefined || names.some((wanted) => name.includes(wanted)));
const withProgram = names === undefined || names.includes(PROGRAM);

if (values.list) for (const name of [...TARGETS.map(({ name: target }) => target), PROGRAM]) console.log(name);
else process.exit(await main());

async function main(): Promise<number> {
  if (chosen.length === 0 && !withProgram) throw new Error("no such target; --list says which there are");
  console.log(`seed ${seed} (again with --seed ${seed})`);
  const outcomes: Outcome[] = [];
  const weights = chosen.reduce((sum, { weight }) => sum + weight, 0);
  const pure = withProgram ? inputs * (1 - PROGRAM_RATIO) : inputs;
  collectGarbage();
  const before = process.memoryUsage().heapUsed;
  for (const target of chosen) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    outcomes.push(tell(await fuzz(target, Math.ceil((pure * target.weight) / weights), seed)));
  }
  collectGarbage();
  const grown = process.memoryUsage().heapUsed - before;
  console.log(
    `heap ${grown < 0 ? "" : "+"}${Math.round(grown / MEBIBYTE)} MiB after ${outcomes.reduce((sum, outcome) => sum + outcome.inputs, 0)} inputs`,
  );
  if (withProgram)
    for (const outcome of await fuzzProgram(Math.ceil(chosen.length === 0 ? inputs : inputs * PROGRAM_RATIO), seed))
      outcomes.push(tell(outcome));
  const broken = outcomes.filter(({ counterexample }) => counterexample !== null);
  console.log(`\n${outcomes.reduce((sum, outcome) => sum + outcome.inputs, 0)} inputs, ${broken.length} broken`);
  return broken.length > 0 || grown > GROWTH_MAX_BYTES ? 1 : 0;
}

/** Else what is measured is what nobody has cleared away yet. */
function collectGarbage(): void {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
}

function tell(outcome: Outcome): Outcome {
  const { name, inputs: tried, accepted, slowestMs, counterexample } = outcome;
  const share = `${((100 * accepted) / Math.max(1, tried)).toFixed(1).padStart(5)} % accepted`;
  console.log(
    `${counterexample === null ? "held  " : "BROKEN"}  ${String(tried).padStart(7)}  ${share}  slowest ${slowestMs.toFixed(0).padStart(4)} ms  ${name}`,
  );
  if (counterexample !== null)
    console.log(`        ${counterexample.why}\n        ${counterexample.input.slice(0, 2_000)}`);
  return outcome;
}
