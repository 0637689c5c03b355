import { fsyncsMs } from "../disk.ts";
import type { RunFigures } from "../run.ts";
import {
  type Bench,
  type Figure,
  figure,
  interleave,
  ratioFigure,
  type RatioName,
  type Row,
  SCENE,
  SENDS_A_SECOND,
} from "../row.ts";
import type { Served } from "../serve.ts";
import { median, pairedRatio } from "../statistics.ts";

const LEVELS: { connections: number; ratio: RatioName }[] = [
  { connections: 4, ratio: "hookToFloor4" },
  { connections: 16, ratio: "hookToFloor16" },
  { connections: 64, ratio: "hookToFloor64" },
];
/** The same two hops and two commits as the floor's, without any wait, and everything else beside them. */
const GOAL = "≥ 1";
/** The only one that `--quick` looks at. */
const QUICK_LEVEL = 16;
const FSYNCS = 200;
/**
 * What each of the three answers before anything is counted. The hook has some twenty times the code of the others, and until
 * the compiler is done with it, it takes twice the processor time.
 */
const WARM_UP_MESSAGES = { full: 6_000, quick: 2_000 };
const WARM_UP_CONNECTIONS = 64;
const WARM_UP_SECONDS_MAX = 30;
/** What was accepted last comes within a few ticks of the hand-over; a backlog that takes longer has grown, and its figure is void. */
const DRAIN_MAX_MS = 1_000;

export type Figures = RunFigures & { unsettled: string[] };

/** The hook, everything delivered and acknowledged, beside the floor and the ceiling: same client, same signed requests, same minutes. */
export const hookToFloor: Row = {
  name: "hook-to-floor",
  about:
    "hook with everything delivered and acknowledged, beside the smallest Workers that keep its promise and half of it",
  async run(bench) {
    const [proxy, floor, ceiling] = await Promise.all([bench.proxy(), bench.floor(), bench.ceiling()]);
    const load = bench.load();
    await load.prepare({ ...SCENE, url: proxy.url });
    const figures: Figure[] = [];
    const ratios: Partial<Record<RatioName, number>> = {};
    const notes: string[] = [];
    await load.sign({ count: bench.quick ? WARM_UP_MESSAGES.quick : WARM_UP_MESSAGES.full });
    for (const { url } of [proxy, floor, ceiling]) {
      const plan = { url, connections: WARM_UP_CONNECTIONS, seconds: WARM_UP_SECONDS_MAX, expected: 202 };
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await load.run({ ...plan, deliver: url === proxy.url });
    }
    for (const { connections, ratio } of LEVELS) {
      if (bench.quick && connections !== QUICK_LEVEL) continue;
      const run = (served: Served, deliver: boolean) => () =>
        withCpu(served, () =>
          load.run({ url: served.url, connections, seconds: bench.seconds, expected: 202, deliver }),
        );
      // oxlint-disable-next-line no-await-in-loop -- one level after the other
      const runs = await interleave(
        bench.rounds,
        { floor: run(floor, false), hook: run(proxy, true), ceiling: run(ceiling, false) },
        () => load.sign({ count: Math.ceil(bench.seconds * SENDS_A_SECOND) }),
        0,
      );
      const delivered = runs.hook.map(({ deliveredPerSecond }) => deliveredPerSecond ?? 0);
      const answered = rates(runs.floor);
      const at = `at ${connections} connections`;
      const p50 = { hook: latencies(runs.hook, "p50"), floor: latencies(runs.floor, "p50") };
      figures.push(
        figure(`floor ${at}`, "/s", answered),
        figure(`hook ${at}, delivered and acknowledged`, "/s", delivered),
        figure(`ceiling ${at}`, "/s", rates(runs.ceiling)),
        ratioFigure(`hook to floor ${at}`, delivered, answered, GOAL),
        ratioFigure(`ceiling to floor ${at}`, rates(runs.ceiling), answered),
        figure(`floor ${at}, p50 of the 202`, "ms", p50.floor),
        figure(`hook ${at}, p50 of the 202`, "ms", p50.hook),
        figure(`hook ${at}, p99 of the 202`, "ms", latencies(runs.hook, "p99")),
        figure(`ceiling ${at}, p50 of the 202`, "ms", latencies(runs.ceiling, "p50")),
        ratioFigure(`p50, hook to floor ${at}`, p50.hook, p50.floor),
      );
      for (const [name, of] of Object.entries(runs)) {
        const cpuUs = cpuOf(of);
        if (cpuUs.length > 0) figures.push(figure(`${name} ${at}, processor time`, "µs a message", cpuUs));
        notes.push(...complaints(`${name} ${at}`, of));
      }
      ratios[ratio] = pairedRatio(delivered, answered).median;
    }
    figures.push(figure("one fsync of 4 KiB where the state is", "ms", fsyncsMs(proxy.stateDir, FSYNCS)));
    return { figures, ratios, notes };
  },
};

function rates(runs: readonly RunFigures[]): number[] {
  return runs.map(({ acceptedPerSecond }) => acceptedPerSecond);
}

function latencies(runs: readonly RunFigures[], which: "p50" | "p99"): number[] {
  return runs.map(({ latencyMs }) => latencyMs[which]);
}

export type WithCpu = Figures & { cpuUs: number | null };

/** A run and the processor time that the runtime used for each of its messages: it says more than a rate on a busy machine. */
async function withCpu(served: Served, run: () => Promise<Figures>): Promise<WithCpu> {
  const before = served.cpuMs();
  const figures = await run();
  const after = served.cpuMs();
  return {
    ...figures,
    cpuUs: before === null || after === null ? null : ((after - before) * 1_000) / figures.accepted,
  };
}

function cpuOf(runs: readonly WithCpu[]): number[] {
  return runs.map(({ cpuUs }) => cpuUs).filter((cpuUs) => cpuUs !== null);
}

/** What makes a figure void is said, not hidden. */
export function complaints(what: string, runs: readonly Figures[]): string[] {
  const sum = (of: (run: Figures) => number): number => runs.reduce((total, run) => total + of(run), 0);
  const found: string[] = [];
  const refused = sum((run) => Object.values(run.refused).reduce((total, count) => total + count, 0));
  const statuses = [...new Set(runs.flatMap((run) => Object.keys(run.refused)))].join(", ");
  if (refused > 0) found.push(`${what}: ${refused} requests answered with ${statuses}`);
  if (runs.some(({ ranOut }) => ranOut)) found.push(`${what}: the client ran out of signed requests`);
  for (const word of ["lost", "doubled", "disordered"] as const) {
    const count = sum((run) => run[word]);
    if (count > 0) found.push(`${what}: ${count} messages ${word}`);
  }
  const unsettled = sum((run) => run.unsettled.length);
  if (unsettled > 0) found.push(`${what}: ${unsettled} messages never reported to their sender's gate`);
  const drainMs = median(runs.map((run) => run.drainMs));
  if (drainMs > DRAIN_MAX_MS) found.push(`${what}: VOID, a backlog of ${drainMs.toFixed(0)} ms is left behind`);
  return found;
}

/**
 * A round of sends to the proxy, everything delivered.
 *
 * @returns waits in the last round until the senders' gates have been notified of everything; in between that costs both sides alike
 */
export function deliveredRound(
  bench: Bench,
  load: ReturnType<Bench["load"]>,
  served: Served,
  connections: number,
): (isLast: boolean) => Promise<WithCpu> {
  const plan = { url: served.url, connections, seconds: bench.seconds, expected: 202, deliver: true };
  return (isLast) => withCpu(served, () => load.run({ ...plan, settle: isLast }));
}

/** Processor time says more than a rate where the difference looked for is smaller than what disturbs a round. */
export function cpuRatio(label: string, above: readonly WithCpu[], below: readonly WithCpu[]): Figure[] {
  const [cpuAbove, cpuBelow] = [cpuOf(above), cpuOf(below)];
  return cpuAbove.length === 0 ? [] : [ratioFigure(`${label}, processor time a message`, cpuAbove, cpuBelow)];
}

export default hookToFloor;
