import { figure, interleave, ratioFigure, type Row, SCENE, SENDS_A_SECOND } from "../row.ts";
import { pairedRatio } from "../statistics.ts";
import { complaints, cpuRatio, deliveredRound } from "./hook-to-floor.ts";

const CONNECTIONS = 16;

const telemetry: Row = {
  name: "telemetry",
  about: "the hook with its counters on and off, at 16 connections",
  long: true,
  async run(bench) {
    const [withNumbers, without] = await Promise.all([bench.proxy({ METRICS: "on" }), bench.proxy({ METRICS: "off" })]);
    const scenes = {
      on: { proxy: withNumbers, load: bench.load() },
      off: { proxy: without, load: bench.load() },
    };
    for (const { proxy, load } of Object.values(scenes)) {
      // oxlint-disable-next-line no-await-in-loop -- setting up is not to be a burst
      await load.prepare({ ...SCENE, url: proxy.url });
    }
    const count = Math.ceil(bench.seconds * SENDS_A_SECOND);
    const { on, off } = await interleave(
      bench.rounds + 2,
      {
        on: deliveredRound(bench, scenes.on.load, scenes.on.proxy, CONNECTIONS),
        off: deliveredRound(bench, scenes.off.load, scenes.off.proxy, CONNECTIONS),
      },
      () => Promise.all([scenes.on.load.sign({ count }), scenes.off.load.sign({ count })]),
    );
    const rates = [on, off].map((runs) => runs.map(({ deliveredPerSecond }) => deliveredPerSecond ?? 0)) as [
      number[],
      number[],
    ];
    return {
      figures: [
        figure("on", "/s", rates[0]),
        figure("off", "/s", rates[1]),
        ratioFigure("on to off", ...rates, "≥ 0.97"),
        ...cpuRatio("on to off", on, off),
      ],
      ratios: { telemetryOnToOff: pairedRatio(...rates).median },
      notes: [...complaints("on", on), ...complaints("off", off)],
    };
  },
};

export default telemetry;
