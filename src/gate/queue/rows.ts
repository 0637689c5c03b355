/** The rows of a recipient's queue, one a message. Statements alone: what they mean is decided by the queue. */
import type { Envelope, QueuedMessage } from "../protocol/transfer.ts";
import { byId } from "../storage/ids.ts";
import type { Row } from "../storage/tables.ts";
import type { QueueEntry } from "./dispatch.ts";

/** 3 is a dead letter that was purged. */
export const QUEUE_STATE = { queued: 0, delivered: 1, deadLettered: 2 } as const;

/** What has ended is recognised so much longer, should a transfer come late. */
const REPEAT_KNOWN_MS = 600_000;
/** Most ids of reported messages that are remembered for it. */
const REPEATS_KNOWN_MAX = 20_000;
const PRUNE_BATCH_MAX = 2_000;

/** A row without what is pushed. */
export type QueueRow = Omit<Row<"inbound">, "envelope" | "body">;

const COLUMNS =
  "delivery_id, sender, state, bytes, created_at_ms, updated_at_ms, held_ms, attempts, due_at_ms, socket_id, is_pushed, holder, reason, reported, revived";

/** The statements. Each change is part of the caller's transaction. */
export type QueueRows = {
  /** What waits, and what has ended and its sender's gate does not know yet; in the order of their ids. */
  unreported(): Iterable<QueueRow>;
  /** Which of them have been taken over before, in whatever state they are. */
  known(deliveryIds: readonly string[]): Set<string>;
  /** Writes a message; one with a reason is a dead letter from the start. */
  write(sender: string, message: QueuedMessage, reason: string | null, nowMs: number): void;
  /** What is pushed, JSON texts. */
  content(deliveryId: string): { envelope: string; body: string };
  envelope(deliveryId: string): Envelope;
  /** Records where a message is and what has been tried. */
  place(entry: QueueEntry, missedSocketId: string | null): void;
  /** Records time that does not count for any of a sender's messages that still wait. */
  hold(entries: readonly QueueEntry[]): void;
  /** @param isPending whether there is a gate that has to know */
  delivered(deliveryIds: readonly string[], isPending: boolean, nowMs: number): void;
  /** A dead letter keeps its body. @param why.isPending whether there is a gate that has to know */
  dead(deliveryId: string, why: { reason: string; attempts: number; isPending: boolean }, nowMs: number): void;
  /** Their senders' gates know how they ended: what was delivered is forgotten, dead letters stay. */
  reported(ids: { delivered: readonly string[]; dead: readonly string[] }, nowMs: number): void;
  /** Their senders' gates know that they wait again. */
  revivalReported(deliveryIds: readonly string[]): void;
  /** A dead letter that may wait again. */
  deadLetter(deliveryId: string): QueueRow | null;
  /** It waits again, by no trust but the recipient's own will. */
  revive(deliveryId: string, nowMs: number): void;
  /** Forgets what is past, a bounded number of rows. */
  prune(nowMs: number): void;
  /** When pruning is next worth waking for; null when there is nothing to forget. */
  nextPruneMs(): number | null;
};

/** @param deadLetterRetentionMs how long a dead letter is kept */
export function createQueueRows(sql: SqlStorage, deadLetterRetentionMs: number): QueueRows {
  const repeats = createRepeats();
  return {
    unreported: () =>
      sql.exec<QueueRow>(`SELECT ${COLUMNS} FROM inbound WHERE state = 0 OR reported = 0 ORDER BY delivery_id`),

    known(deliveryIds) {
      const { where, value } = byId(deliveryIds);
      const rows = sql.exec<Pick<QueueRow, "delivery_id">>(`SELECT delivery_id FROM inbound WHERE ${where}`, value);
      return new Set([...rows.toArray().map((row) => row.delivery_id), ...deliveryIds.filter(repeats.has)]);
    },

    write(sender, message, reason, nowMs) {
      sql.exec(
        `INSERT INTO inbound (delivery_id, sender, state, reason, bytes, created_at_ms, updated_at_ms, due_at_ms, envelope, body)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        message.deliveryId,
        sender,
        reason === null ? QUEUE_STATE.queued : QUEUE_STATE.deadLettered,
        reason,
        message.bytes,
        message.createdAtMs,
        nowMs,
        nowMs,
        message.envelope,
        message.body,
      );
    },

    content: (deliveryId) =>
      sql
        .exec<{ envelope: string; body: string }>(
          "SELECT envelope, body FROM inbound WHERE delivery_id = ?",
          deliveryId,
        )
        .one(),

    envelope: (deliveryId) =>
      JSON.parse(
        sql.exec<{ envelope: string }>("SELECT envelope FROM inbound WHERE delivery_id = ?", deliveryId).one().envelope,
      ) as Envelope,

    place(entry, missedSocketId) {
      sql.exec(
        "UPDATE inbound SET socket_id = ?, is_pushed = ?, holder = ?, attempts = ?, due_at_ms = ? WHERE delivery_id = ?",
        entry.socketId ?? missedSocketId,
        entry.socketId === null ? 0 : 1,
        entry.holder,
        entry.attempts,
        entry.dueAtMs === Infinity ? 0 : entry.dueAtMs,
        entry.deliveryId,
      );
    },

    hold(entries) {
      for (const { deliveryId, heldMs } of entries) {
        sql.exec("UPDATE inbound SET held_ms = ? WHERE delivery_id = ?", heldMs, deliveryId);
      }
    },

    delivered(deliveryIds, isPending, nowMs) {
      const { where, value } = byId(deliveryIds);
      sql.exec(
        `UPDATE inbound SET state = 1, body = NULL, envelope = '{}', updated_at_ms = ?, socket_id = NULL, is_pushed = 0, reported = ?
           WHERE ${where}`,
        nowMs,
        isPending ? 0 : 1,
        value,
      );
    },

    dead(deliveryId, why, nowMs) {
      sql.exec(
        `UPDATE inbound SET state = 2, reason = ?, attempts = ?, updated_at_ms = ?, socket_id = NULL, is_pushed = 0, reported = ?
           WHERE delivery_id = ?`,
        why.reason,
        why.attempts,
        nowMs,
        why.isPending ? 0 : 1,
        deliveryId,
      );
    },

    reported({ delivered, dead }, nowMs) {
      if (delivered.length > 0) {
        const { where, value } = byId(delivered);
        sql.exec(`DELETE FROM inbound WHERE ${where}`, value);
        repeats.remember(delivered, nowMs);
      }
      if (dead.length > 0) {
        sql.exec(
          "UPDATE inbound SET reported = 1 WHERE delivery_id IN (SELECT value FROM json_each(?))",
          JSON.stringify(dead),
        );
      }
    },

    revivalReported(deliveryIds) {
      sql.exec(
        "UPDATE inbound SET revived = 0 WHERE delivery_id IN (SELECT value FROM json_each(?))",
        JSON.stringify(deliveryIds),
      );
    },

    deadLetter: (deliveryId) =>
      sql
        .exec<QueueRow>(`SELECT ${COLUMNS} FROM inbound WHERE delivery_id = ? AND state = 2`, deliveryId)
        .toArray()[0] ?? null,

    revive(deliveryId, nowMs) {
      sql.exec(
        `UPDATE inbound SET state = 0, attempts = 0, reason = NULL, created_at_ms = ?1, updated_at_ms = ?1, due_at_ms = ?1,
           held_ms = 0, holder = NULL, reported = 0, revived = 1, envelope = json_remove(envelope, '$.trustEpoch', '$.groupEpoch')
           WHERE delivery_id = ?2`,
        nowMs,
        deliveryId,
      );
    },

    prune(nowMs) {
      repeats.prune(nowMs);
      sql.exec(
        `DELETE FROM inbound WHERE delivery_id IN (
           SELECT delivery_id FROM inbound
             WHERE reported = 1 AND (state IN (1, 3) AND updated_at_ms <= ?1 OR state = 2 AND updated_at_ms <= ?2) LIMIT ?3)`,
        nowMs - REPEAT_KNOWN_MS,
        nowMs - deadLetterRetentionMs,
        PRUNE_BATCH_MAX,
      );
      // What had ended before messages moved to the table of today.
      sql.exec(
        "DELETE FROM queue WHERE delivery_id IN (SELECT delivery_id FROM queue WHERE updated_at_ms <= ? LIMIT ?)",
        nowMs - REPEAT_KNOWN_MS,
        PRUNE_BATCH_MAX,
      );
    },

    nextPruneMs() {
      const oldest = oldestOver(sql);
      const due = Math.min(
        (oldest.ended ?? Infinity) + REPEAT_KNOWN_MS,
        (oldest.moved ?? Infinity) + REPEAT_KNOWN_MS,
        (oldest.dead ?? Infinity) + deadLetterRetentionMs,
      );
      return due === Infinity ? null : due;
    },
  };
}

/** When the oldest of those that are over ended. */
function oldestOver(sql: SqlStorage): { ended: number | null; dead: number | null; moved: number | null } {
  return sql
    .exec<{ ended: number | null; dead: number | null; moved: number | null }>(
      `SELECT MIN(CASE WHEN reported = 1 AND state IN (1, 3) THEN updated_at_ms END) AS ended,
              MIN(CASE WHEN reported = 1 AND state = 2 THEN updated_at_ms END) AS dead,
              (SELECT updated_at_ms FROM queue LIMIT 1) AS moved FROM inbound`,
    )
    .one();
}

/** Ids of messages that are over and forgotten on disk, for a transfer that was on its way meanwhile. Memory alone. */
function createRepeats() {
  const atMs = new Map<string, number>();
  const drop = (isPast: (ms: number) => boolean): void => {
    for (const [id, ms] of atMs) {
      if (!isPast(ms)) return;
      atMs.delete(id);
    }
  };
  return {
    has: (deliveryId: string): boolean => atMs.has(deliveryId),
    remember(deliveryIds: readonly string[], nowMs: number): void {
      for (const id of deliveryIds) atMs.set(id, nowMs);
      drop(() => atMs.size > REPEATS_KNOWN_MAX);
    },
    prune: (nowMs: number): void => drop((ms) => ms + REPEAT_KNOWN_MS <= nowMs),
  };
}
