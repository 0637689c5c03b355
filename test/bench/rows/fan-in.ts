import { type Figure, figure, interleave, ratioFigure, type Row, SENDS_A_SECOND } from "../row.ts";
import { complaints } from "./hook-to-floor.ts";

const CONNECTIONS = [16];

/** Sixteen senders and one recipient, as a hub has them. */
const fanIn: Row = {
  name: "fan-in",
  about: "sixteen senders to one recipient, closed loop, everything delivered and acknowledged, beside the floor",
  async run(bench) {
    const [proxy, floor] = await Promise.all([bench.proxy(), bench.floor()]);
    const load = bench.load();
    await load.prepare({ senders: 16, recipients: 1, fan: 1, connect: true, url: proxy.url });
    const figures: Figure[] = [];
    const notes: string[] = [];
    for (const connections of CONNECTIONS) {
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
        figure(`fan-in ${at}, delivered`, "/s", delivered),
        ratioFigure(`fan-in to floor ${at}`, delivered, answered),
        figure(
          `fan-in ${at}, p50 of the 202`,
          "ms",
          runs.hook.map(({ latencyMs }) => latencyMs.p50),
        ),
        figure(
          `fan-in ${at}, p99 of the 202`,
          "ms",
          runs.hook.map(({ latencyMs }) => latencyMs.p99),
        ),
      );
      const hook = runs.hook.map((run) => ({ ...run, unsettled: [] }));
      notes.push(...complaints(`fan-in ${at}`, hook));
    }
    return { figures, notes };
  },
};

export default fanIn;
