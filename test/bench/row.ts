/** What a row is: one file in `rows/`, which says what it measures and how, and gives figures. */
import type { BuiltWorker, Bundle } from "../support/program/bundle.ts";
import type { LoadProcess } from "./load-process.ts";
import type { Served } from "./serve.ts";
import type { Pause } from "./turns.ts";
import { pairedRatio, type Spread, spread } from "./statistics.ts";

/** The ratios that others rely on, by name. */
export type RatioName =
  | "hookToFloor4"
  | "hookToFloor16"
  | "hookToFloor64"
  | "registryDownToUp"
  | "registryHangingToUp"
  | "checkMillionToThousand"
  | "createToBareInsert"
  | "telemetryOnToOff";

export type Figure = Spread & { label: string; unit: string; goal?: string };

export type RowResult = { figures: Figure[]; ratios?: Partial<Record<RatioName, number>>; notes?: string[] };

export type Row = {
  name: string;
  /** One sentence: what is measured. */
  about: string;
  /** Left out by `--quick`. */
  long?: boolean;
  /** Run only when it is asked for by name. */
  byNameOnly?: boolean;
  /** The Workers that it measures, built before the first row; the proxy as it would be deployed by default. */
  builds?: readonly BuiltWorker[];
  run(bench: Bench): Promise<RowResult>;
};

/** What a row works with; everything it starts is ended for it. */
export type Bench = {
  quick: boolean;
  /** Rounds that count, at least five; one more goes before them as a warm-up. */
  rounds: number;
  /** Length of one round. */
  seconds: number;
  /** The proxy as it would be deployed, or a Worker of the bench's own; each is built once. */
  bundle(worker?: BuiltWorker): Promise<Bundle>;
  proxy(settings?: Record<string, string>, bundle?: Bundle): Promise<Served>;
  floor(): Promise<Served>;
  ceiling(): Promise<Served>;
  load(): LoadProcess;
  /** For a row that only waits: others go on meanwhile. */
  pause: Pause;
  /** Ended with the row. */
  keep<T extends { stop(): Promise<void> }>(started: T): T;
};

/** 16 senders, each with a recipient of its own that is connected and acknowledges. */
export const SCENE = { senders: 16, recipients: 16, fan: 1, connect: true } as const;
/** More requests a second than this machine answers; signed before the clock runs. */
export const SENDS_A_SECOND = 4_000;

export function figure(label: string, unit: string, values: readonly number[], goal?: string): Figure {
  return { label, unit, ...spread(values), ...(goal === undefined ? {} : { goal }) };
}

/** A ratio of what was measured side by side. */
export function ratioFigure(label: string, above: readonly number[], below: readonly number[], goal?: string): Figure {
  return { label, unit: "×", ...pairedRatio(above, below), ...(goal === undefined ? {} : { goal }) };
}

/**
 * Runs the subjects in turn, A B B A A B …, since what disturbs the machine then disturbs all of them; each round begins with
 * the next of them, so that none always runs in another's wake. A subject is told whether the round is the last. The first
 * round is a warm-up and is not counted.
 *
 * @param warmUps none for subjects that are warm already, or are to be cold
 * @returns for each subject what its counted rounds gave
 */
export async function interleave<Name extends string, T>(
  rounds: number,
  subjects: Record<Name, (isLast: boolean) => Promise<T>>,
  beforeRound: () => Promise<unknown> = async () => {},
  warmUps = 1,
): Promise<Record<Name, T[]>> {
  const names = Object.keys(subjects) as Name[];
  const results = Object.fromEntries(names.map((name) => [name, [] as T[]])) as Record<Name, T[]>;
  for (let round = 0; round < rounds + warmUps; round++) {
    // oxlint-disable no-await-in-loop -- one after the other is the method
    await beforeRound();
    const first = round % names.length;
    for (const name of [...names.slice(first), ...names.slice(0, first)]) {
      const result = await subjects[name](round === rounds + warmUps - 1);
      if (round >= warmUps) results[name].push(result);
    }
    // oxlint-enable no-await-in-loop
  }
  return results;
}
