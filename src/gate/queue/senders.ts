/**
 * What waits for an agent or is on its way to a socket, as memory mirrors it: a queue a sender, each in the order of its ids;
 * and what a queue holds at most and one sender may have of it (contract §6).
 */
import { HELD_BYTES_MAX } from "../protocol/transfer.ts";
import type { QueueEntry } from "./dispatch.ts";

/** One sender has at most this part of a queue, in messages and in bytes. */
const SHARE_OF_ONE_SENDER = 5;

/** Messages and bytes of their bodies. */
export type Usage = { readonly count: number; readonly bytes: number };

export const NOTHING: Usage = { count: 0, bytes: 0 };

/** @returns whether `more` bytes in one more message would exceed what the whole queue holds. */
export function exceedsQueue(used: Usage, more: number, queueMax: number): boolean {
  return used.count >= queueMax || used.bytes + more > HELD_BYTES_MAX;
}

/** @returns whether one more message of `more` bytes would exceed its sender's share: a fifth, at least one message. */
export function exceedsShare(used: Usage, more: number, queueMax: number): boolean {
  if (used.count === 0) return false;
  return (
    used.count >= Math.floor(queueMax / SHARE_OF_ONE_SENDER) || used.bytes + more > HELD_BYTES_MAX / SHARE_OF_ONE_SENDER
  );
}

/** @returns both added up. */
export function plus(one: Usage, other: Usage): Usage {
  return { count: one.count + other.count, bytes: one.bytes + other.bytes };
}

/** The messages of one sender. */
export type SenderQueue = {
  readonly entries: QueueEntry[];
  bytes: number;
  /** Since when one of them has been on its way to a socket without interruption; null while none is. */
  inHandsSinceMs: number | null;
};

/** The messages of all senders. */
export type SenderQueues = {
  insert(entry: QueueEntry): void;
  remove(entry: QueueEntry): void;
  find(deliveryId: string): QueueEntry | undefined;
  has(deliveryId: string): boolean;
  of(sender: string): SenderQueue | undefined;
  /** What one sender has here. */
  usage(sender: string): Usage;
  /** What all have here together. */
  total(): Usage;
  /** Those with something in them, as they are now: what changes meanwhile changes nothing of it. */
  each(): readonly SenderQueue[];
  /** All of them, likewise. */
  entries(): readonly QueueEntry[];
  /** What is on its way to each socket. */
  inFlight(): Map<string, Usage>;
};

/** @returns no messages of anybody. */
export function createSenderQueues(): SenderQueues {
  const queues = new Map<string, SenderQueue>();
  const entries = new Map<string, QueueEntry>();
  let bytes = 0;

  return {
    insert(entry) {
      let queue = queues.get(entry.sender);
      if (queue === undefined) queues.set(entry.sender, (queue = { entries: [], bytes: 0, inHandsSinceMs: null }));
      let at = queue.entries.length;
      while (at > 0 && queue.entries[at - 1]!.deliveryId > entry.deliveryId) at -= 1;
      queue.entries.splice(at, 0, entry);
      queue.bytes += entry.bytes;
      entries.set(entry.deliveryId, entry);
      bytes += entry.bytes;
    },

    remove(entry) {
      const queue = queues.get(entry.sender);
      const index = queue?.entries.indexOf(entry) ?? -1;
      if (queue === undefined || index < 0) return;
      queue.entries.splice(index, 1);
      queue.bytes -= entry.bytes;
      if (queue.entries.length === 0) queues.delete(entry.sender);
      entries.delete(entry.deliveryId);
      bytes -= entry.bytes;
    },

    find: (deliveryId) => entries.get(deliveryId),
    has: (deliveryId) => entries.has(deliveryId),
    of: (sender) => queues.get(sender),
    usage(sender) {
      const queue = queues.get(sender);
      return { count: queue?.entries.length ?? 0, bytes: queue?.bytes ?? 0 };
    },
    total: () => ({ count: entries.size, bytes }),
    each: () => [...queues.values()],
    entries: () => [...entries.values()],
    inFlight() {
      const load = new Map<string, Usage>();
      for (const { socketId, bytes: size } of entries.values()) {
        if (socketId === null) continue;
        const before = load.get(socketId);
        load.set(socketId, { count: (before?.count ?? 0) + 1, bytes: (before?.bytes ?? 0) + size });
      }
      return load;
    },
  };
}
