/**
 * What this isolate has counted and not yet handed to the aggregate. Counting is memory alone; batches leave under
 * `waitUntil`, some seconds apart, never on a request's path. Only counts are kept here, nothing of a request.
 */
import type { CounterName, GaugeName, HistogramName, LabelsOf } from "./metric-definitions.ts";
import { createTally, type Snapshot } from "./metric-series.ts";

/** Numbers on their way to the aggregate, which takes each batch once, by its id. */
export type Batch = { id: string } & Snapshot;

/** Hands one batch over; throws when nobody knows whether it arrived. */
export type SendBatch = (batch: Batch) => Promise<void>;

/** How long numbers gather before they leave. */
const GATHER_MS = 2_000;
/** A flush whose request was killed holds the turn no longer than this. */
const LEASE_MS = 30_000;
/** Batches that could not be handed over are kept together as one, and given up after this many attempts. */
const ATTEMPTS_MAX = 20;

export type Meter = {
  count: <Name extends CounterName>(name: Name, labels: LabelsOf<Name>, n?: number) => void;
  gauge: <Name extends GaugeName>(name: Name, labels: LabelsOf<Name>, value: number) => void;
  observe: <Name extends HistogramName>(name: Name, labels: LabelsOf<Name>, value: number) => void;
  /** `METRICS=off`: nothing is counted and nothing leaves. */
  turn(isOn: boolean): void;
  isOn(): boolean;
  /** Sees to it that what is counted leaves soon. Costs nothing while a batch is gathering. */
  flushSoon(background: (work: Promise<unknown>) => void, send: SendBatch): void;
  /** Hands over everything now. @throws what `send` throws; the numbers are kept for the next time */
  flush(send: SendBatch): Promise<void>;
};

/**
 * @param deps.pause waits in real time, `scheduler.wait`
 * @param deps.onLate called with the reason why a batch has to wait for another flush
 */
export function createMeter(deps: {
  now: () => number;
  pause: (ms: number) => Promise<void>;
  newId: () => string;
  onLate: (error: unknown) => void;
}): Meter {
  const tally = createTally();
  let isOn = true;
  /** Sent at least once, and perhaps arrived. It keeps its id, so that it counts once. */
  let unsettled: { batch: Batch; attempts: number } | null = null;
  let leaseUntilMs = Number.NEGATIVE_INFINITY;

  async function flush(send: SendBatch): Promise<void> {
    // What may have arrived goes first and alone: adding to it would change what its id stands for.
    if (unsettled !== null) await hand(unsettled, send);
    if (tally.isEmpty()) return;
    const fresh = { batch: { id: deps.newId(), ...tally.take() }, attempts: 0 };
    unsettled = fresh;
    await hand(fresh, send);
  }

  async function hand(held: { batch: Batch; attempts: number }, send: SendBatch): Promise<void> {
    held.attempts += 1;
    try {
      await send(held.batch);
      if (unsettled === held) unsettled = null;
    } catch (error) {
      if (held.attempts >= ATTEMPTS_MAX && unsettled === held) {
        unsettled = null;
        tally.count("sallyport_metric_batches_lost", {});
      }
      throw error;
    }
  }

  return {
    count(name, labels, n) {
      if (isOn) tally.count(name, labels, n);
    },
    gauge(name, labels, value) {
      if (isOn) tally.gauge(name, labels, value);
    },
    observe(name, labels, value) {
      if (isOn) tally.observe(name, labels, value);
    },
    turn(on) {
      isOn = on;
    },
    isOn: () => isOn,
    flush,

    flushSoon(background, send) {
      const nowMs = deps.now();
      if (!isOn || nowMs < leaseUntilMs) return;
      if (unsettled === null && tally.isEmpty()) return;
      const myLeaseMs = nowMs + LEASE_MS;
      leaseUntilMs = myLeaseMs;
      const run = async (): Promise<void> => {
        try {
          await deps.pause(GATHER_MS);
          await flush(send);
        } catch (error) {
          deps.onLate(error);
        } finally {
          // A lease that ran out belongs to another by now.
          if (leaseUntilMs === myLeaseMs) leaseUntilMs = Number.NEGATIVE_INFINITY;
        }
      };
      background(run());
    },
  };
}
