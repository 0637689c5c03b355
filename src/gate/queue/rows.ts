/** The rows of a recipient's queue, one a message. Statements alone: what they mean is decided by the queue. */
import type { QueuedMessage } from "../protocol/transfer.ts";

/** 3 is a dead letter that was purged. */
export const QUEUE_STATE = { queued: 0, delivered: 1, deadLettered: 2 } as const;

/** What has been reported is kept a while longer, so that a hand-over that comes late is known for a repeat. */
const REPEAT_KNOWN_MS = 600_000;
const PRUNED_AT_ONCE = 2_000;

export type QueueRow = {
  delivery_id: string;
  lane: string;
  state: number;
  bytes: number;
  created_at_ms: number;
  attempts: number;
  due_at_ms: number;
  updated_at_ms: number;
  socket_id: string | null;
  reason: string | null;
  revived: 0 | 1;
};

const COLUMNS =
  "delivery_id, lane, state, bytes, created_at_ms, attempts, due_at_ms, updated_at_ms, socket_id, reason, revived";

export type QueueRows = ReturnType<typeof createQueueRows>;

export function createQueueRows(sql: SqlStorage, deadLetterRetentionMs: number) {
  return {
    /** Their senders' gates know that they wait again. */
    toldOfRevival(deliveryIds: readonly string[]): void {
      sql.exec(
        "UPDATE queue SET revived = 0 WHERE delivery_id IN (SELECT value FROM json_each(?))",
        JSON.stringify(deliveryIds),
      );
    },

    /** What waits, and what has ended and its sender's gate does not know yet; in the order of their ids. */
    unreported: (): Iterable<QueueRow> =>
      sql.exec<QueueRow>(`SELECT ${COLUMNS} FROM queue WHERE reported = 0 ORDER BY delivery_id`),

    /** Which of them there are rows of, in whatever state. */
    known(deliveryIds: readonly string[]): Set<string> {
      const rows = sql.exec<{ delivery_id: string }>(
        "SELECT delivery_id FROM queue WHERE delivery_id IN (SELECT value FROM json_each(?))",
        JSON.stringify(deliveryIds),
      );
      return new Set(rows.toArray().map((row) => row.delivery_id));
    },

    /** A message; one with a reason is a dead letter from the start. */
    write(lane: string, message: QueuedMessage, reason: string | null, nowMs: number): void {
      sql.exec(
        `INSERT INTO queue (delivery_id, lane, state, reason, bytes, created_at_ms, updated_at_ms, due_at_ms, envelope, body)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        message.deliveryId,
        lane,
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

    /** What is pushed. */
    content: (deliveryId: string): { envelope: string; body: string } =>
      sql
        .exec<{ envelope: string; body: string }>("SELECT envelope, body FROM queue WHERE delivery_id = ?", deliveryId)
        .one(),

    /** They are on their way to a socket: one more attempt each. */
    pushed(socketId: string, deliveryIds: readonly string[], dueAtMs: number): void {
      sql.exec(
        "UPDATE queue SET socket_id = ?, attempts = attempts + 1, due_at_ms = ? WHERE delivery_id IN (SELECT value FROM json_each(?))",
        socketId,
        dueAtMs,
        JSON.stringify(deliveryIds),
      );
    },

    /** It is on its way no more, and not to be pushed before then. */
    waits(deliveryId: string, dueAtMs: number): void {
      sql.exec("UPDATE queue SET socket_id = NULL, due_at_ms = ? WHERE delivery_id = ?", dueAtMs, deliveryId);
    },

    /** @param isOwed whether there is a gate to be told */
    delivered(deliveryIds: readonly string[], isOwed: boolean, nowMs: number): void {
      sql.exec(
        `UPDATE queue SET state = 1, body = NULL, envelope = '{}', updated_at_ms = ?, socket_id = NULL, reported = ?
           WHERE delivery_id IN (SELECT value FROM json_each(?))`,
        nowMs,
        isOwed ? 0 : 1,
        JSON.stringify(deliveryIds),
      );
    },

    /** A dead letter keeps its body. @param isOwed whether there is a gate to be told */
    dead(deliveryId: string, why: { reason: string; attempts: number; isOwed: boolean }, nowMs: number): void {
      sql.exec(
        "UPDATE queue SET state = 2, reason = ?, attempts = ?, updated_at_ms = ?, socket_id = NULL, reported = ? WHERE delivery_id = ?",
        why.reason,
        why.attempts,
        nowMs,
        why.isOwed ? 0 : 1,
        deliveryId,
      );
    },

    /** A dead letter waits again, by no trust but the recipient's own word. @returns it as it was, or null for none */
    revive(deliveryId: string, nowMs: number): QueueRow | null {
      const row = sql
        .exec<QueueRow>(`SELECT ${COLUMNS} FROM queue WHERE delivery_id = ? AND state = 2`, deliveryId)
        .toArray()[0];
      if (row === undefined) return null;
      sql.exec(
        `UPDATE queue SET state = 0, attempts = 0, reason = NULL, created_at_ms = ?1, updated_at_ms = ?1, due_at_ms = ?1,
           reported = 0, revived = 1, envelope = json_remove(envelope, '$.trustEpoch') WHERE delivery_id = ?2`,
        nowMs,
        deliveryId,
      );
      return row;
    },

    /** Forgets what has ended and been reported, and dead letters past their time. */
    prune(nowMs: number): void {
      sql.exec(
        `DELETE FROM queue WHERE delivery_id IN (
           SELECT delivery_id FROM queue WHERE reported = 1 AND state <> 2 AND updated_at_ms <= ?1 LIMIT ?2)`,
        nowMs - REPEAT_KNOWN_MS,
        PRUNED_AT_ONCE,
      );
      sql.exec(
        "DELETE FROM queue WHERE reported = 1 AND state = 2 AND updated_at_ms <= ?",
        nowMs - deadLetterRetentionMs,
      );
    },

    /** When pruning is next worth waking for; null when there is nothing to forget. */
    nextPruneMs(): number | null {
      const oldest = sql
        .exec<{ ended: number | null; dead: number | null }>(
          `SELECT (SELECT MIN(updated_at_ms) FROM queue WHERE reported = 1 AND state <> 2) AS ended,
                  (SELECT MIN(updated_at_ms) FROM queue WHERE reported = 1 AND state = 2) AS dead`,
        )
        .one();
      const due = Math.min(
        oldest.ended === null ? Infinity : oldest.ended + REPEAT_KNOWN_MS,
        oldest.dead === null ? Infinity : oldest.dead + deadLetterRetentionMs,
      );
      return due === Infinity ? null : due;
    },
  };
}
