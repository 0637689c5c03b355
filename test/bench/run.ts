/** One run: so many connections for so long, and what came of it. */
import { openHttpConnection } from "./http-connection.ts";
import type { Received, Recipients } from "./recipients.ts";
import { quantile } from "./statistics.ts";
import type { SignedSend } from "./traffic.ts";

export type RunPlan = {
  url: string;
  connections: number;
  seconds: number;
  /** The status that counts as done. */
  expected: number;
  /** And what its body has to hold: a JSON-RPC error is a 200 too. */
  holding?: string;
};

export type RunFigures = {
  /** Answers of the expected status a second, in the steady part of the run. */
  acceptedPerSecond: number;
  /** Messages delivered and acknowledged a second, in the steady part; null where nothing is delivered. */
  deliveredPerSecond: number | null;
  /** Accepted and not yet acknowledged, at the beginning and at the end of the steady part. */
  backlog: { before: number; after: number };
  latencyMs: { p50: number; p99: number };
  accepted: number;
  /** Answers of any other status, by status. */
  refused: Record<string, number>;
  /** From the last request to the last acknowledgement. */
  drainMs: number;
  lost: number;
  doubled: number;
  disordered: number;
  /** Whether the requests made beforehand were used up before the time was. */
  ranOut: boolean;
  /** Share of one processor that the client used. */
  clientCpu: number;
  /** The last delivery of each sender, to ask for afterwards. */
  last: { sender: number; deliveryId: string }[];
};

/** The first part of a run is not counted: batches form and clocks start. Of a short run it is a third. */
const UNSTEADY_MS = 500;
const UNSTEADY_SHARE = 1 / 3;
const DRAIN_WITHIN_MS = 20_000;

export async function runLoad(
  plan: RunPlan,
  sends: readonly SignedSend[],
  recipients: Recipients | null,
): Promise<RunFigures> {
  const connections = await Promise.all(Array.from({ length: plan.connections }, () => openHttpConnection(plan.url)));
  recipients?.forget();
  const acceptedAtMs: number[] = [];
  const acceptedIds = new Map<string, number>();
  const latencies: { atMs: number; tookMs: number }[] = [];
  const refused: Record<string, number> = {};
  const last = new Map<number, string>();
  let next = 0;
  let ranOut = false;
  const cpuBefore = process.cpuUsage();
  const startedAtMs = performance.now();
  const stopAtMs = startedAtMs + plan.seconds * 1_000;

  await Promise.all(
    connections.map(async (connection) => {
      while (performance.now() < stopAtMs) {
        const send = sends[next];
        next += 1;
        if (send === undefined) {
          ranOut = true;
          return;
        }
        const beganAtMs = performance.now();
        // oxlint-disable-next-line no-await-in-loop -- one request at a time is what a connection is
        const { status, body } = await connection.send(send.bytes);
        const atMs = performance.now();
        if (status !== plan.expected || (plan.holding !== undefined && !body.includes(plan.holding))) {
          refused[status] = (refused[status] ?? 0) + 1;
          continue;
        }
        acceptedAtMs.push(atMs);
        latencies.push({ atMs, tookMs: atMs - beganAtMs });
        const deliveryId = /"deliveryId":"([^"]+)"/.exec(body)?.[1];
        if (deliveryId === undefined) continue;
        acceptedIds.set(deliveryId, send.sender);
        if (deliveryId > (last.get(send.sender) ?? "")) last.set(send.sender, deliveryId);
      }
    }),
  );
  const endedAtMs = performance.now();
  const cpu = process.cpuUsage(cpuBefore);
  for (const connection of connections) connection.close();
  await recipients?.until(acceptedIds.size, DRAIN_WITHIN_MS);
  const received = recipients === null ? [] : [...recipients.received];

  const unsteadyMs = Math.min(UNSTEADY_MS, plan.seconds * 1_000 * UNSTEADY_SHARE);
  const window = { fromMs: Math.min(endedAtMs, startedAtMs + unsteadyMs), toMs: endedAtMs };
  const seconds = (window.toMs - window.fromMs) / 1_000;
  const inWindow = (atMs: number): boolean => atMs >= window.fromMs && atMs < window.toMs;
  const receivedAtMs = received.map(({ atMs }) => atMs);
  const steady = latencies.filter(({ atMs }) => inWindow(atMs)).map(({ tookMs }) => tookMs);
  return {
    acceptedPerSecond: acceptedAtMs.filter(inWindow).length / seconds,
    deliveredPerSecond: recipients === null ? null : receivedAtMs.filter(inWindow).length / seconds,
    backlog: {
      before: by(acceptedAtMs, window.fromMs) - by(receivedAtMs, window.fromMs),
      after: by(acceptedAtMs, window.toMs) - by(receivedAtMs, window.toMs),
    },
    latencyMs: { p50: quantile(steady, 0.5), p99: quantile(steady, 0.99) },
    accepted: acceptedAtMs.length,
    refused,
    drainMs: Math.max(0, (receivedAtMs.at(-1) ?? endedAtMs) - endedAtMs),
    ...(recipients === null ? { lost: 0, doubled: 0, disordered: 0 } : judge(acceptedIds, received)),
    ranOut,
    clientCpu: (cpu.user + cpu.system) / 1_000 / (endedAtMs - startedAtMs),
    last: [...last].map(([sender, deliveryId]) => ({ sender, deliveryId })),
  };
}

function by(times: readonly number[], atMs: number): number {
  return times.filter((time) => time < atMs).length;
}

/** Delivery is at least once and in order per sender; ids rise in the order of sending. */
function judge(
  accepted: ReadonlyMap<string, number>,
  received: readonly Received[],
): { lost: number; doubled: number; disordered: number } {
  const seen = new Set<string>();
  const highest = new Map<string, string>();
  let doubled = 0;
  let disordered = 0;
  for (const { deliveryId, fromAgentDid, recipient } of received) {
    if (seen.has(deliveryId)) {
      doubled += 1;
      continue;
    }
    seen.add(deliveryId);
    const lane = `${fromAgentDid} ${recipient}`;
    if (deliveryId < (highest.get(lane) ?? "")) disordered += 1;
    else highest.set(lane, deliveryId);
  }
  const lost = [...accepted.keys()].filter((deliveryId) => !seen.has(deliveryId)).length;
  return { lost, doubled, disordered };
}
