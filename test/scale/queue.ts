/** A model of one gate: a single thread, a queue before it, and commits that hold up everything behind them. */
import type { Random } from "../faults/random.ts";

export type Service = {
  /** The object's own work on one message, without the commit. */
  messageMs: number;
  /** One durable commit; the thread waits for it, as it does locally. */
  commitMs: number;
  /** Whether everything that waits shares a commit, or each message pays its own. */
  isGrouped: boolean;
};

export type Arrivals = { perSecond: number; /** Messages that come at the same moment, on average. */ burst: number };

export type Load = {
  perSecond: number;
  burst: number;
  p50Ms: number;
  p99Ms: number;
  busy: number;
  perCommit: number;
  isStable: boolean;
};

/** Beyond this the queue is growing, and the answer is that it does not hold. */
const WAITED_TOO_LONG_MS = 2_000;

/** @param forMs simulated time */
export function simulate(service: Service, arrivals: Arrivals, forMs: number, random: Random): Load {
  const times = arrivalTimes(arrivals, forMs, random);
  const latencies: number[] = [];
  let free = 0;
  let busyMs = 0;
  let commits = 0;
  let next = 0;
  while (next < times.length) {
    const begin = Math.max(free, times[next] ?? 0);
    // Everything that has come by now goes together; alone, one at a time.
    let end = next + 1;
    if (service.isGrouped) while (end < times.length && (times[end] ?? Infinity) <= begin) end += 1;
    const tookMs = (end - next) * service.messageMs + service.commitMs;
    free = begin + tookMs;
    busyMs += tookMs;
    commits += 1;
    for (let index = next; index < end; index++) latencies.push(free - (times[index] ?? 0));
    next = end;
  }
  latencies.sort((a, b) => a - b);
  const at = (share: number): number =>
    latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? 0;
  return {
    perSecond: arrivals.perSecond,
    burst: arrivals.burst,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    busy: Math.min(1, busyMs / Math.max(forMs, free)),
    perCommit: times.length / Math.max(1, commits),
    isStable: free - (times.at(-1) ?? 0) < WAITED_TOO_LONG_MS,
  };
}

/** Bursts come as a Poisson process; how many messages a burst has is geometric. */
function arrivalTimes({ perSecond, burst }: Arrivals, forMs: number, random: Random): number[] {
  const times: number[] = [];
  const betweenMs = (burst * 1_000) / perSecond;
  for (let at = -Math.log(1 - random.next()) * betweenMs; at < forMs; at += -Math.log(1 - random.next()) * betweenMs) {
    times.push(at);
    while (burst > 1 && random.next() < 1 - 1 / burst) times.push(at);
  }
  return times;
}
