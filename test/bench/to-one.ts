import { type Figure, figure, interleave, ratioFigure, type Row, SENDS_A_SECOND } from "./row.ts";
import { complaints } from "./rows/hook-to-floor.ts";

/** Who sends to the one recipient, and how it is measured. */
export type ToOne = {
  readonly name: string;
  readonly about: string;
  /** Begins each figure. */
  readonly title: string;
  readonly senders: number;
  readonly connectionCounts: readonly number[];
};

/** @returns what one recipient is delivered, closed loop, beside the floor, and whether a send is ever refused */
export function toOneRow({ name, about, title, senders, connectionCounts }: ToOne): Row {
  return {
    name,
    about,
    async run(bench) {
      const [proxy, floor] = await Promise.all([bench.proxy(), bench.floor()]);
      const load = bench.load();
      await load.prepare({ senders, recipients: 1, fan: 1, connect: true, url: proxy.url });
      const figures: Figure[] = [];
      const notes: string[] = [];
      for (const connections of connectionCounts) {
        const plan = { connections, seconds: bench.seconds, expected: 202, settle: false };
        // oxlint-disable-next-line no-await-in-loop -- one level after the other
        const runs = await interleave(
          bench.rounds,
          {
            floor: () => load.run({ ...plan, url: floor.url, deliver: false }),
            hook: () => load.run({ ...plan, url: proxy.url, deliver: true }),
          },
          () => load.sign({ count: Math.ceil(bench.seconds * SENDS_A_SECOND) }),
        );
        const delivered = runs.hook.map(({ deliveredPerSecond }) => deliveredPerSecond ?? 0);
        const answered = runs.floor.map(({ acceptedPerSecond }) => acceptedPerSecond);
        const at = `at ${connections} ${connections === 1 ? "connection" : "connections"}`;
        figures.push(
          figure(`${title} ${at}, delivered`, "/s", delivered),
          ratioFigure(`${title} to floor ${at}`, delivered, answered),
          figure(
            `${title} ${at}, p50 of the 202`,
            "ms",
            runs.hook.map(({ latencyMs }) => latencyMs.p50),
          ),
          figure(
            `${title} ${at}, p99 of the 202`,
            "ms",
            runs.hook.map(({ latencyMs }) => latencyMs.p99),
          ),
        );
        const hook = runs.hook.map((run) => ({ ...run, unsettled: [] }));
        notes.push(...complaints(`${title} ${at}`, hook));
      }
      return { figures, notes };
    },
  };
}
