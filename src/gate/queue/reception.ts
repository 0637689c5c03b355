/** What finds room in a queue: messages of other gates, the proxy's own, and dead letters that are replayed. Contract §6. */
import type { AgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import type { DeliveryOutcome, QueuedMessage } from "../protocol/transfer.ts";
import type { DeadLetters } from "./dead-letters.ts";
import type { QueueEntry } from "./dispatch.ts";
import { hasGate } from "./endings.ts";
import type { PendingOutcomes } from "./reporting.ts";
import type { QueueRow, QueueRows } from "./rows.ts";
import { exceedsQueue, exceedsShare, NOTHING, plus, type SenderQueues } from "./senders.ts";

const FULL_RETRY_AFTER_MS = 1_000;
/** The proxy's own messages have a sender queue beside the agents', so that no sender can crowd them out. */
export const PROXY_SENDER = "proxy";

/** What a transfer meets at the recipient. */
export type Door = {
  /** Takes nothing but what is dead. */
  readonly isShut: boolean;
  /** Why a message may not be delivered though it was accepted, or null. */
  readonly refusal: (message: QueuedMessage) => string | null;
};

/** What comes into one queue. Each is part of the caller's transaction. */
export type Reception = {
  /** Takes what there is room for, from the start of a batch, so that the order stays. @returns how many, repeats included */
  receive(from: AgentDid, messages: readonly QueuedMessage[], door: Door, nowMs: number): number;
  /**
   * A message of the proxy's own, or of a sender without a gate. Repeats change nothing.
   *
   * @throws ProxyError PROXY_RELAY_QUEUE_FULL when the sender has its share already, or the queue is full
   */
  putLocal(sender: string, message: QueuedMessage, nowMs: number): void;
  /**
   * Puts a dead letter back into the queue with its attempts and its time begun anew, whatever has become of trust: the
   * recipient itself asks for it.
   *
   * @returns false when there is none
   * @throws ProxyError PROXY_RELAY_QUEUE_FULL where the queue has no room for it; the letter stays dead
   */
  replay(deliveryId: string, nowMs: number): boolean;
};

export type ReceptionDeps = {
  limits: { queueMax: number; ttlMs: number };
  senders: SenderQueues;
  rows: Pick<QueueRows, "known" | "write" | "deadLetter" | "revive">;
  deadLetters: Pick<DeadLetters, "added" | "removed">;
  pending: Pick<PendingOutcomes, "add">;
  /** A message has been taken that may be pushed in the same group. */
  onTaken: (entry: QueueEntry, message: QueuedMessage) => void;
};

/** @returns the reception of one queue. */
export function createReception(deps: ReceptionDeps): Reception {
  const { limits, senders, rows, deadLetters, pending, onTaken } = deps;

  /** Why one more message finds no room, as the caller learns. */
  const assertRoom = (sender: string, bytes: number): void => {
    const isFull = sender !== PROXY_SENDER && exceedsQueue(senders.total(), bytes, limits.queueMax);
    if (isFull || exceedsShare(senders.usage(sender), bytes, limits.queueMax))
      throw new ProxyError("PROXY_RELAY_QUEUE_FULL", { retryAfterMs: FULL_RETRY_AFTER_MS });
  };

  return {
    receive(from, messages, door, nowMs) {
      const taken: { entry: QueueEntry; message: QueuedMessage; reason: string | null }[] = [];
      let known = 0;
      let more = NOTHING;
      const seen = rows.known(messages.map(({ deliveryId }) => deliveryId));
      for (const message of messages) {
        if (seen.has(message.deliveryId)) {
          known += 1;
          continue;
        }
        const reason = message.createdAtMs + limits.ttlMs <= nowMs ? "expired" : door.refusal(message);
        if (reason === null) {
          if (door.isShut || exceedsQueue(plus(senders.total(), more), message.bytes, limits.queueMax)) break;
          if (exceedsShare(plus(senders.usage(from), more), message.bytes, limits.queueMax)) break;
          more = plus(more, { count: 1, bytes: message.bytes });
        }
        rows.write(from, message, reason, nowMs);
        taken.push({ entry: entryOfMessage(from, message, nowMs), message, reason });
      }
      for (const { entry, message, reason } of taken) {
        if (reason === null) {
          senders.insert(entry);
          onTaken(entry, message);
        } else {
          deadLetters.added(from, entry.bytes);
          pending.add(from, { deliveryId: entry.deliveryId, delivered: false, reason, attempts: 0, atMs: nowMs });
        }
      }
      return known + taken.length;
    },

    putLocal(sender, message, nowMs) {
      if (rows.known([message.deliveryId]).size > 0) return;
      assertRoom(sender, message.bytes);
      rows.write(sender, message, null, nowMs);
      senders.insert(entryOfMessage(sender, message, nowMs));
    },

    replay(deliveryId, nowMs) {
      const row = rows.deadLetter(deliveryId);
      if (row === null) return false;
      assertRoom(row.sender, row.bytes);
      rows.revive(deliveryId, nowMs);
      deadLetters.removed(row.sender, row.bytes);
      const again = {
        attempts: 0,
        created_at_ms: nowMs,
        updated_at_ms: nowMs,
        due_at_ms: nowMs,
        held_ms: 0,
        holder: null,
      };
      senders.insert(entryOf({ ...row, ...again }));
      if (hasGate(row.sender)) pending.add(row.sender, revivalOf(deliveryId, nowMs));
      return true;
    },
  };
}

/** What a sender's gate learns of a dead letter that waits again. */
export function revivalOf(deliveryId: string, atMs: number): DeliveryOutcome {
  return { deliveryId, delivered: false, reason: null, attempts: 0, atMs, waitsAgain: true };
}

/** @returns the entry of a row, as one that waits. */
export function entryOf(row: QueueRow): QueueEntry {
  return {
    deliveryId: row.delivery_id,
    sender: row.sender,
    bytes: row.bytes,
    createdAtMs: row.created_at_ms,
    takenAtMs: row.updated_at_ms,
    heldMs: row.held_ms,
    attempts: row.attempts,
    dueAtMs: row.due_at_ms,
    socketId: null,
    holder: row.holder,
    isAwaited: false,
  };
}

function entryOfMessage(sender: string, message: QueuedMessage, nowMs: number): QueueEntry {
  return {
    deliveryId: message.deliveryId,
    sender,
    bytes: message.bytes,
    createdAtMs: message.createdAtMs,
    takenAtMs: nowMs,
    heldMs: 0,
    attempts: 0,
    dueAtMs: nowMs,
    socketId: null,
    holder: null,
    isAwaited: false,
  };
}
