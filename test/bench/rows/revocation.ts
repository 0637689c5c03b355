import { register } from "../../support/program/agents.ts";
import {
  asAgent,
  asOperator,
  callFrame,
  claimToken,
  type Device,
  type DeviceSocket,
  openSockets,
  pairDevice,
  type Rate,
  rateOf,
} from "../devices.ts";
import { figure, type Figure, interleave, ratioFigure, type Row } from "../row.ts";
import { quantile } from "../statistics.ts";

const SOCKETS = 100;
/** Frames of one socket are worked on in turn; so many wait, so that it is never idle. */
const WINDOW = 16;
/** Of either kind; each needs its sockets opened anew. */
const ROTATIONS = 6;

type Rotation = {
  answeredMs: number;
  /** From the request until the last of its sockets has closed. */
  closedMs: number;
  fenced: { sockets: number; inFlight: number };
  codes: number[];
};

const revocation: Row = {
  name: "revocation",
  about: `a device's token rotated under ${SOCKETS} open sockets with a call in flight on each, and calls over sockets`,
  long: true,
  async run(bench) {
    const { url } = await bench.proxy();
    const agent = await register(url, "agent");
    const device = await pairDevice(url, agent, ["relay", "tasks:read"]);
    const { task } = await asAgent<{ task: { taskId: string } }>(url, agent, "task/create", { agentDid: agent.did });
    // A call that waits for the database, and is therefore in flight for a while.
    const slow = callFrame("task/get", { taskId: task.taskId });
    const quick = callFrame("device.pair.list", {});

    const rotations = await interleave(ROTATIONS, {
      list: () => rotate(url, device, quick),
      get: () => rotate(url, device, slow),
    });

    const sockets = await openSockets(url, device, SOCKETS);
    const plan = { seconds: bench.seconds / 3, holding: '"ok":true' };
    const rates = await interleave(bench.rounds, {
      listOne: () => rateOf(sockets.slice(0, 1), { ...plan, window: WINDOW, frame: quick }),
      listAll: () => rateOf(sockets, { ...plan, window: 1, frame: quick }),
      getOne: () => rateOf(sockets.slice(0, 1), { ...plan, window: WINDOW, frame: slow }),
      getAll: () => rateOf(sockets, { ...plan, window: 1, frame: slow }),
    });
    for (const socket of sockets) socket.close();

    const perSecond = (of: readonly Rate[]): number[] => of.map((rate) => rate.perSecond);
    const refused = Object.values(rates)
      .flat()
      .reduce((sum, rate) => sum + rate.refused, 0);
    const codes = [...rotations.list, ...rotations.get]
      .flatMap((rotation) => rotation.codes)
      .filter((code) => code !== 4001);
    return {
      figures: [
        ...rotationFigures("device.pair.list", rotations.list),
        ...rotationFigures("task/get", rotations.get),
        figure("device.pair.list through one socket", "/s", perSecond(rates.listOne)),
        figure(`device.pair.list through ${SOCKETS}`, "/s", perSecond(rates.listAll)),
        ratioFigure("… to one", perSecond(rates.listAll), perSecond(rates.listOne)),
        figure("task/get through one socket", "/s", perSecond(rates.getOne)),
        figure(`task/get through ${SOCKETS}`, "/s", perSecond(rates.getAll)),
        ratioFigure("… to one", perSecond(rates.getAll), perSecond(rates.getOne)),
      ],
      notes: [
        ...(refused === 0 ? [] : [`${refused} calls were refused`]),
        ...(codes.length === 0 ? [] : [`sockets were closed with ${[...new Set(codes)].join(", ")}, not 4001`]),
      ],
    };
  },
};

function rotationFigures(method: string, of: readonly Rotation[]): Figure[] {
  const answeredMs = of.map((rotation) => rotation.answeredMs);
  return [
    figure(`rotate under ${method}, p50`, "ms", answeredMs),
    figure(`… p99 of ${of.length}`, "ms", [quantile(answeredMs, 0.99)]),
    figure(
      "… until the last socket was closed",
      "ms",
      of.map((rotation) => rotation.closedMs),
    ),
    figure(
      "… calls in the gate that it fenced",
      "",
      of.map((rotation) => rotation.fenced.inFlight),
    ),
  ];
}

/** Opens the sockets, keeps a call in flight on each, and rotates. */
async function rotate(url: string, device: Device, frame: string): Promise<Rotation> {
  const sockets = await openSockets(url, device, SOCKETS);
  await sockets[0]?.ask(frame);
  const calling = sockets.map((socket) => callUntilClosed(socket, frame));
  const beganAtMs = performance.now();
  const params = { agentDid: device.agent.did, deviceId: device.id };
  const { fenced } = await asOperator<Pick<Rotation, "fenced">>(url, "device.token.rotate", params);
  const answeredMs = performance.now() - beganAtMs;
  const codes = await Promise.all(sockets.map((socket) => socket.closed));
  const closedMs = performance.now() - beganAtMs;
  await Promise.all(calling);
  await claimToken(url, device);
  return { answeredMs, closedMs, fenced, codes };
}

async function callUntilClosed(socket: DeviceSocket, frame: string): Promise<void> {
  // oxlint-disable-next-line no-await-in-loop -- the next when the last is answered
  while ((await socket.ask(frame)) !== null);
}

export default revocation;
