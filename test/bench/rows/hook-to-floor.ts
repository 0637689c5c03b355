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

const LEVELS: { connections: number; ratio: RatioName; goal: number }[] = [
  { connections: 4, ratio: "hookToFloor4", goal: 1.3 },
  { connections: 16, ratio: "hookToFloor16", goal: 1.6 },
  { connections: 64, ratio: "hookToFloor64", goal: 2 },
];
const LATENCY_GOAL = 0.75;
/** What was accepted last comes within a few ticks of the hand-over; a backlog that takes longer has grown, and its figure is void. */
const DRAIN_MAX_MS = 1_000;

export type Figures = RunFigures & { unsettled: string[] };

/** The hook, everything delivered and acknowledged, beside the floor: same client, same signed requests, same minutes. */
export const hookToFloor: Row = {
  name: "hook-to-floor",
  about: "hook with everything delivered and acknowledged, beside the smallest Worker that keeps the same promise",
  async run(bench) {
    const [proxy, floor] = [await bench.proxy(), await bench.floor()];
    const load = bench.load();
    await load.prepare({ ...SCENE, url: proxy.url });
    const figures: Figure[] = [];
    const ratios: Partial<Record<RatioName, number>> = {};
    const notes: string[] = [];
    for (const { connections, ratio, goal } of LEVELS) {
      const plan = { connections, seconds: bench.seconds, expected: 202 };
      // oxlint-disable-next-line no-await-in-loop -- one level after the other
      const { hook, base } = await interleave(
        bench.rounds,
        {
          hook: () => withCpu(proxy, () => load.run({ ...plan, url: proxy.url, deliver: true })),
          base: () => withCpu(floor, () => load.run({ ...plan, url: floor.url, deliver: false })),
        },
        () => load.sign({ count: Math.ceil(bench.seconds * SENDS_A_SECOND) }),
      );
      const delivered = hook.map(({ deliveredPerSecond }) => deliveredPerSecond ?? 0);
      const answered = base.map(({ acceptedPerSecond }) => acceptedPerSecond);
      const p50 = {
        hook: hook.map(({ latencyMs }) => latencyMs.p50),
        base: base.map(({ latencyMs }) => latencyMs.p50),
      };
      const at = `at ${connections} connections`;
      figures.push(
        figure(`floor ${at}`, "/s", answered),
        figure(`hook ${at}, delivered and acknowledged`, "/s", delivered),
        ratioFigure(`hook to floor ${at}`, delivered, answered, `≥ ${goal}`),
        figure(`floor ${at}, p50 of the 202`, "ms", p50.base),
        figure(`hook ${at}, p50 of the 202`, "ms", p50.hook),
        figure(
          `hook ${at}, p99 of the 202`,
          "ms",
          hook.map(({ latencyMs }) => latencyMs.p99),
        ),
        ratioFigure(
          `p50, hook to floor ${at}`,
          p50.hook,
          p50.base,
          ...(connections === 16 ? [`≤ ${LATENCY_GOAL}`] : []),
        ),
      );
      const cpu = { hook: cpuOf(hook), base: cpuOf(base) };
      if (cpu.hook.length > 0) {
        figures.push(
          figure(`floor ${at}, processor time`, "µs a message", cpu.base),
          figure(`hook ${at}, processor time`, "µs a message", cpu.hook),
        );
      }
      ratios[ratio] = pairedRatio(delivered, answered).median;
      notes.push(...complaints(`hook ${at}`, hook), ...complaints(`floor ${at}`, base));
    }
    return { figures, ratios, notes };
  },
};

type WithCpu = Figures & { cpuUs: number | null };

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

/** A round of sends to the proxy, everything delivered. */
export function deliveredRound(
  bench: Bench,
  load: ReturnType<Bench["load"]>,
  url: string,
  connections: number,
): () => Promise<Figures> {
  return () => load.run({ url, connections, seconds: bench.seconds, expected: 202, deliver: true });
}

export default hookToFloor;
