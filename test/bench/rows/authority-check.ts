import { register } from "../../support/program/agents.ts";
import type { Bundle } from "../../support/program/bundle.ts";
import { callFrame, type DeviceSocket, heartbeatFrame, openSockets, pairDevice, rateOf } from "../devices.ts";
import { type Bench, figure, interleave, ratioFigure, type Row } from "../row.ts";
import type { Served } from "../serve.ts";

const SOCKETS = 16;
const WINDOW = 8;
/** Very many, very short: the difference looked for is smaller than what disturbs a single one. */
const ROUNDS = 30;
const SECONDS = 0.08;
/** Before any counts, the compiler is done with both. */
const WARM_UP_SECONDS = 0.5;
/** The gate's one way to the check, as it stands in the bundle. */
const CHECK = "endReason(authorities, ref, Date.now())";
const HOLDING = { heartbeat: "heartbeat_ack", call: '"ok":true' };

type Scene = { served: Served; sockets: DeviceSocket[] };
type Round = { perSecond: number; answered: number; cpuMs: number | null };

const authorityCheck: Row = {
  name: "authority-check",
  about: `frames over ${SOCKETS} sockets beside the same build in which nobody's authority is ever looked at`,
  long: true,
  async run(bench) {
    const bundle = await bench.bundle();
    const [as, without] = await Promise.all([scene(bench, bundle), scene(bench, withoutCheck(bundle))]);
    const scenes = { as, without };
    const frames = { heartbeat: heartbeatFrame(), call: callFrame("device.pair.list", {}) };
    const round =
      ({ served, sockets }: Scene, kind: keyof typeof frames, seconds = SECONDS) =>
      async (): Promise<Round> => {
        const before = served.cpuMs();
        const { perSecond, answered, refused } = await rateOf(sockets, {
          window: WINDOW,
          seconds,
          frame: frames[kind],
          holding: HOLDING[kind],
        });
        if (refused > 0) throw new Error(`${refused} frames were refused`);
        const after = served.cpuMs();
        return { perSecond, answered, cpuMs: before === null || after === null ? null : after - before };
      };
    for (const kind of ["heartbeat", "call"] as const) {
      // oxlint-disable no-await-in-loop -- one after the other is the method
      await round(scenes.as, kind, WARM_UP_SECONDS)();
      await round(scenes.without, kind, WARM_UP_SECONDS)();
      // oxlint-enable no-await-in-loop
    }
    const rounds = await interleave(ROUNDS, {
      heartbeatAs: round(scenes.as, "heartbeat"),
      heartbeatWithout: round(scenes.without, "heartbeat"),
      callAs: round(scenes.as, "call"),
      callWithout: round(scenes.without, "call"),
    });
    return {
      figures: [
        ...compared("heartbeats", rounds.heartbeatAs, rounds.heartbeatWithout),
        ...compared("device.pair.list", rounds.callAs, rounds.callWithout),
      ],
    };
  },
};

function compared(what: string, as: readonly Round[], without: readonly Round[]) {
  const perSecond = (of: readonly Round[]): number[] => of.map((round) => round.perSecond);
  const figures = [
    figure(`${what} with the check`, "/s", perSecond(as)),
    figure(`${what} without it`, "/s", perSecond(without)),
    ratioFigure("… with to without", perSecond(as), perSecond(without), "≥ 0.95"),
  ];
  // Over all rounds: the system counts in hundredths of a second.
  const [cpuAs, cpuWithout] = [as, without].map(cpuMsOfFrame) as [number, number];
  if (Number.isNaN(cpuAs) || Number.isNaN(cpuWithout)) return figures;
  return [...figures, ratioFigure("… processor time a frame, with to without", [cpuAs], [cpuWithout])];
}

/** Not a number where the system does not tell. */
function cpuMsOfFrame(rounds: readonly Round[]): number {
  const used = rounds.reduce((sum, { cpuMs }) => sum + (cpuMs ?? Number.NaN), 0);
  return used / rounds.reduce((sum, { answered }) => sum + answered, 0);
}

async function scene(bench: Bench, bundle: Bundle): Promise<Scene> {
  const served = await bench.proxy({}, bundle);
  const agent = await register(served.url, "agent");
  const device = await pairDevice(served.url, agent, ["relay"]);
  return { served, sockets: await openSockets(served.url, device, SOCKETS) };
}

/** @throws when the check is not where it is known to be: then nothing was taken out */
function withoutCheck(bundle: Bundle): Bundle {
  let found = 0;
  const modules = bundle.modules.map((module) => {
    if (typeof module.contents !== "string") return module;
    const parts = module.contents.split(CHECK);
    found += parts.length - 1;
    return { ...module, contents: parts.join("null") };
  });
  if (found !== 1) throw new Error(`the authority check stands ${found} times in the bundle`);
  return { ...bundle, modules };
}

export default authorityCheck;
