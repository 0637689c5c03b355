/** What a connector has done since it began, and its numbers as OpenMetrics text. */
import type { Outcome } from "./message.ts";

/** Upper bounds of how long the program took, in seconds. */
const BUCKETS = [0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120] as const;

/** Counts; nothing of a message is kept. */
export type Counters = {
  /** @param tookMs how long the program took */
  count(kind: Outcome["kind"], tookMs: number): void;
  /** A message came that is here already. */
  repeated(): void;
  read(): { handled: number; refused: number; later: number; repeated: number };
  /** @param gauges further values by their full names, with what they are */
  openMetrics(gauges: Readonly<Record<string, { help: string; value: number }>>): string;
};

/** @returns counters at nought */
export function createCounters(): Counters {
  const outcomes = { handled: 0, refused: 0, later: 0 };
  let repeats = 0;
  const buckets = BUCKETS.map(() => 0);
  let took = 0;
  return {
    count(kind, tookMs) {
      outcomes[kind] += 1;
      took += tookMs / 1_000;
      for (const [index, bound] of BUCKETS.entries())
        if (tookMs / 1_000 <= bound) buckets[index] = (buckets[index] ?? 0) + 1;
    },
    repeated: () => void (repeats += 1),
    read: () => ({ ...outcomes, repeated: repeats }),
    openMetrics(gauges) {
      const total = outcomes.handled + outcomes.refused + outcomes.later;
      const lines = [
        "# TYPE sallyport_connect_messages counter",
        "# HELP sallyport_connect_messages Messages handed to the program, by what it made of them.",
        ...Object.entries(outcomes).map(
          ([kind, value]) => `sallyport_connect_messages_total{outcome="${kind}"} ${value}`,
        ),
        "# TYPE sallyport_connect_repeats counter",
        "# HELP sallyport_connect_repeats Messages that came again and were here already.",
        `sallyport_connect_repeats_total ${repeats}`,
        "# TYPE sallyport_connect_program_seconds histogram",
        "# UNIT sallyport_connect_program_seconds seconds",
        "# HELP sallyport_connect_program_seconds How long the program took for one message.",
        ...BUCKETS.map(
          (bound, index) => `sallyport_connect_program_seconds_bucket{le="${bound}"} ${buckets[index] ?? 0}`,
        ),
        `sallyport_connect_program_seconds_bucket{le="+Inf"} ${total}`,
        `sallyport_connect_program_seconds_count ${total}`,
        `sallyport_connect_program_seconds_sum ${took}`,
        ...Object.entries(gauges).flatMap(([name, { help, value }]) => [
          `# TYPE ${name} gauge`,
          `# HELP ${name} ${help}`,
          `${name} ${value}`,
        ]),
      ];
      return `${lines.join("\n")}\n# EOF\n`;
    },
  };
}
