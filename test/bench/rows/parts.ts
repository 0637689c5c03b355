import { PROXY } from "../../support/program/bundle.ts";
import { figure, interleave, type Row, SCENE, SENDS_A_SECOND } from "../row.ts";
import type { RunFigures } from "../run.ts";

const WORKER = "test/bench/worker/instrumented.ts";
const CONNECTIONS = 16;
const SECONDS = 0.4;
/** An offline recipient's messages pile up by design; here the limits are not what is measured. */
const ROOM = { RELAY_OUTBOX_MAX: "10000", RELAY_QUEUE_MAX: "10000" };

const parts: Row = {
  name: "parts",
  about: "what the way through the harness costs, part by part, at 16 connections",
  long: true,
  builds: [PROXY, WORKER],
  async run(bench) {
    const [instrumented, offline, online] = await Promise.all([
      bench.proxy({}, await bench.bundle(WORKER)),
      bench.proxy(ROOM),
      bench.proxy(),
    ]);
    const [loads, lone] = [
      { chain: bench.load(), offline: bench.load(), online: bench.load() },
      { ...SCENE, connect: false },
    ];
    await Promise.all([
      loads.chain.prepare({ ...lone, url: instrumented.url }),
      loads.offline.prepare({ ...lone, url: offline.url }),
      loads.online.prepare({ ...SCENE, url: online.url }),
    ]);
    const plan = { connections: CONNECTIONS, seconds: SECONDS };
    const count = Math.ceil(plan.seconds * SENDS_A_SECOND);
    const rates = await interleave(
      bench.rounds,
      {
        bare: (): Promise<RunFigures> =>
          loads.online.same({ ...plan, url: online.url, path: "/health", expected: 200 }),
        chain: (): Promise<RunFigures> =>
          loads.chain.run({ ...plan, url: instrumented.url, expected: 202, deliver: false }),
        offline: (): Promise<RunFigures> =>
          loads.offline.run({ ...plan, url: offline.url, expected: 202, deliver: false }),
        online: (): Promise<RunFigures> =>
          loads.online.run({ ...plan, url: online.url, expected: 202, deliver: true, settle: false }),
      },
      () =>
        Promise.all([
          loads.chain.sign({ count: count * 2, path: "/bench/chain" }),
          loads.offline.sign({ count }),
          loads.online.sign({ count }),
        ]),
    );
    return {
      figures: [
        figure("bare route", "/s", accepted(rates.bare)),
        figure("chain without delivery", "/s", accepted(rates.chain)),
        figure("hook to an offline recipient", "/s", accepted(rates.offline)),
        figure(
          "hook to a connected one, acknowledged",
          "/s",
          rates.online.map(({ deliveredPerSecond }) => deliveredPerSecond ?? 0),
        ),
      ],
      notes: Object.entries(rates).flatMap(([name, runs]) => {
        const refused = runs.flatMap((run) => Object.entries(run.refused));
        return refused.length === 0
          ? []
          : [`${name}: ${refused.map(([status, times]) => `${times} × ${status}`).join(", ")}`];
      }),
    };
  },
};

export default parts;

function accepted(runs: readonly RunFigures[]): number[] {
  return runs.map(({ acceptedPerSecond }) => acceptedPerSecond);
}
