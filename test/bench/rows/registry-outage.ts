import { startRegistry, type RegistryMood, REGISTRY_ISSUER } from "../registry-server.ts";
import { figure, interleave, ratioFigure, type Row, SCENE, SENDS_A_SECOND } from "../row.ts";
import { pairedRatio } from "../statistics.ts";
import { complaints, deliveredRound, type Figures } from "./hook-to-floor.ts";

const CONNECTIONS = 16;
/** Short, so that every round needs the registry or does without it. */
const FRESH_MS = 5_000;
const MOODS: readonly RegistryMood[] = ["up", "down", "hanging"];

const registryOutage: Row = {
  name: "registry-outage",
  about: `the hook with an external registry up, down and hanging; validations are fresh for ${FRESH_MS / 1_000} s only`,
  long: true,
  async run(bench) {
    const scenes = await Promise.all(
      MOODS.map(async (mood) => {
        const registry = bench.keep(await startRegistry());
        const proxy = await bench.proxy({
          REGISTRY_URL: registry.url,
          REGISTRY_ISSUER,
          ACCESS_TTL_MS: String(FRESH_MS),
        });
        const load = bench.load();
        await load.prepare({ ...SCENE, url: proxy.url, registryUrl: registry.url });
        await load.sign({ count: SENDS_A_SECOND });
        await load.run({ url: proxy.url, connections: CONNECTIONS, seconds: 1, expected: 202, deliver: true });
        registry.become(mood);
        return { mood, registry, load, run: deliveredRound(bench, load, proxy.url, CONNECTIONS) };
      }),
    );
    for (const { registry } of scenes) registry.calls();
    let messages = 0;
    const counted = (mood: RegistryMood, run: () => Promise<Figures>) => async (): Promise<Figures> => {
      const figures = await run();
      if (mood === "up") messages += figures.accepted;
      return figures;
    };
    const count = Math.ceil(bench.seconds * SENDS_A_SECOND);
    const runs = await interleave(
      bench.rounds,
      Object.fromEntries(scenes.map(({ mood, run }) => [mood, counted(mood, run)])) as Record<
        RegistryMood,
        () => Promise<Figures>
      >,
      () => Promise.all(scenes.map(({ load }) => load.sign({ count }))),
    );
    const rates = (mood: RegistryMood): number[] => runs[mood].map(({ deliveredPerSecond }) => deliveredPerSecond ?? 0);
    const calls = scenes[0]?.registry.calls() ?? 0;
    return {
      figures: [
        ...MOODS.map((mood) => figure(`registry ${mood}`, "/s", rates(mood))),
        ratioFigure("down to up", rates("down"), rates("up"), "≥ 0.95"),
        ratioFigure("hanging to up", rates("hanging"), rates("up"), "≥ 0.95"),
        figure("calls to the registry while up", "per 1 000 messages", [(calls / messages) * 1_000], "≤ 20"),
      ],
      ratios: {
        registryDownToUp: pairedRatio(rates("down"), rates("up")).median,
        registryHangingToUp: pairedRatio(rates("hanging"), rates("up")).median,
      },
      notes: MOODS.flatMap((mood) => complaints(`registry ${mood}`, runs[mood])),
    };
  },
};

export default registryOutage;
