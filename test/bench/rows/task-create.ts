import { figure, interleave, ratioFigure, type Row, SCENE, SENDS_A_SECOND } from "../row.ts";
import type { RunFigures } from "../run.ts";
import { pairedRatio } from "../statistics.ts";

const CONNECTIONS = 16;
/** The same program writing the task's row and nothing else. */
const ROW_ALONE = { FGAC_TASKS_DUAL_WRITE: "off", FGAC_AGENT_API_KEYS_DUAL_WRITE: "off", FGAC_ENFORCE: "off" };

const taskCreate: Row = {
  name: "task-create",
  about: "task/create with creators and tuples beside the same call writing the bare row, at 16 connections",
  long: true,
  async run(bench) {
    const [dual, alone] = await Promise.all([bench.proxy(), bench.proxy(ROW_ALONE)]);
    const scenes = {
      full: { proxy: dual, load: bench.load() },
      bare: { proxy: alone, load: bench.load() },
    };
    for (const { proxy, load } of Object.values(scenes)) {
      // oxlint-disable-next-line no-await-in-loop -- setting up is not to be a burst
      await load.prepare({ ...SCENE, connect: false, url: proxy.url });
    }
    const plan = {
      connections: CONNECTIONS,
      seconds: bench.seconds,
      expected: 200,
      holding: '"result"',
      deliver: false,
    };
    const order = { count: Math.ceil(bench.seconds * SENDS_A_SECOND), call: "task/create" };
    const { full, bare } = await interleave(
      bench.rounds,
      {
        full: (): Promise<RunFigures> => scenes.full.load.run({ ...plan, url: scenes.full.proxy.url }),
        bare: (): Promise<RunFigures> => scenes.bare.load.run({ ...plan, url: scenes.bare.proxy.url }),
      },
      () => Promise.all([scenes.full.load.sign(order), scenes.bare.load.sign(order)]),
    );
    const rates = [full, bare].map((runs) => runs.map(({ acceptedPerSecond }) => acceptedPerSecond)) as [
      number[],
      number[],
    ];
    const refused = [...full, ...bare].flatMap((run) => Object.entries(run.refused));
    return {
      figures: [
        figure("with creators and tuples", "/s", rates[0]),
        figure("bare row", "/s", rates[1]),
        ratioFigure("create to bare insert", ...rates, "≥ 0.8"),
      ],
      ratios: { createToBareInsert: pairedRatio(...rates).median },
      notes: refused.map(([status, count]) => `${count} answers of ${status} were no result`),
    };
  },
};

export default taskCreate;
