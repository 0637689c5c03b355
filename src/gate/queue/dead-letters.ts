/** What could not be delivered to this agent: kept for its owner to look at, to deliver again, or to throw away. Rows of `queue` in state 2. */
import type { DeadLetter } from "../../call/gate.ts";
import { JsonText } from "../../wire/json-text.ts";
import type { Envelope } from "../protocol/transfer.ts";

const DEAD_LETTERS_MAX = 1_000;
/** Most bytes of bodies in one page; one message fits always. */
const PAGE_BYTES_MAX = 4 * 1_048_576;

type DeadRow = {
  delivery_id: string;
  bytes: number;
  created_at_ms: number;
  updated_at_ms: number;
  attempts: number;
  reason: string | null;
  envelope: string;
  body: string;
};

/** Newest first, at most `limit` and so many bytes. @param before an id of an earlier page, or null */
export function listDeadLetters(sql: SqlStorage, before: string | null, limit: number): DeadLetter[] {
  const page: DeadLetter[] = [];
  let bytes = 0;
  for (const row of sql.exec<DeadRow>(
    `SELECT delivery_id, bytes, created_at_ms, updated_at_ms, attempts, reason, envelope, body FROM queue
     WHERE state = 2 AND (?1 IS NULL OR delivery_id < ?1) ORDER BY delivery_id DESC LIMIT ?2`,
    before,
    limit,
  )) {
    bytes += row.bytes;
    if (page.length > 0 && bytes > PAGE_BYTES_MAX) break;
    page.push(deadLetterOf(row));
  }
  return page;
}

/** Throws a dead letter away; false when there is none. Its sender has its receipt, or gets it. */
export function purgeDeadLetter(sql: SqlStorage, deliveryId: string): boolean {
  return (
    sql.exec("UPDATE queue SET state = 3, body = NULL, envelope = '{}' WHERE delivery_id = ? AND state = 2", deliveryId)
      .rowsWritten > 0
  );
}

/** Dead letters are bounded too; the oldest whose senders know make room. */
export function dropOldestDeadLetters(sql: SqlStorage): void {
  const { count } = sql.exec<{ count: number }>("SELECT COUNT(*) AS count FROM queue WHERE state = 2").one();
  if (count <= DEAD_LETTERS_MAX) return;
  sql.exec(
    `DELETE FROM queue WHERE delivery_id IN (
       SELECT delivery_id FROM queue WHERE state = 2 AND reported = 1 ORDER BY delivery_id LIMIT ?)`,
    count - DEAD_LETTERS_MAX,
  );
}

function deadLetterOf(row: DeadRow): DeadLetter {
  return {
    id: row.delivery_id,
    deliveryId: row.delivery_id,
    fromAgentDid: (JSON.parse(row.envelope) as Envelope).fromAgentDid,
    reason: row.reason ?? "",
    attempts: row.attempts,
    bytes: row.bytes,
    createdAtMs: row.created_at_ms,
    deadAtMs: row.updated_at_ms,
    payload: new JsonText(row.body),
  };
}
