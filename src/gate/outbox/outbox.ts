/**
 * The sender's side of a delivery: what this agent has sent and what became of it. A row is written in the commit that
 * answers the sender; its body goes once the recipient's gate has it on disk; the row stays 24 hours for whoever asks.
 */
import type { DeliveryStatus } from "../../call/gate.ts";
import type { AgentDid } from "../../wire/did.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import {
  HELD_BYTES_MAX,
  type DeliveryOutcome,
  type QueuedMessage,
  TRANSFER_BYTES_MAX,
  TRANSFER_BATCH_MAX,
} from "../protocol/transfer.ts";
import { createOutboxLanes } from "./recipients.ts";

const STATE = { held: 0, handedOver: 1, delivered: 2, deadLettered: 3 } as const;
const STATUS_KEPT_MS = 86_400_000;
/** Receipts for a sender that does not come are kept as long as dead letters are; then there is nothing left to be told about. */
const RECEIPTS_KEPT_MS = 7 * 86_400_000;
const RECEIPTS_AT_ONCE = 500;
const PRUNE_EVERY_MS = 3_600_000;
const PRUNED_AT_ONCE = 2_000;
const KEPT = [
  { receiptDue: 0, keptMs: STATUS_KEPT_MS },
  { receiptDue: 1, keptMs: RECEIPTS_KEPT_MS },
] as const;
export type Draft = {
  to: AgentDid;
  bytes: number;
  envelope: string;
  body: string;
  /** Handed over at once. */
  isAwaited?: boolean;
  originFrameId?: string;
  idempotency?: { key: string; bodySha256: string };
};

/** `delivered` can only be true for a repeat under an idempotency key. */
export type Accepted = { deliveryId: string; delivered: boolean; queueDepth: number };

/** What is told to the sender over its socket. */
export type Receipt = {
  deliveryId: string;
  toAgentDid: AgentDid;
  originFrameId: string | null;
  delivered: boolean;
  reason: string | null;
};

type OutboxRow = { delivery_id: string; to_did: string; state: number; bytes: number };

export type Outbox = ReturnType<typeof createOutbox>;

export function createOutbox(sql: SqlStorage, limits: { outboxMax: number }, nextId: (nowMs: number) => string) {
  const lanes = createOutboxLanes();
  let lastPrunedMs = 0;

  for (const row of sql.exec<OutboxRow>(
    "SELECT delivery_id, to_did, state, bytes FROM outbox WHERE state < 2 ORDER BY delivery_id",
  )) {
    const to = row.to_did as AgentDid;
    lanes.waits(to);
    if (row.state === STATE.held) lanes.hold(to, row.delivery_id, row.bytes);
  }

  const statusOf = (deliveryId: string) =>
    sql
      .exec<{ to_did: string; state: number; reason: string | null; attempts: number; updated_at_ms: number }>(
        "SELECT to_did, state, reason, attempts, updated_at_ms FROM outbox WHERE delivery_id = ?",
        deliveryId,
      )
      .toArray()[0];

  /** Its receipt, if it has not been told yet, is that of its next end. */
  const waitAgain = ({ deliveryId, atMs }: DeliveryOutcome, to: AgentDid): void => {
    sql.exec(
      "UPDATE outbox SET state = 1, reason = NULL, attempts = 0, updated_at_ms = ?, receipt_due = 0 WHERE delivery_id = ?",
      atMs,
      deliveryId,
    );
    lanes.waits(to);
  };

  const hasRoom = (bytes: number): boolean =>
    lanes.count() < limits.outboxMax && lanes.bytes() + bytes <= HELD_BYTES_MAX;

  return {
    /**
     * Writes a message. The last step of the caller's transaction: what throws, throws before memory has changed.
     *
     * @throws GateRefusal for an idempotency key used with another body, or a full outbox.
     */
    accept(draft: Draft, nowMs: number): Accepted {
      const key = draft.idempotency === undefined ? null : `${draft.to} ${draft.idempotency.key}`;
      if (key !== null) {
        const earlier = sql
          .exec<{ body_sha256: string; delivery_id: string; created_at_ms: number }>(
            "SELECT body_sha256, delivery_id, created_at_ms FROM idempotency WHERE key = ?",
            key,
          )
          .toArray()[0];
        if (earlier !== undefined && earlier.created_at_ms > nowMs - STATUS_KEPT_MS) {
          if (earlier.body_sha256 !== draft.idempotency?.bodySha256) {
            throw new GateRefusal("gate-idempotency-conflict");
          }
          const delivered = statusOf(earlier.delivery_id)?.state === STATE.delivered;
          return { deliveryId: earlier.delivery_id, delivered, queueDepth: lanes.waiting(draft.to) };
        }
      }
      if (!hasRoom(draft.bytes)) throw new GateRefusal("gate-outbox-full", 1_000);
      const deliveryId = nextId(nowMs);
      sql.exec(
        `INSERT INTO outbox (delivery_id, to_did, state, bytes, created_at_ms, updated_at_ms, origin_frame_id, envelope, body)
         VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?)`,
        deliveryId,
        draft.to,
        draft.bytes,
        nowMs,
        nowMs,
        draft.originFrameId ?? null,
        draft.envelope,
        draft.body,
      );
      if (key !== null) {
        sql.exec(
          `INSERT INTO idempotency (key, body_sha256, delivery_id, created_at_ms) VALUES (?, ?, ?, ?)
           ON CONFLICT (key) DO UPDATE SET body_sha256 = excluded.body_sha256, delivery_id = excluded.delivery_id, created_at_ms = excluded.created_at_ms`,
          key,
          draft.idempotency?.bodySha256 ?? "",
          deliveryId,
          nowMs,
        );
      }
      lanes.hold(draft.to, deliveryId, draft.bytes, {
        deliveryId,
        createdAtMs: nowMs,
        bytes: draft.bytes,
        envelope: draft.envelope,
        body: draft.body,
      });
      lanes.waits(draft.to);
      if (draft.isAwaited === true) lanes.hurry(draft.to);
      return { deliveryId, delivered: false, queueDepth: lanes.waiting(draft.to) };
    },

    hasRoom,
    dueRecipients: lanes.due,
    nextDueMs: lanes.nextDueMs,
    queueDepth: lanes.waiting,
    isHolding: (): boolean => lanes.count() > 0,

    /**
     * The next batch for one recipient, in order; the lane is busy until `handedOver` or `handOverFailed`. A report may
     * have overtaken the answer to an earlier hand-over: what has ended meanwhile is no longer offered.
     */
    nextBatch(to: AgentDid): QueuedMessage[] {
      const lane = lanes.of(to);
      const messages: QueuedMessage[] = [];
      let bytes = 0;
      let position = 0;
      // One is enough to ask a full queue, or a gate that has failed, whether it takes more.
      const most = lane.failures > 0 ? 1 : TRANSFER_BATCH_MAX;
      while (position < lane.held.length && messages.length < most) {
        const held = lane.held[position]!;
        if (messages.length > 0 && bytes + held.bytes > TRANSFER_BYTES_MAX) break;
        if (held.message !== undefined) {
          messages.push(held.message);
          bytes += held.bytes;
          position += 1;
          continue;
        }
        const row = sql
          .exec<{ created_at_ms: number; envelope: string; body: string | null }>(
            "SELECT created_at_ms, envelope, body FROM outbox WHERE delivery_id = ? AND state = 0",
            held.deliveryId,
          )
          .toArray()[0];
        if (row === undefined || row.body === null) {
          lanes.drop(lane, position);
          continue;
        }
        const { created_at_ms: createdAtMs, envelope, body } = row;
        messages.push({ deliveryId: held.deliveryId, createdAtMs, bytes: held.bytes, envelope, body });
        bytes += held.bytes;
        position += 1;
      }
      lane.busy = messages.length > 0;
      if (position === lane.held.length) lane.isHurried = false;
      return messages;
    },

    handedOver: lanes.handedOver,
    handOverFailed: lanes.handOverFailed,

    /** The disk's part of a hand-over. */
    recordHandedOver(deliveryIds: readonly string[], nowMs: number): void {
      sql.exec(
        "UPDATE outbox SET state = 1, body = NULL, envelope = '{}', updated_at_ms = ? WHERE delivery_id IN (SELECT value FROM json_each(?)) AND state = 0",
        nowMs,
        JSON.stringify(deliveryIds),
      );
    },

    /** Applies what a recipient's gate reports. Repeats change nothing. Returns what the sender is to be told. */
    settle(outcomes: readonly DeliveryOutcome[], nowMs: number): Receipt[] {
      const receipts: Receipt[] = [];
      const ended: AgentDid[] = [];
      const settled = new Set<string>();
      const plain = outcomes.filter(
        ({ delivered, attempts, reason }) => delivered && attempts === 1 && reason === null,
      );
      if (plain.length > 0) {
        for (const row of sql.exec<{ delivery_id: string; to_did: string; origin_frame_id: string | null }>(
          `UPDATE outbox SET state = 2, body = NULL, envelope = '{}', attempts = 1, updated_at_ms = ?, receipt_due = 0
             WHERE delivery_id IN (SELECT value FROM json_each(?)) AND state < 2 RETURNING delivery_id, to_did, origin_frame_id`,
          nowMs,
          JSON.stringify(plain.map(({ deliveryId }) => deliveryId)),
        )) {
          settled.add(row.delivery_id);
          ended.push(row.to_did as AgentDid);
          // A report that overtook the answer to its hand-over: what is held still is read from disk again, and not offered.
          lanes.forgetParcel(row.to_did as AgentDid, row.delivery_id);
          receipts.push({
            deliveryId: row.delivery_id,
            toAgentDid: row.to_did as AgentDid,
            originFrameId: row.origin_frame_id,
            delivered: true,
            reason: null,
          });
        }
      }
      for (const outcome of outcomes) {
        if (settled.has(outcome.deliveryId)) continue;
        const row = sql
          .exec<{ to_did: string; state: number; origin_frame_id: string | null; updated_at_ms: number }>(
            "SELECT to_did, state, origin_frame_id, updated_at_ms FROM outbox WHERE delivery_id = ?",
            outcome.deliveryId,
          )
          .toArray()[0];
        // What was delivered stays delivered. A dead letter that is replayed waits again, and ends once more.
        if (row === undefined || row.state === STATE.delivered) continue;
        const wasDead = row.state === STATE.deadLettered;
        if (wasDead && !outcome.delivered && outcome.atMs <= row.updated_at_ms) continue;
        if (outcome.waitsAgain === true) {
          if (wasDead) waitAgain(outcome, row.to_did as AgentDid);
          continue;
        }
        const state = outcome.delivered ? STATE.delivered : STATE.deadLettered;
        sql.exec(
          "UPDATE outbox SET state = ?, body = NULL, envelope = '{}', reason = ?, attempts = ?, updated_at_ms = ?, receipt_due = ? WHERE delivery_id = ?",
          state,
          outcome.reason,
          outcome.attempts,
          outcome.atMs,
          outcome.delivered ? 0 : 1,
          outcome.deliveryId,
        );
        const to = row.to_did as AgentDid;
        lanes.forgetParcel(to, outcome.deliveryId);
        if (row.state < STATE.delivered) ended.push(to);
        const { deliveryId, delivered, reason } = outcome;
        receipts.push({ deliveryId, toAgentDid: to, originFrameId: row.origin_frame_id, delivered, reason });
      }
      for (const to of ended) lanes.ended(to);
      return receipts;
    },

    /** Receipts of dead letters that the sender has not been told yet, a batch of the oldest. */
    dueReceipts(): Receipt[] {
      return sql
        .exec<{ delivery_id: string; to_did: string; origin_frame_id: string | null; reason: string | null }>(
          "SELECT delivery_id, to_did, origin_frame_id, reason FROM outbox WHERE receipt_due = 1 ORDER BY delivery_id LIMIT ?",
          RECEIPTS_AT_ONCE,
        )
        .toArray()
        .map((row) => ({
          deliveryId: row.delivery_id,
          toAgentDid: row.to_did as AgentDid,
          originFrameId: row.origin_frame_id,
          delivered: false,
          reason: row.reason,
        }));
    },

    receiptTold(deliveryId: string): void {
      sql.exec("UPDATE outbox SET receipt_due = 0 WHERE delivery_id = ?", deliveryId);
    },

    /** What the sender may know of one of its messages; null after 24 hours. `to` is whom to ask for more while it waits. */
    status(deliveryId: string, nowMs: number): (DeliveryStatus & { to: AgentDid; handedOver: boolean }) | null {
      const row = statusOf(deliveryId);
      if (row === undefined) return null;
      if (row.state >= STATE.delivered && row.updated_at_ms <= nowMs - STATUS_KEPT_MS) return null;
      const state =
        row.state < STATE.delivered ? "queued" : row.state === STATE.delivered ? "delivered" : "dead_lettered";
      return {
        deliveryId,
        state,
        ...(row.reason === null ? {} : { reason: row.reason }),
        attempts: row.attempts,
        updatedAtMs: row.updated_at_ms,
        to: row.to_did as AgentDid,
        handedOver: row.state === STATE.handedOver,
      };
    },

    /** Forgets what ended more than 24 hours ago, some thousand rows a turn; what a sender has not been told, later. */
    prune(nowMs: number): void {
      let forgotten = 0;
      for (const { receiptDue, keptMs } of KEPT) {
        forgotten += sql.exec(
          `DELETE FROM outbox WHERE delivery_id IN (
             SELECT delivery_id FROM outbox WHERE state >= 2 AND receipt_due = ? AND updated_at_ms <= ? ORDER BY updated_at_ms LIMIT ?)`,
          receiptDue,
          nowMs - keptMs,
          PRUNED_AT_ONCE,
        ).rowsWritten;
      }
      forgotten += sql.exec(
        "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE created_at_ms <= ? ORDER BY created_at_ms LIMIT ?)",
        nowMs - STATUS_KEPT_MS,
        PRUNED_AT_ONCE,
      ).rowsWritten;
      lastPrunedMs = forgotten >= PRUNED_AT_ONCE ? 0 : nowMs;
    },

    /** When pruning is next worth waking for, at most once an hour; null while there is nothing to forget. */
    nextPruneMs(): number | null {
      let due = Infinity;
      for (const { receiptDue, keptMs } of KEPT) {
        const { oldest } = sql
          .exec<{ oldest: number | null }>(
            "SELECT MIN(updated_at_ms) AS oldest FROM outbox WHERE state >= 2 AND receipt_due = ?",
            receiptDue,
          )
          .one();
        if (oldest !== null) due = Math.min(due, oldest + keptMs);
      }
      const { oldest } = sql
        .exec<{ oldest: number | null }>("SELECT MIN(created_at_ms) AS oldest FROM idempotency")
        .one();
      if (oldest !== null) due = Math.min(due, oldest + STATUS_KEPT_MS);
      return due === Infinity ? null : Math.max(due, lastPrunedMs + PRUNE_EVERY_MS);
    },
  };
}
