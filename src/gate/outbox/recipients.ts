/** What a sender's gate holds for each of its recipients, as memory mirrors it, and when it may be handed over next. */
import { backoffMs } from "../../resilience/backoff.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { QueuedMessage } from "../protocol/transfer.ts";

/** A recipient whose queue is full makes room as its own program works; one whose gate does not answer takes longer. */
const FULL_RETRY = { initialMs: 20, maxMs: 5_000, jitterRatio: 0.2 };
const FAILED_RETRY = { initialMs: 1_000, maxMs: 30_000, jitterRatio: 0.2 };
/** Bodies up to this much in all stay in memory until they are handed over; the others are read back. */
const CACHED_BYTES_MAX = 1_048_576;

/** A message that its recipient's gate has not taken over. */
export type HeldMessage = {
  readonly deliveryId: string;
  readonly bytes: number;
  readonly createdAtMs: number;
  /** Names the body that it shares with others: that counts once, while one of them is held. */
  readonly sharedId?: string | undefined;
  message?: QueuedMessage;
};

/** The messages for one recipient. */
export type RecipientQueue = {
  readonly held: HeldMessage[];
  /** Held, or taken over and not ended. */
  waiting: number;
  /** A hand-over is in progress. */
  isBusy: boolean;
  /** A request waits for the end of what is held. */
  isUrgent: boolean;
  dueAtMs: number;
  failures: number;
};

/** The messages for all recipients. */
export type RecipientQueues = {
  of(to: AgentDid): RecipientQueue;
  /** Messages that are held, and bytes of their bodies as they are stored. */
  count(): number;
  bytes(): number;
  /** One more message waits for a recipient. */
  addWaiting(to: AgentDid): void;
  /** One of them has ended. */
  removeWaiting(to: AgentDid): void;
  /** This agent's messages that wait for a recipient, here or in its queue. */
  waiting(to: AgentDid): number;
  /** What is held for a recipient is not to be batched. */
  hurry(to: AgentDid): void;
  hold(to: AgentDid, held: HeldMessage): void;
  /** Drops one that has ended while it was held. */
  drop(queue: RecipientQueue, position: number): void;
  /** A message that has ended is read from disk again before it is offered, and found to be over. */
  forget(to: AgentDid, deliveryId: string): void;
  /** The recipients that a hand-over may start for now; the one that had the last is the last. */
  due(nowMs: number): AgentDid[];
  /** When the next hand-over is due; null while nothing is held. */
  nextDueMs(): number | null;
  /** The first `taken` of what was offered are the recipient's now. @returns their delivery ids */
  handedOver(to: AgentDid, offered: number, taken: number, nowMs: number): string[];
  /** A hand-over got no answer: the same again after a while. The recipient's gate recognises repeats. */
  handOverFailed(to: AgentDid, nowMs: number): void;
};

/** @param batchMs how long after a hand-over what has come since waits for more; 0 for not at all */
export function createRecipientQueues(batchMs: number): RecipientQueues {
  const queues = new Map<AgentDid, RecipientQueue>();
  let heldCount = 0;
  let heldBytes = 0;

  const of = (to: AgentDid): RecipientQueue => {
    let queue = queues.get(to);
    if (queue === undefined) {
      queue = { held: [], waiting: 0, isBusy: false, isUrgent: false, dueAtMs: 0, failures: 0 };
      queues.set(to, queue);
    }
    return queue;
  };

  /** By shared body, how many of its messages are held. */
  const sharing = new Map<string, number>();

  /** Counts a held message, or one that is no more. */
  const countHeld = ({ bytes, sharedId }: HeldMessage, more: 1 | -1): void => {
    heldCount += more;
    if (sharedId !== undefined) {
      const before = sharing.get(sharedId) ?? 0;
      if (before + more === 0) sharing.delete(sharedId);
      else sharing.set(sharedId, before + more);
      if (before > 0 && before + more > 0) return;
    }
    heldBytes += more * bytes;
  };

  const release = (gone: readonly HeldMessage[]): void => {
    for (const held of gone) countHeld(held, -1);
  };

  /** A recipient that made no room, or did not answer, is left alone for its time whoever waits. */
  const dueAtMs = (queue: RecipientQueue): number => (queue.isUrgent && queue.failures === 0 ? 0 : queue.dueAtMs);

  return {
    of,
    count: () => heldCount,
    bytes: () => heldBytes,
    addWaiting(to) {
      of(to).waiting += 1;
    },
    removeWaiting(to) {
      of(to).waiting -= 1;
    },
    waiting: (to) => queues.get(to)?.waiting ?? 0,
    hurry(to) {
      of(to).isUrgent = true;
    },

    hold(to, { message, ...held }) {
      const isCached = message !== undefined && heldBytes + held.bytes < CACHED_BYTES_MAX;
      of(to).held.push({ ...held, ...(isCached ? { message } : {}) });
      countHeld(held, 1);
    },
    drop: (queue, position) => release(queue.held.splice(position, 1)),
    forget(to, deliveryId) {
      delete queues.get(to)?.held.find((held) => held.deliveryId === deliveryId)?.message;
    },

    due(nowMs) {
      const due: AgentDid[] = [];
      for (const [to, queue] of queues) {
        if (queue.isBusy || dueAtMs(queue) > nowMs) continue;
        if (queue.held.length > 0) due.push(to);
        else if (queue.waiting === 0) queues.delete(to);
      }
      return due;
    },

    nextDueMs() {
      let due: number | null = null;
      for (const queue of queues.values()) {
        if (queue.held.length > 0 && !queue.isBusy) due = Math.min(due ?? Infinity, dueAtMs(queue));
      }
      return due;
    },

    handedOver(to, offered, taken, nowMs) {
      const queue = of(to);
      queue.isBusy = false;
      queue.failures = taken === offered ? 0 : taken > 0 ? 1 : queue.failures + 1;
      queue.dueAtMs = nowMs + (queue.failures === 0 ? batchMs : backoffMs(queue.failures, FULL_RETRY, Math.random()));
      // Every recipient has its turn, should there be more of them than hand-overs at once.
      queues.delete(to);
      queues.set(to, queue);
      const gone = queue.held.splice(0, taken);
      release(gone);
      return gone.map(({ deliveryId }) => deliveryId);
    },

    handOverFailed(to, nowMs) {
      const queue = of(to);
      queue.isBusy = false;
      queue.failures += 1;
      queue.dueAtMs = nowMs + backoffMs(queue.failures, FAILED_RETRY, Math.random());
    },
  };
}
