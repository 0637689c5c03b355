import { newKey, OPERATOR_TOKEN } from "../../support/program/agents.ts";
import { callFrame } from "../devices.ts";
import { grow, type Grown, type Sizes } from "../grown.ts";
import { figure, type Figure, interleave, ratioFigure, type Row } from "../row.ts";
import { requestBytes, signGet } from "../traffic.ts";

const WORKER = "test/bench/worker/grown.ts";
/** Everything grows at once, one proxy a step; each dimension is looked at by what would feel it. */
const STEPS: readonly Sizes[] = [
  { agents: 10, nonces: 1, queues: { gates: 8, each: 1 }, revocations: 0, pairs: 0, sockets: 1 },
  { agents: 100, nonces: 100, queues: { gates: 8, each: 10 }, revocations: 1_000, pairs: 10_000, sockets: 10 },
  { agents: 1_000, nonces: 10_000, queues: { gates: 8, each: 100 }, revocations: 10_000, pairs: 100_000, sockets: 100 },
  {
    agents: 10_000,
    nonces: 1_000_000,
    queues: { gates: 1_000, each: 100 },
    revocations: 100_000,
    pairs: 1_000_000,
    sockets: 500,
  },
];
const GOAL = "≤ 1.3";
const ROUNDS = 5;
/** Gates that take messages over in turn, so that none grows by much meanwhile. */
const GATES_USED = 8;
const LOOK_UPS = 10;

type Dimension = {
  /** What is in place. */
  of: (sizes: Sizes) => string;
  /** What is done, and how often in a round. */
  what: string;
  times: number;
  /** Does it once. */
  once: (grown: Grown, turn: number) => Promise<unknown>;
  /** By what the cost is divided, for work whose very amount is the dimension; a step at which this is 0 is left out. */
  per?: (sizes: Sizes) => number;
  unit?: string;
};

const DIMENSIONS: readonly Dimension[] = [
  {
    of: ({ agents }) => `${agents} agents`,
    what: "registration of an agent and its first request",
    times: 6,
    once: firstRequest,
  },
  {
    of: ({ nonces }) => `${nonces} nonces in the gate`,
    what: "a signed request",
    times: 20,
    once: ({ send, writer }) => send(signGet(writer, NO_DELIVERY)),
  },
  {
    of: ({ queues: { gates, each } }) => `${gates * each} messages waiting in ${gates} gates`,
    what: "one message more, taken over by a gate",
    times: 16,
    once: ({ order }, turn) => order("receive", { gate: turn % GATES_USED }),
  },
  {
    of: ({ revocations }) => `${revocations} revocations`,
    what: "a signed request",
    times: 20,
    once: ({ send, reader }) => send(signGet(reader, NO_DELIVERY)),
  },
  {
    of: ({ revocations }) => `${revocations} revocations`,
    what: "the list of them, fetched, verified and read",
    times: 1,
    once: ({ order }) => order("list", {}),
    per: ({ revocations }) => revocations,
    unit: "µs an entry",
  },
  {
    of: ({ pairs }) => `${pairs} trust pairs`,
    what: `${LOOK_UPS} look-ups of trust in the store`,
    times: 6,
    once: ({ order, writer, reader }) => order("trust", { a: writer.did, b: reader.did, times: LOOK_UPS }),
  },
  {
    of: ({ sockets }) => `${sockets} sockets of one gate`,
    what: "a message, until a socket holds it",
    times: 10,
    once: ({ order, reader, delivered }) => Promise.all([delivered(), order("notify", { did: reader.did })]),
  },
  {
    of: ({ sockets }) => `${sockets} sockets of one gate`,
    what: "a call over one of them",
    times: 40,
    once: async ({ sockets }) => answered(await sockets[0]?.ask(LIST)),
  },
];

const NO_DELIVERY = "/v1/deliveries/01K00000000000000000000000";
const LIST = callFrame("device.pair.list", {});

const growth: Row = {
  name: "growth",
  about: "how cost grows with what is in place, each step beside the one before it",
  long: true,
  builds: [WORKER],
  async run(bench) {
    const bundle = await bench.bundle(WORKER);
    const grown = await Promise.all(STEPS.map((sizes) => grow(bench, bundle, sizes)));
    const figures: Figure[] = [];
    for (const dimension of DIMENSIONS) {
      const { of, what, unit = "µs", per } = dimension;
      const steps = grown.filter(({ sizes }) => per?.(sizes) !== 0);
      const rounds = Object.fromEntries(steps.map((at) => [of(at.sizes), () => costUs(at, dimension)]));
      // oxlint-disable-next-line no-await-in-loop -- one dimension after the other
      figures.push(...compared(what, unit, await interleave(ROUNDS, rounds)));
    }
    for (const { sockets } of grown) for (const socket of sockets) socket.close();
    return { figures, notes: grown.flatMap(({ served }) => served.complaints().slice(0, 3)) };
  },
};

/** The figures of each step, and beside them how many times the step before it. */
function compared(what: string, unit: string, rounds: Record<string, number[]>): Figure[] {
  const steps = Object.entries(rounds);
  return steps.flatMap(([at, took], index) => {
    const before = steps[index - 1];
    const own = figure(`${what}: ${at}`, unit, took);
    return before === undefined ? [own] : [own, ratioFigure("… to the step before", took, before[1], GOAL)];
  });
}

/** @returns microseconds of the runtime's processor time for each, or of time where the system does not tell of that */
async function costUs(grown: Grown, { times, once, per }: Dimension): Promise<number> {
  await grown.connect();
  const before = grown.served.cpuMs();
  let tookMs = 0;
  for (let turn = 0; turn < times; turn++) {
    const beganAtMs = performance.now();
    // oxlint-disable-next-line no-await-in-loop -- alone on the line, so that the figure is its own and no queue's
    await once(grown, turn);
    tookMs += performance.now() - beganAtMs;
  }
  const after = grown.served.cpuMs();
  const spentMs = before === null || after === null ? tookMs : after - before;
  return (spentMs * 1_000) / times / (per?.(grown.sizes) ?? 1);
}

async function firstRequest({ send }: Grown): Promise<void> {
  const { privateKey, x } = newKey();
  const headers = { Authorization: `Bearer ${OPERATOR_TOKEN}`, "Content-Type": "application/json" };
  const body = JSON.stringify({ name: "new", framework: "bench", publicKey: x });
  const registered = JSON.parse((await send(requestBytes("POST", "/v1/agents", headers, body))).body) as {
    agentDid: string;
    ownerDid: string;
    ait: string;
    access: { token: string };
  };
  const { agentDid: did, ownerDid, ait, access } = registered;
  const agent = { did, ownerDid, ait, accessToken: access.token, refreshToken: "", privateKey, publicX: x };
  await send(signGet(agent, NO_DELIVERY));
}

function answered(answer: string | null | undefined): void {
  if (answer?.includes('"ok":true') !== true) throw new Error(`a call was refused: ${answer}`);
}

export default growth;
