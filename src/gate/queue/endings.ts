/** How a message ends at its recipient: delivered, or a dead letter. Written down, and pending for its sender's gate. */
import type { Attempts } from "./attempts.ts";
import type { DeadLetters } from "./dead-letters.ts";
import type { QueueEntry } from "./dispatch.ts";
import type { PendingOutcomes } from "./reporting.ts";
import type { QueueRows } from "./rows.ts";
import type { SenderQueues } from "./senders.ts";

/** The ends of one recipient's messages. Each is part of the caller's transaction. */
export type Endings = {
  /** A message is a dead letter. */
  dead(entry: QueueEntry, reason: string, nowMs: number): void;
  /** Messages were acknowledged. */
  delivered(entries: readonly QueueEntry[], nowMs: number): void;
};

export type EndingsDeps = {
  senders: Pick<SenderQueues, "remove">;
  rows: Pick<QueueRows, "dead" | "delivered">;
  deadLetters: Pick<DeadLetters, "added">;
  pending: Pick<PendingOutcomes, "add">;
  attempts: () => Pick<Attempts, "ended">;
};

/** @returns the ends of one queue's messages. */
export function createEndings({ senders, rows, deadLetters, pending, attempts }: EndingsDeps): Endings {
  return {
    dead(entry, reason, nowMs) {
      const { deliveryId, sender, bytes, attempts: tried, isAwaited } = entry;
      const isPending = hasGate(sender);
      rows.dead(deliveryId, { reason, attempts: tried, isPending }, nowMs);
      senders.remove(entry);
      attempts().ended(entry, nowMs);
      deadLetters.added(sender, bytes);
      const outcome = { deliveryId, delivered: false, reason, attempts: tried, atMs: nowMs };
      if (isPending) pending.add(sender, outcome, isAwaited);
    },

    delivered(entries, nowMs) {
      for (const entry of entries) {
        senders.remove(entry);
        attempts().ended(entry, nowMs);
      }
      for (const isPending of [true, false]) {
        const ids = entries.filter(({ sender }) => hasGate(sender) === isPending).map(({ deliveryId }) => deliveryId);
        if (ids.length > 0) rows.delivered(ids, isPending, nowMs);
      }
      for (const { sender, deliveryId, attempts: tried, isAwaited } of entries) {
        const outcome = { deliveryId, delivered: true, reason: null, attempts: tried, atMs: nowMs };
        if (hasGate(sender)) pending.add(sender, outcome, isAwaited);
      }
    },
  };
}

/** The proxy's own messages, and those of senders that are no agents, have no gate that waits for a report. */
export function hasGate(sender: string): boolean {
  return sender.startsWith("did:");
}
