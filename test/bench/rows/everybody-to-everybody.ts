import { figure, interleave, ratioFigure, type Row, SCENE, SENDS_A_SECOND } from "../row.ts";
import { complaints, type Figures } from "./hook-to-floor.ts";

const CONNECTIONS = 16;

/** The hardest mix for batches: no two messages of a sender in a row go to the same recipient. */
const everybodyToEverybody: Row = {
  name: "everybody-to-everybody",
  about: "the same with each of 16 senders writing to all 16 recipients in turn, at 16 connections",
  long: true,
  async run(bench) {
    const [proxy, floor] = await Promise.all([bench.proxy(), bench.floor()]);
    const load = bench.load();
    await load.prepare({ ...SCENE, fan: SCENE.recipients, url: proxy.url });
    const plan = { connections: CONNECTIONS, seconds: bench.seconds, expected: 202 };
    const { hook, base } = await interleave(
      bench.rounds,
      {
        hook: (): Promise<Figures> => load.run({ ...plan, url: proxy.url, deliver: true }),
        base: (): Promise<Figures> => load.run({ ...plan, url: floor.url, deliver: false }),
      },
      () => load.sign({ count: Math.ceil(bench.seconds * SENDS_A_SECOND) }),
    );
    const delivered = hook.map(({ deliveredPerSecond }) => deliveredPerSecond ?? 0);
    const answered = base.map(({ acceptedPerSecond }) => acceptedPerSecond);
    return {
      figures: [
        figure("floor", "/s", answered),
        figure("hook, delivered and acknowledged", "/s", delivered),
        ratioFigure("hook to floor", delivered, answered),
        figure(
          "hook, p50 of the 202",
          "ms",
          hook.map(({ latencyMs }) => latencyMs.p50),
        ),
      ],
      notes: complaints("hook", hook),
    };
  },
};

export default everybodyToEverybody;
