import { hanging, resetting } from "../../support/program/registry-faults.ts";
import {
  type Fault,
  REGISTRY_ISSUER,
  type RegistryServer,
  startRegistry,
} from "../../support/program/registry-server.ts";
import { type Bench, figure, interleave, ratioFigure, type Row, SCENE, SENDS_A_SECOND } from "../row.ts";
import { pairedRatio } from "../statistics.ts";
import { complaints, cpuRatio, deliveredRound, type WithCpu } from "./hook-to-floor.ts";

const CONNECTIONS = 16;
/** Short, so that every round needs the registry or does without it. */
const FRESH_MS = 5_000;
/** Without a pause, so that validations expire under load and not between rounds; longer than they are fresh. */
const STEADY_SECONDS = 8;
const FAULTS = { up: null, down: resetting, hanging } satisfies Record<string, Fault | null>;
type RegistryMood = keyof typeof FAULTS;
const MOODS = Object.keys(FAULTS) as RegistryMood[];

const callsOf = ({ calls }: RegistryServer): number => calls.keys + calls.crl + calls.access;

/** A registry as the bench keeps it. */
async function newRegistry(): Promise<RegistryServer & { stop(): Promise<void> }> {
  const registry = await startRegistry();
  return { ...registry, stop: () => registry.down() };
}

const registryOutage: Row = {
  name: "registry-outage",
  about: `the hook with an external registry up, down and hanging; validations are fresh for ${FRESH_MS / 1_000} s only`,
  long: true,
  async run(bench) {
    const scenes = await Promise.all(
      MOODS.map(async (mood) => {
        const registry = bench.keep(await newRegistry());
        const proxy = await bench.proxy({
          REGISTRY_URL: registry.url,
          REGISTRY_ISSUER,
          ACCESS_TTL_MS: String(FRESH_MS),
        });
        const load = bench.load();
        await load.prepare({ ...SCENE, url: proxy.url, registryUrl: registry.url });
        await load.sign({ count: SENDS_A_SECOND });
        await load.run({ url: proxy.url, connections: CONNECTIONS, seconds: 1, expected: 202, deliver: true });
        registry.fail(FAULTS[mood]);
        return { mood, registry, load, url: proxy.url, run: deliveredRound(bench, load, proxy, CONNECTIONS) };
      }),
    );
    const count = Math.ceil(bench.seconds * SENDS_A_SECOND);
    const runs = await interleave(
      bench.rounds,
      Object.fromEntries(scenes.map(({ mood, run }) => [mood, run])) as Record<
        RegistryMood,
        (isLast: boolean) => Promise<WithCpu>
      >,
      () => Promise.all(scenes.map(({ load }) => load.sign({ count }))),
      // Each has had a run of its own already.
      0,
    );
    const rates = (mood: RegistryMood): number[] => runs[mood].map(({ deliveredPerSecond }) => deliveredPerSecond ?? 0);
    const perThousand = await callsPerThousand(scenes.find(({ mood }) => mood === "up"));
    return {
      figures: [
        ...MOODS.map((mood) => figure(`registry ${mood}`, "/s", rates(mood))),
        ratioFigure("down to up", rates("down"), rates("up"), "≥ 0.95"),
        ratioFigure("hanging to up", rates("hanging"), rates("up"), "≥ 0.95"),
        ...cpuRatio("down to up", runs.down, runs.up),
        ...cpuRatio("hanging to up", runs.hanging, runs.up),
        figure("calls to the registry while up, under steady load", "per 1 000 messages", [perThousand], "≤ 20"),
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

type Scene = {
  registry: RegistryServer;
  load: ReturnType<Bench["load"]>;
  url: string;
};

/** Counted with validations fresh for a twelfth of their usual time, so it is twelve times less by the default. */
async function callsPerThousand(scene: Scene | undefined): Promise<number> {
  if (scene === undefined) throw new Error("nobody is up");
  const { registry, load, url } = scene;
  await load.sign({ count: STEADY_SECONDS * SENDS_A_SECOND });
  registry.forgetCalls();
  const { accepted } = await load.run({
    url,
    connections: CONNECTIONS,
    seconds: STEADY_SECONDS,
    expected: 202,
    deliver: true,
  });
  return (callsOf(registry) / accepted) * 1_000;
}
