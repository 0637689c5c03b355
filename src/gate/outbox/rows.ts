/** The rows of a sender's outbox, one a message. Statements alone: what they mean is decided by the outbox. */
import { readText, writeMeta } from "../../database/meta.ts";
import type { DeliveryState, Handling } from "../../call/gate.ts";
import type { AgentDid } from "../../wire/did.ts";
import { newUlid } from "../../wire/ulid.ts";
import type { DeliveryOutcome } from "../protocol/transfer.ts";
import { byId } from "../storage/ids.ts";
import type { Row } from "../storage/tables.ts";

/** Held here, taken over by the recipient's gate, and how it ended. */
export const OUTBOX_STATE = { held: 0, handedOver: 1, delivered: 2, deadLettered: 3, handled: 4, failed: 5 } as const;

/** The states by the names that a sender reads. */
export const OUTBOX_STATE_NAMES: readonly DeliveryState[] = [
  "queued",
  "queued",
  "delivered",
  "dead_lettered",
  "handled",
  "failed",
];

export const STATUS_RETENTION_MS = 86_400_000;
/** Receipts for a sender that does not come are kept as long as dead letters are. */
const RECEIPT_RETENTION_MS = 7 * 86_400_000;
const PRUNE_BATCH_MAX = 2_000;
const RECEIPT_BATCH_MAX = 500;
/** Nothing is open below this id: what has ended stays for a day, and a waking need not read it. */
const OPEN_FROM = "outbound_open_from";
const TIME_LENGTH = 10;

export type OpenRow = Pick<
  Row<"outbound">,
  "delivery_id" | "to_did" | "state" | "bytes" | "created_at_ms" | "shared_id"
>;
export type StatusRow = Pick<
  Row<"outbound">,
  "to_did" | "state" | "reason" | "attempts" | "updated_at_ms" | "origin_frame_id"
>;
export type ReceiptRow = Pick<Row<"outbound">, "delivery_id" | "to_did" | "state" | "origin_frame_id" | "reason">;

/** The statements. Each change is part of the caller's transaction. */
export type OutboxRows = {
  /** What has not ended, in the order of the ids. */
  open(): Iterable<OpenRow>;
  write(message: {
    deliveryId: string;
    to: AgentDid;
    bytes: number;
    originFrameId: string | null;
    envelope: string;
    /** The body's own text, or where it stands once for many messages. */
    content: { body: string } | { sharedId: string };
    nowMs: number;
  }): void;
  /** The messages whose ids are in a range, in their order. */
  between(first: string, last: string): { delivery_id: string; to_did: string }[];
  /** What is handed over, JSON texts; null for what has ended meanwhile. */
  content(deliveryId: string): (Pick<Row<"outbound">, "created_at_ms" | "envelope"> & { body: string }) | null;
  status(deliveryId: string): StatusRow | null;
  /** The recipient's gate has them. */
  handedOver(deliveryIds: readonly string[], nowMs: number): void;
  /** They were delivered at their first attempt. @returns those that were open */
  delivered(deliveryIds: readonly string[], nowMs: number): ReceiptRow[];
  /** A message has ended. */
  ended(outcome: DeliveryOutcome): void;
  /** The recipient's program has said what it made of a message. */
  handled(deliveryId: string, handling: Handling, nowMs: number): void;
  /** A dead letter waits again; a receipt that has not been sent is that of its next end. */
  waitsAgain(outcome: DeliveryOutcome): void;
  /** Receipts that the sender has not confirmed, a batch of the oldest above an id. */
  receiptsDue(after: string | null): ReceiptRow[];
  receiptsConfirmed(deliveryIds: readonly string[]): void;
  /** Forgets what is past, some thousand rows. @returns whether there may be more */
  prune(nowMs: number): boolean;
  /** When there is something to forget; null while there is nothing. */
  nextPruneMs(): number | null;
};

/** @returns the statements on a gate's own tables. */
export function createOutboxRows(sql: SqlStorage): OutboxRows {
  let openFrom = readText(sql, OPEN_FROM) ?? "";

  const moveOpenFrom = (id: string): void => {
    if (id === openFrom) return;
    openFrom = id;
    writeMeta(sql, OPEN_FROM, id);
  };

  return {
    open: () =>
      sql.exec<OpenRow>(
        "SELECT delivery_id, to_did, state, bytes, created_at_ms, shared_id FROM outbound WHERE delivery_id >= ? AND state < 2 ORDER BY delivery_id",
        openFrom,
      ),

    write({ deliveryId, to, bytes, originFrameId, envelope, content, nowMs }) {
      sql.exec(
        `INSERT INTO outbound (delivery_id, to_did, state, bytes, created_at_ms, updated_at_ms, origin_frame_id, envelope, body, shared_id)
         VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?)`,
        deliveryId,
        to,
        bytes,
        nowMs,
        nowMs,
        originFrameId,
        envelope,
        "body" in content ? content.body : null,
        "sharedId" in content ? content.sharedId : null,
      );
    },

    between: (first, last) =>
      sql
        .exec<Pick<Row<"outbound">, "delivery_id" | "to_did">>(
          "SELECT delivery_id, to_did FROM outbound WHERE delivery_id BETWEEN ? AND ? ORDER BY delivery_id",
          first,
          last,
        )
        .toArray(),

    content(deliveryId) {
      const row = sql
        .exec<Pick<Row<"outbound">, "created_at_ms" | "envelope" | "body">>(
          `SELECT created_at_ms, envelope,
             COALESCE(body, (SELECT body FROM shared_bodies WHERE shared_bodies.shared_id = outbound.shared_id)) AS body
           FROM outbound WHERE delivery_id = ? AND state = 0`,
          deliveryId,
        )
        .toArray()[0];
      return row === undefined || row.body === null ? null : { ...row, body: row.body };
    },

    // What had been delivered before messages moved to the table of today stays in the old one for its day.
    status: (deliveryId) => statusIn(sql, "outbound", deliveryId) ?? statusIn(sql, "outbox", deliveryId) ?? null,

    handedOver(deliveryIds, nowMs) {
      sql.exec(
        `UPDATE outbound SET state = 1, body = NULL, envelope = '{}', updated_at_ms = ?
           WHERE delivery_id IN (SELECT value FROM json_each(?)) AND state = 0`,
        nowMs,
        JSON.stringify(deliveryIds),
      );
    },

    delivered(deliveryIds, nowMs) {
      const { where, value } = byId(deliveryIds);
      return sql
        .exec<ReceiptRow>(
          `UPDATE outbound SET state = 2, body = NULL, envelope = '{}', attempts = 1, updated_at_ms = ?, receipt_due = 0
             WHERE ${where} AND state < 2 RETURNING delivery_id, to_did, state, origin_frame_id, reason`,
          nowMs,
          value,
        )
        .toArray();
    },

    ended({ deliveryId, delivered, reason, attempts, atMs }) {
      sql.exec(
        `UPDATE outbound SET state = ?, body = NULL, envelope = '{}', reason = ?, attempts = ?, updated_at_ms = ?, receipt_due = ?
           WHERE delivery_id = ?`,
        delivered ? OUTBOX_STATE.delivered : OUTBOX_STATE.deadLettered,
        reason,
        attempts,
        atMs,
        delivered ? 0 : 1,
        deliveryId,
      );
    },

    handled(deliveryId, { outcome, reason }, nowMs) {
      sql.exec(
        `UPDATE outbound SET state = ?, body = NULL, envelope = '{}', reason = ?, updated_at_ms = ?, receipt_due = 1 WHERE delivery_id = ?`,
        OUTBOX_STATE[outcome],
        reason,
        nowMs,
        deliveryId,
      );
    },

    waitsAgain({ deliveryId, atMs }) {
      sql.exec(
        "UPDATE outbound SET state = 1, reason = NULL, attempts = 0, updated_at_ms = ?, receipt_due = 0 WHERE delivery_id = ?",
        atMs,
        deliveryId,
      );
      if (deliveryId < openFrom) moveOpenFrom(deliveryId);
    },

    receiptsDue: (after) =>
      sql
        .exec<ReceiptRow>(
          `SELECT delivery_id, to_did, state, origin_frame_id, reason FROM outbound
             WHERE receipt_due = 1 AND delivery_id > ? ORDER BY delivery_id LIMIT ?`,
          after ?? "",
          RECEIPT_BATCH_MAX,
        )
        .toArray(),

    receiptsConfirmed(deliveryIds) {
      sql.exec(
        "UPDATE outbound SET receipt_due = 0 WHERE delivery_id IN (SELECT value FROM json_each(?)) AND receipt_due = 1",
        JSON.stringify(deliveryIds),
      );
    },

    prune(nowMs) {
      const oldest = sql
        .exec<Pick<OpenRow, "delivery_id">>(
          "SELECT delivery_id FROM outbound WHERE delivery_id >= ? AND state < 2 ORDER BY delivery_id LIMIT 1",
          openFrom,
        )
        .toArray()[0]?.delivery_id;
      const newest = sql.exec<{ id: string | null }>("SELECT MAX(delivery_id) AS id FROM outbound").one().id;
      moveOpenFrom(oldest ?? newest ?? openFrom);
      const pastMs = nowMs - STATUS_RETENTION_MS;
      // Ids carry their time: what is younger than a day need not be looked at.
      const forgotten = sql.exec(
        `DELETE FROM outbound WHERE delivery_id IN (
           SELECT delivery_id FROM outbound WHERE delivery_id < ?1 AND state >= 2
             AND (receipt_due = 0 AND updated_at_ms <= ?2 OR updated_at_ms <= ?3) ORDER BY delivery_id LIMIT ?4)`,
        newUlid(Math.max(0, pastMs)).slice(0, TIME_LENGTH) + "~",
        pastMs,
        nowMs - RECEIPT_RETENTION_MS,
        PRUNE_BATCH_MAX,
      ).rowsWritten;
      const old = sql.exec(
        `DELETE FROM outbox WHERE delivery_id IN (
           SELECT delivery_id FROM outbox WHERE state >= 2 AND receipt_due = 0 AND updated_at_ms <= ? ORDER BY updated_at_ms LIMIT ?)`,
        pastMs,
        PRUNE_BATCH_MAX,
      ).rowsWritten;
      return forgotten >= PRUNE_BATCH_MAX || old >= PRUNE_BATCH_MAX;
    },

    nextPruneMs() {
      const { ended, due, old } = sql
        .exec<{ ended: number | null; due: number | null; old: number | null }>(
          `SELECT (SELECT updated_at_ms FROM outbound WHERE state >= 2 AND receipt_due = 0 ORDER BY delivery_id LIMIT 1) AS ended,
                  (SELECT MIN(updated_at_ms) FROM outbound WHERE receipt_due = 1) AS due,
                  (SELECT MIN(updated_at_ms) FROM outbox WHERE state >= 2 AND receipt_due = 0) AS old`,
        )
        .one();
      const next = Math.min(
        (ended ?? Infinity) + STATUS_RETENTION_MS,
        (old ?? Infinity) + STATUS_RETENTION_MS,
        (due ?? Infinity) + RECEIPT_RETENTION_MS,
      );
      return next === Infinity ? null : next;
    },
  };
}

function statusIn(sql: SqlStorage, table: "outbound" | "outbox", deliveryId: string): StatusRow | undefined {
  return sql
    .exec<StatusRow>(
      `SELECT to_did, state, reason, attempts, updated_at_ms, origin_frame_id FROM ${table} WHERE delivery_id = ?`,
      deliveryId,
    )
    .toArray()[0];
}
