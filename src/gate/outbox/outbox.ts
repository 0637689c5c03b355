/**
 * The sender's side of a delivery: what this agent has sent and what became of it. A row is written in the commit that
 * answers the sender; its body goes once the message has ended, or the recipient's gate has had it for a while; the row stays
 * 24 hours for whoever asks.
 */
import type { DeliveryState, DeliveryStatus, Handling } from "../../call/gate.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { GroupId } from "../../wire/group-id.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { FannedOut } from "../protocol/submission.ts";
import {
  type DeliveryOutcome,
  HELD_BYTES_MAX,
  type QueuedMessage,
  TRANSFER_BATCH_MAX,
  TRANSFER_BYTES_MAX,
} from "../protocol/transfer.ts";
import { createIdempotencyKeys, type Idempotency } from "./idempotency.ts";
import { createRecipientQueues } from "./recipients.ts";
import { createOutboxRows, type OutboxRows, OUTBOX_STATE, OUTBOX_STATE_NAMES, STATUS_RETENTION_MS } from "./rows.ts";
import { createSharedBodies } from "./shared-bodies.ts";
import { createSettlement, type Receipt, receiptOf, type Settlement } from "./settlement.ts";

export type { Receipt } from "./settlement.ts";

const PRUNE_EVERY_MS = 3_600_000;
const FULL_RETRY_AFTER_MS = 1_000;
/**
 * That a recipient's gate has a message is written down only where the message has not ended by then. Sooner than the
 * platform lets an object sleep (10 s).
 */
const HANDED_OVER_RECORDED_AFTER_MS = 2_000;

export type OutboxLimits = {
  /** Messages that are held at once. */
  outboxMax: number;
  /** What could not be handed over for so long is a dead letter. */
  ttlMs: number;
  /** How long after a hand-over what has come since waits for more; 0 for not at all. */
  batchMs: number;
};

/** A message of this agent. */
export type Draft = {
  to: AgentDid;
  /** Of the body, in UTF-8. */
  bytes: number;
  /** JSON text. */
  envelope: string;
  /** JSON text. */
  body: string;
  /** A request waits for its end: handed over at once. */
  isAwaited?: boolean;
  originFrameId?: string;
  idempotency?: Idempotency;
};

/** A message to several: each gets one of its own, and all share the body. */
export type GroupDraft = Omit<Draft, "to" | "isAwaited"> & { groupId: GroupId; members: readonly AgentDid[] };

/** `state` is other than `queued` only for a repeat under an idempotency key. */
export type Accepted = { deliveryId: string; state: DeliveryState; queueDepth: number };

/** `to` is whom to ask for more while it waits there. */
export type OutboxStatus = DeliveryStatus & { to: AgentDid; handedOver: boolean };

/** One sender's outbox. Each change of it is part of the caller's transaction. */
export type Outbox = {
  /**
   * Writes a message. The last step of the caller's transaction: what throws, throws before memory has changed.
   *
   * @throws GateRefusal for an idempotency key used with another body, or a full outbox.
   */
  accept(draft: Draft, nowMs: number): Accepted;
  /**
   * Writes a message to each, all of them or none, and the body once. Likewise the last step of its transaction.
   *
   * @returns the messages; those of before for a repeat under an idempotency key
   * @throws GateRefusal as above
   */
  acceptForGroup(draft: GroupDraft, nowMs: number): FannedOut[];
  /** Whether so many bytes find room, in one more message or in several that share them. */
  hasRoom(bytes: number, messages?: number): boolean;
  /** The recipients that a hand-over may start for now. */
  dueRecipients(nowMs: number): AgentDid[];
  /** When the next hand-over is due; null while nothing is held. */
  nextDueMs(): number | null;
  /** This agent's messages that wait for a recipient, here or in its queue. */
  queueDepth(to: AgentDid): number;
  /** Whether anything is not yet taken over. */
  isHolding(): boolean;
  /**
   * The next batch for one recipient, in order; no other starts until `handedOver` or `handOverFailed`. A report may have
   * overtaken the answer to an earlier hand-over: what has ended meanwhile is no longer offered.
   */
  nextBatch(to: AgentDid): QueuedMessage[];
  /** The first `taken` of what was offered are on the recipient's disk. Memory alone. */
  handedOver(to: AgentDid, offered: number, taken: number, nowMs: number): void;
  /** A hand-over got no answer: the same again after a while. Memory alone. */
  handOverFailed(to: AgentDid, nowMs: number): void;
  /** Whether something held for a recipient has waited too long. */
  hasExpired(to: AgentDid, nowMs: number): boolean;
  /** Ends what has waited too long for a recipient whose gate does not answer. @returns the receipts */
  expire(to: AgentDid, nowMs: number): Receipt[];
  /** Writes down what recipients have had for a while without its having ended. */
  recordHandedOver(nowMs: number): void;
  /** When `recordHandedOver` has something to do; null for never. */
  nextRecordMs(): number | null;
  /** Applies what a recipient's gate reports. Repeats change nothing. @returns what the sender is to be notified of */
  settle(outcomes: readonly DeliveryOutcome[], nowMs: number): Receipt[];
  /** Applies what a recipient's program made of a message, see {@link Settlement.handle}. Part of the caller's transaction. */
  handle: Settlement["handle"];
  /** What a recipient's program made of a message; null while it has said nothing. */
  handlingOf(deliveryId: string, recipient: AgentDid): Handling | null;
  /** Receipts that must arrive and that the sender has not confirmed, a batch of the oldest. @param after an id of the last batch */
  receiptsDue(after: string | null): Receipt[];
  /** The sender has these receipts, or has asked. */
  receiptsConfirmed(deliveryIds: readonly string[]): void;
  /** What the sender may know of one of its messages; null after 24 hours. */
  status(deliveryId: string, nowMs: number): OutboxStatus | null;
  /** Forgets what ended more than 24 hours ago, some thousand rows a turn; receipts that were not confirmed, later. */
  prune(nowMs: number): void;
  /** When pruning is next worth waking for, at most once an hour; null while there is nothing to forget. */
  nextPruneMs(): number | null;
};

/** @param nextId makes the ids, above all that were given */
export function createOutbox(sql: SqlStorage, limits: OutboxLimits, nextId: (nowMs: number) => string): Outbox {
  const recipients = createRecipientQueues(limits.batchMs);
  const rows = createOutboxRows(sql);
  const keys = createIdempotencyKeys(sql);
  /** Taken over and not yet on disk as such: since when. */
  const unrecorded = new Map<string, number>();
  const shared = createSharedBodies(sql);
  let lastPrunedMs = 0;

  for (const row of rows.open()) {
    const to = row.to_did as AgentDid;
    recipients.addWaiting(to);
    const { delivery_id: deliveryId, bytes, created_at_ms: createdAtMs } = row;
    if (row.state !== OUTBOX_STATE.held) continue;
    const sharedId = row.shared_id ?? undefined;
    recipients.hold(to, { deliveryId, bytes, createdAtMs, sharedId });
    if (sharedId !== undefined) shared.hold(deliveryId, sharedId);
  }
  shared.forgetOthers();

  const hasRoom = (bytes: number, messages = 1): boolean =>
    recipients.count() + messages <= limits.outboxMax && recipients.bytes() + bytes <= HELD_BYTES_MAX;

  const isTooOld = (createdAtMs: number, nowMs: number): boolean => createdAtMs + limits.ttlMs <= nowMs;

  const settlement = createSettlement({
    rows,
    recipients,
    onClosed(deliveryId) {
      unrecorded.delete(deliveryId);
      shared.release(deliveryId);
    },
  });

  return {
    accept(draft, nowMs) {
      const { to, bytes, envelope, body, idempotency } = draft;
      const earlier = idempotency === undefined ? null : keys.find(to, idempotency, nowMs);
      if (earlier !== null) {
        const state = OUTBOX_STATE_NAMES[rows.status(earlier)?.state ?? OUTBOX_STATE.held] ?? "queued";
        return { deliveryId: earlier, state, queueDepth: recipients.waiting(to) };
      }
      if (!hasRoom(bytes)) throw new GateRefusal("gate-outbox-full", FULL_RETRY_AFTER_MS);
      const deliveryId = nextId(nowMs);
      rows.write({
        deliveryId,
        to,
        bytes,
        originFrameId: draft.originFrameId ?? null,
        envelope,
        content: { body },
        nowMs,
      });
      if (idempotency !== undefined) keys.keep(to, idempotency, deliveryId, nowMs);
      const message = { deliveryId, createdAtMs: nowMs, bytes, envelope, body };
      recipients.hold(to, { deliveryId, bytes, createdAtMs: nowMs, message });
      recipients.addWaiting(to);
      if (draft.isAwaited === true) recipients.hurry(to);
      return { deliveryId, state: "queued", queueDepth: recipients.waiting(to) };
    },

    acceptForGroup({ groupId, members, bytes, envelope, body, originFrameId = null, idempotency }, nowMs) {
      const earlier = idempotency === undefined ? null : keys.find(groupId, idempotency, nowMs);
      if (earlier !== null) return fannedOut(rows, earlier);
      if (members.length > 0 && !hasRoom(bytes, members.length)) {
        throw new GateRefusal("gate-outbox-full", FULL_RETRY_AFTER_MS);
      }
      const deliveries = members.map((agentDid) => ({ agentDid, deliveryId: nextId(nowMs) }));
      const range = `${deliveries[0]?.deliveryId ?? ""}${RANGE}${deliveries.at(-1)?.deliveryId ?? ""}`;
      if (idempotency !== undefined) keys.keep(groupId, idempotency, range, nowMs);
      const sharedId = deliveries[0]?.deliveryId;
      if (sharedId === undefined) return [];
      shared.write(sharedId, body);
      for (const { agentDid: to, deliveryId } of deliveries) {
        rows.write({ deliveryId, to, bytes, originFrameId, envelope, content: { sharedId }, nowMs });
      }
      for (const { agentDid: to, deliveryId } of deliveries) {
        const message = { deliveryId, createdAtMs: nowMs, bytes, envelope, body };
        recipients.hold(to, { deliveryId, bytes, createdAtMs: nowMs, sharedId, message });
        recipients.addWaiting(to);
        shared.hold(deliveryId, sharedId);
      }
      return deliveries;
    },

    hasRoom,
    dueRecipients: recipients.due,
    nextDueMs: recipients.nextDueMs,
    queueDepth: recipients.waiting,
    isHolding: () => recipients.count() > 0,

    nextBatch(to) {
      const queue = recipients.of(to);
      const messages: QueuedMessage[] = [];
      let bytes = 0;
      let position = 0;
      // One is enough to ask a full queue, or a gate that has failed, whether it takes more.
      const most = queue.failures > 0 ? 1 : TRANSFER_BATCH_MAX;
      while (position < queue.held.length && messages.length < most) {
        const held = queue.held[position]!;
        if (messages.length > 0 && bytes + held.bytes > TRANSFER_BYTES_MAX) break;
        const message = held.message ?? messageOf(held.deliveryId, held.bytes, rows.content(held.deliveryId));
        if (message === null) {
          recipients.drop(queue, position);
          continue;
        }
        messages.push(message);
        bytes += held.bytes;
        position += 1;
      }
      queue.isBusy = messages.length > 0;
      if (position === queue.held.length) queue.isUrgent = false;
      return messages;
    },

    handedOver(to, offered, taken, nowMs) {
      for (const deliveryId of recipients.handedOver(to, offered, taken, nowMs)) unrecorded.set(deliveryId, nowMs);
    },
    handOverFailed: recipients.handOverFailed,

    hasExpired: (to, nowMs) => recipients.of(to).held.some(({ createdAtMs }) => isTooOld(createdAtMs, nowMs)),
    expire(to, nowMs) {
      const queue = recipients.of(to);
      const expired = queue.held.filter(({ createdAtMs }) => isTooOld(createdAtMs, nowMs));
      return expired
        .map((held) => {
          recipients.drop(queue, queue.held.indexOf(held));
          const { deliveryId } = held;
          return settlement.settleOne({ deliveryId, delivered: false, reason: "expired", attempts: 0, atMs: nowMs });
        })
        .filter((receipt) => receipt !== null);
    },

    recordHandedOver(nowMs) {
      const due: string[] = [];
      for (const [deliveryId, sinceMs] of unrecorded) {
        if (sinceMs + HANDED_OVER_RECORDED_AFTER_MS > nowMs) break;
        due.push(deliveryId);
      }
      if (due.length === 0) return;
      rows.handedOver(due, nowMs);
      for (const deliveryId of due) {
        unrecorded.delete(deliveryId);
        shared.release(deliveryId);
      }
    },
    nextRecordMs() {
      for (const sinceMs of unrecorded.values()) return sinceMs + HANDED_OVER_RECORDED_AFTER_MS;
      return null;
    },

    settle: settlement.settle,
    handle: settlement.handle,
    handlingOf(deliveryId, recipient) {
      const row = rows.status(deliveryId);
      const outcome = OUTBOX_STATE_NAMES[row?.state ?? 0];
      if (row === null || row.to_did !== recipient) return null;
      return outcome === "handled" || outcome === "failed" ? { outcome, reason: row.reason } : null;
    },

    receiptsDue: (after) => rows.receiptsDue(after).map(receiptOf),
    receiptsConfirmed: rows.receiptsConfirmed,

    status(deliveryId, nowMs) {
      const row = rows.status(deliveryId);
      if (row === null) return null;
      const isOver = row.state >= OUTBOX_STATE.delivered;
      if (isOver && row.updated_at_ms <= nowMs - STATUS_RETENTION_MS) return null;
      return {
        deliveryId,
        state: OUTBOX_STATE_NAMES[row.state] ?? "queued",
        ...(row.reason === null ? {} : { reason: row.reason }),
        attempts: row.attempts,
        updatedAtMs: row.updated_at_ms,
        to: row.to_did as AgentDid,
        handedOver: row.state === OUTBOX_STATE.handedOver || (!isOver && unrecorded.has(deliveryId)),
      };
    },

    prune(nowMs) {
      const hasMore = [rows.prune(nowMs), keys.prune(nowMs)].includes(true);
      lastPrunedMs = hasMore ? 0 : nowMs;
    },
    nextPruneMs() {
      const due = Math.min(rows.nextPruneMs() ?? Infinity, keys.nextPruneMs() ?? Infinity);
      return due === Infinity ? null : Math.max(due, lastPrunedMs + PRUNE_EVERY_MS);
    },
  };
}

/** What stands between the first and the last id of a send to all of a group, in its idempotency key: ids only rise. */
const RANGE = "..";

function fannedOut(rows: Pick<OutboxRows, "between">, range: string): FannedOut[] {
  const [first = "", last = ""] = range.split(RANGE);
  return rows
    .between(first, last)
    .map(({ delivery_id: deliveryId, to_did }) => ({ agentDid: to_did as AgentDid, deliveryId }));
}

function messageOf(
  deliveryId: string,
  bytes: number,
  content: { created_at_ms: number; envelope: string; body: string } | null,
): QueuedMessage | null {
  if (content === null) return null;
  const { created_at_ms: createdAtMs, envelope, body } = content;
  return { deliveryId, createdAtMs, bytes, envelope, body };
}
