/** What a sender's gate holds for each of its recipients, as memory mirrors it, and when it may be handed over next. */
import { backoffMs } from "../../resilience/backoff.ts";
import type { AgentDid } from "../../wire/did.ts";
import { BATCH_TICK_MS, type QueuedMessage } from "../protocol/transfer.ts";

/** A recipient whose queue is full makes room by the second; one whose gate does not answer takes longer. */
const FULL_RETRY = { initialMs: 250, maxMs: 5_000, jitterRatio: 0.2 };
const FAILED_RETRY = { initialMs: 1_000, maxMs: 30_000, jitterRatio: 0.2 };
/** Bodies up to this much in all stay in memory until they are handed over; the others are read back. */
const PARCEL_BYTES_KEPT = 1_048_576;

/** Not yet taken over. */
export type Held = { deliveryId: string; bytes: number; message?: QueuedMessage };

/** One recipient. Waiting: held, or taken over and not yet ended. Hurried: somebody waits for the end of what is held. */
export type OutboxLane = {
  held: Held[];
  waiting: number;
  busy: boolean;
  isHurried: boolean;
  dueAtMs: number;
  failures: number;
};

export type OutboxLanes = ReturnType<typeof createOutboxLanes>;

export function createOutboxLanes() {
  const lanes = new Map<AgentDid, OutboxLane>();
  let heldCount = 0;
  let heldBytes = 0;

  const laneOf = (to: AgentDid): OutboxLane => {
    let lane = lanes.get(to);
    if (lane === undefined) {
      lane = { held: [], waiting: 0, busy: false, isHurried: false, dueAtMs: 0, failures: 0 };
      lanes.set(to, lane);
    }
    return lane;
  };

  /** A recipient that made no room, or did not answer, is left alone for its time whoever waits. */
  const dueAtMs = (lane: OutboxLane): number => (lane.isHurried && lane.failures === 0 ? 0 : lane.dueAtMs);

  const release = (gone: readonly Held[]): void => {
    for (const { bytes } of gone) {
      heldCount -= 1;
      heldBytes -= bytes;
    }
  };

  return {
    of: laneOf,
    count: (): number => heldCount,
    bytes: (): number => heldBytes,

    /** One more message waits for a recipient. */
    waits(to: AgentDid): void {
      laneOf(to).waiting += 1;
    },

    /** What is held for a recipient is not to wait for company. */
    hurry(to: AgentDid): void {
      laneOf(to).isHurried = true;
    },

    /** One of them has ended. */
    ended(to: AgentDid): void {
      laneOf(to).waiting -= 1;
    },

    /** This agent's messages that wait for a recipient, here or in its queue. */
    waiting: (to: AgentDid): number => lanes.get(to)?.waiting ?? 0,

    hold(to: AgentDid, deliveryId: string, bytes: number, message?: QueuedMessage): void {
      const keeps = message !== undefined && heldBytes + bytes < PARCEL_BYTES_KEPT;
      laneOf(to).held.push({ deliveryId, bytes, ...(keeps ? { message } : {}) });
      heldCount += 1;
      heldBytes += bytes;
    },

    /** Drops one that has ended while it was held. */
    drop(lane: OutboxLane, position: number): void {
      release(lane.held.splice(position, 1));
    },

    /** What has ended is read from disk again before it is offered, and found to be over. */
    forgetParcel(to: AgentDid, deliveryId: string): void {
      delete lanes.get(to)?.held.find((held) => held.deliveryId === deliveryId)?.message;
    },

    /** The recipients that a hand-over may start for now. */
    due(nowMs: number): AgentDid[] {
      const due: AgentDid[] = [];
      for (const [to, lane] of lanes) {
        if (lane.busy || dueAtMs(lane) > nowMs) continue;
        if (lane.held.length > 0) due.push(to);
        else if (lane.waiting === 0) lanes.delete(to);
      }
      return due;
    },

    /** When the next hand-over is due; null while nothing is held. */
    nextDueMs(): number | null {
      let due: number | null = null;
      for (const lane of lanes.values()) {
        if (lane.held.length > 0 && !lane.busy) due = Math.min(due ?? Infinity, dueAtMs(lane));
      }
      return due;
    },

    /** The first `taken` of a lane are the recipient's now. @returns their delivery ids */
    handedOver(to: AgentDid, offered: number, taken: number, nowMs: number): string[] {
      const lane = laneOf(to);
      lane.busy = false;
      lane.failures = taken === offered ? 0 : taken > 0 ? 1 : lane.failures + 1;
      lane.dueAtMs =
        nowMs + (lane.failures === 0 ? BATCH_TICK_MS : backoffMs(lane.failures, FULL_RETRY, Math.random()));
      const gone = lane.held.splice(0, taken);
      release(gone);
      return gone.map(({ deliveryId }) => deliveryId);
    },

    /** A hand-over that got no answer: the same batch again after a while. The recipient's gate tells repeats apart. */
    handOverFailed(to: AgentDid, nowMs: number): void {
      const lane = laneOf(to);
      lane.busy = false;
      lane.failures += 1;
      lane.dueAtMs = nowMs + backoffMs(lane.failures, FAILED_RETRY, Math.random());
    },
  };
}
