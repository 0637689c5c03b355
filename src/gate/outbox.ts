/**
 * The sender's side of a delivery: what this agent has sent and what became of it. A row is written in the commit that
 * answers the sender; its body goes once the recipient's gate has it on disk; the row stays 24 hours for whoever asks.
 */
import type { AgentDid } from "../wire/did.ts";
import { GateRefusal } from "./admission.ts";
import {
  BATCH_TICK_MS,
  HELD_BYTES_MAX,
  type Outcome,
  PARCEL_BYTES_AT_ONCE,
  PARCELS_AT_ONCE,
  type Parcel,
  retryDelayMs,
} from "./delivery.ts";

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
/** A recipient whose queue is full makes room by the second; one whose gate does not answer takes longer. */
const FULL_RETRY = { initialMs: 250, maxMs: 5_000, jitterRatio: 0.2 };
const FAILED_RETRY = { initialMs: 1_000, maxMs: 30_000, jitterRatio: 0.2 };

export type Draft = {
  to: AgentDid;
  bytes: number;
  envelope: string;
  body: string;
  originFrameId?: string;
  idempotency?: { key: string; bodySha256: string };
};

/** `delivered` can only be true for a repeat under an idempotency key. */
export type Accepted = { deliveryId: string; delivered: boolean; queueDepth: number };

export type DeliveryStatus = {
  deliveryId: string;
  state: "queued" | "delivered" | "dead_lettered";
  reason?: string;
  attempts: number;
  updatedAtMs: number;
};

/** What is told to the sender over its socket. */
export type Receipt = {
  deliveryId: string;
  toAgentDid: AgentDid;
  originFrameId: string | null;
  delivered: boolean;
  reason: string | null;
};

/** One recipient, as this sender sees it. Held: not yet taken over. Waiting: held, or taken over and not yet ended. */
type Lane = {
  held: { deliveryId: string; bytes: number; parcel?: Parcel }[];
  waiting: number;
  busy: boolean;
  dueAtMs: number;
  failures: number;
};

type OutboxRow = { delivery_id: string; to_did: string; state: number; bytes: number };

export type Outbox = ReturnType<typeof createOutbox>;

export function createOutbox(sql: SqlStorage, limits: { outboxMax: number }, nextId: (nowMs: number) => string) {
  const lanes = new Map<AgentDid, Lane>();
  let heldCount = 0;
  let heldBytes = 0;
  let lastPrunedMs = 0;

  const laneOf = (to: AgentDid): Lane => {
    let lane = lanes.get(to);
    if (lane === undefined) {
      lane = { held: [], waiting: 0, busy: false, dueAtMs: 0, failures: 0 };
      lanes.set(to, lane);
    }
    return lane;
  };

  const hold = (to: AgentDid, deliveryId: string, bytes: number, parcel?: Parcel): void => {
    const keeps = parcel !== undefined && heldBytes + bytes < 1_048_576;
    laneOf(to).held.push({ deliveryId, bytes, ...(keeps ? { parcel } : {}) });
    heldCount += 1;
    heldBytes += bytes;
  };

  const release = (held: { bytes: number }): void => {
    heldCount -= 1;
    heldBytes -= held.bytes;
  };

  for (const row of sql.exec<OutboxRow>(
    "SELECT delivery_id, to_did, state, bytes FROM outbox WHERE state < 2 ORDER BY delivery_id",
  )) {
    const to = row.to_did as AgentDid;
    laneOf(to).waiting += 1;
    if (row.state === STATE.held) hold(to, row.delivery_id, row.bytes);
  }

  const statusOf = (deliveryId: string) =>
    sql
      .exec<{ to_did: string; state: number; reason: string | null; attempts: number; updated_at_ms: number }>(
        "SELECT to_did, state, reason, attempts, updated_at_ms FROM outbox WHERE delivery_id = ?",
        deliveryId,
      )
      .toArray()[0];

  return {
    /**
     * Writes a message. The last step of the caller's transaction: what throws, throws before memory has changed.
     *
     * @throws GateRefusal for an idempotency key used with another body, or a full outbox.
     */
    accept(draft: Draft, nowMs: number): Accepted {
      const lane = laneOf(draft.to);
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
          return { deliveryId: earlier.delivery_id, delivered, queueDepth: lane.waiting };
        }
      }
      if (heldCount >= limits.outboxMax || heldBytes + draft.bytes > HELD_BYTES_MAX) {
        throw new GateRefusal("gate-outbox-full", 1_000);
      }
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
      hold(draft.to, deliveryId, draft.bytes, {
        deliveryId,
        createdAtMs: nowMs,
        bytes: draft.bytes,
        envelope: draft.envelope,
        body: draft.body,
      });
      lane.waiting += 1;
      return { deliveryId, delivered: false, queueDepth: lane.waiting };
    },

    assertRoom(bytes: number): void {
      if (heldCount >= limits.outboxMax || heldBytes + bytes > HELD_BYTES_MAX)
        throw new GateRefusal("gate-outbox-full", 1_000);
    },

    /** The recipients that a hand-over may start for now. */
    dueLanes(nowMs: number): AgentDid[] {
      const due: AgentDid[] = [];
      for (const [to, lane] of lanes) {
        if (lane.busy || lane.dueAtMs > nowMs) continue;
        if (lane.held.length > 0) due.push(to);
        else if (lane.waiting === 0) lanes.delete(to);
      }
      return due;
    },

    /** When the next hand-over is due; null while nothing is held. */
    nextDueMs(): number | null {
      let due: number | null = null;
      for (const lane of lanes.values()) {
        if (lane.held.length > 0 && !lane.busy && (due === null || lane.dueAtMs < due)) due = lane.dueAtMs;
      }
      return due;
    },

    /** This agent's messages that wait for a recipient, here or in its queue. */
    queueDepth: (to: AgentDid): number => lanes.get(to)?.waiting ?? 0,

    isHolding: (): boolean => heldCount > 0,

    /**
     * The next batch for one recipient, in order; the lane is busy until `handedOver` or `handOverFailed`. A report may
     * have overtaken the answer to an earlier hand-over: what has ended meanwhile is no longer offered.
     */
    nextBatch(to: AgentDid): Parcel[] {
      const lane = laneOf(to);
      const parcels: Parcel[] = [];
      let bytes = 0;
      let position = 0;
      // One is enough to ask a full queue, or a gate that has failed, whether it takes more.
      const most = lane.failures > 0 ? 1 : PARCELS_AT_ONCE;
      while (position < lane.held.length && parcels.length < most) {
        const held = lane.held[position]!;
        if (parcels.length > 0 && bytes + held.bytes > PARCEL_BYTES_AT_ONCE) break;
        if (held.parcel !== undefined) {
          parcels.push(held.parcel);
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
          lane.held.splice(position, 1);
          release(held);
          continue;
        }
        const { created_at_ms: createdAtMs, envelope, body } = row;
        parcels.push({ deliveryId: held.deliveryId, createdAtMs, bytes: held.bytes, envelope, body });
        bytes += held.bytes;
        position += 1;
      }
      lane.busy = parcels.length > 0;
      return parcels;
    },

    /** Memory's part of a hand-over: the first `taken` of the lane are the recipient's now. Returns what the disk is to be told. */
    handedOver(to: AgentDid, offered: number, taken: number, nowMs: number): string[] {
      const lane = laneOf(to);
      lane.busy = false;
      lane.failures = taken === offered ? 0 : taken > 0 ? 1 : lane.failures + 1;
      lane.dueAtMs =
        nowMs + (lane.failures === 0 ? BATCH_TICK_MS : retryDelayMs(lane.failures, FULL_RETRY, Math.random()));
      const gone = lane.held.splice(0, taken);
      for (const held of gone) release(held);
      return gone.map(({ deliveryId }) => deliveryId);
    },

    /** A hand-over that got no answer: the same batch again after a while. The recipient's gate tells repeats apart. */
    handOverFailed(to: AgentDid, nowMs: number): void {
      const lane = laneOf(to);
      lane.busy = false;
      lane.failures += 1;
      lane.dueAtMs = nowMs + retryDelayMs(lane.failures, FAILED_RETRY, Math.random());
    },

    /** The disk's part of a hand-over. */
    recordHandedOver(deliveryIds: readonly string[], nowMs: number): void {
      sql.exec(
        "UPDATE outbox SET state = 1, body = NULL, envelope = '{}', updated_at_ms = ? WHERE delivery_id IN (SELECT value FROM json_each(?)) AND state = 0",
        nowMs,
        JSON.stringify(deliveryIds),
      );
    },

    /** Applies what a recipient's gate reports. Repeats change nothing. Returns what the sender is to be told. */
    settle(outcomes: readonly Outcome[], nowMs: number): Receipt[] {
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
          delete lanes.get(row.to_did as AgentDid)?.held.find(({ deliveryId }) => deliveryId === row.delivery_id)
            ?.parcel;
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
          .exec<{ to_did: string; state: number; origin_frame_id: string | null }>(
            "SELECT to_did, state, origin_frame_id FROM outbox WHERE delivery_id = ?",
            outcome.deliveryId,
          )
          .toArray()[0];
        const state = outcome.delivered ? STATE.delivered : STATE.deadLettered;
        // A dead letter that was replayed may still be delivered; what was delivered stays delivered.
        if (row === undefined || row.state === STATE.delivered || row.state === state) continue;
        sql.exec(
          "UPDATE outbox SET state = ?, body = NULL, envelope = '{}', reason = ?, attempts = ?, updated_at_ms = ?, receipt_due = ? WHERE delivery_id = ?",
          state,
          outcome.reason,
          outcome.attempts,
          nowMs,
          outcome.delivered ? 0 : 1,
          outcome.deliveryId,
        );
        const to = row.to_did as AgentDid;
        delete lanes.get(to)?.held.find(({ deliveryId }) => deliveryId === outcome.deliveryId)?.parcel;
        if (row.state < STATE.delivered) ended.push(to);
        const { deliveryId, delivered, reason } = outcome;
        receipts.push({ deliveryId, toAgentDid: to, originFrameId: row.origin_frame_id, delivered, reason });
      }
      for (const to of ended) laneOf(to).waiting -= 1;
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
