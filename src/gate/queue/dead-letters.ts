/**
 * What could not be delivered to this agent: kept for its owner to look at, to deliver again, or to throw away. Rows of
 * `inbound` in state 2, bounded in number and in bytes; where there are too many, the sender that has most of them gives way.
 */
import type { DeadLetter } from "../../call/gate.ts";
import { JsonText } from "../../wire/json-text.ts";
import { type Envelope, HELD_BYTES_MAX } from "../protocol/transfer.ts";
import type { Row } from "../storage/tables.ts";
import { NOTHING, plus, type Usage } from "./senders.ts";

/** Dead letters of one agent, */
export const DEAD_LETTERS_MAX = 1_000;
/** and the bytes of their bodies. */
export const DEAD_LETTER_BYTES_MAX = HELD_BYTES_MAX;
/** Most bytes of bodies in one page; one message fits always. */
const PAGE_BYTES_MAX = 4 * 1_048_576;

type DeadRow = Pick<
  Row<"inbound">,
  "delivery_id" | "bytes" | "created_at_ms" | "updated_at_ms" | "attempts" | "reason" | "envelope"
> & { body: string };

/** The dead letters of one agent. */
export type DeadLetters = {
  /** Newest first, at most `limit` and 4 MiB. @param before an id of an earlier page, or null */
  list(before: string | null, limit: number): DeadLetter[];
  /** One more of a sender's has been written; makes room where there are too many. Part of the caller's transaction. */
  added(sender: string, bytes: number): void;
  /** One has gone in another way than by `purge`. */
  removed(sender: string, bytes: number): void;
  /** Throws one away; false when there is none. Its sender has its receipt, or gets it. */
  purge(deliveryId: string): boolean;
  /** Counts anew, after rows have been forgotten by their age. */
  recount(): void;
};

/** @returns the dead letters on a gate's own tables. */
export function createDeadLetters(sql: SqlStorage): DeadLetters {
  const used = new Map<string, Usage>();
  let total = NOTHING;

  const add = (sender: string, more: Usage): void => {
    const usage = plus(used.get(sender) ?? NOTHING, more);
    if (usage.count === 0) used.delete(sender);
    else used.set(sender, usage);
    total = plus(total, more);
  };

  const recount = (): void => {
    used.clear();
    total = NOTHING;
    for (const { sender, count, bytes } of sql.exec<{ sender: string; count: number; bytes: number }>(
      "SELECT sender, COUNT(*) AS count, SUM(bytes) AS bytes FROM inbound WHERE state = 2 GROUP BY sender",
    ))
      add(sender, { count, bytes });
  };

  /** A purged letter leaves its row until its sender's gate knows how the message ended. */
  const purge = (deliveryId: string): boolean => {
    const [row] = sql
      .exec<Pick<Row<"inbound">, "sender" | "bytes">>(
        "UPDATE inbound SET state = 3, body = NULL, envelope = '{}' WHERE delivery_id = ? AND state = 2 RETURNING sender, bytes",
        deliveryId,
      )
      .toArray();
    if (row === undefined) return false;
    add(row.sender, { count: -1, bytes: -row.bytes });
    return true;
  };

  /** Purges the oldest letter of the sender that takes most of the room. */
  const giveWay = (): void => {
    let largest = "";
    let most = 0;
    for (const [sender, usage] of used) {
      const share = Math.max(usage.count / DEAD_LETTERS_MAX, usage.bytes / DEAD_LETTER_BYTES_MAX);
      if (share > most) [largest, most] = [sender, share];
    }
    const oldest = sql
      .exec<Pick<Row<"inbound">, "delivery_id">>(
        "SELECT delivery_id FROM inbound WHERE state = 2 AND sender = ? ORDER BY delivery_id LIMIT 1",
        largest,
      )
      .one();
    purge(oldest.delivery_id);
  };

  recount();
  return {
    list(before, limit) {
      const page: DeadLetter[] = [];
      let bytes = 0;
      for (const row of sql.exec<DeadRow>(
        `SELECT delivery_id, bytes, created_at_ms, updated_at_ms, attempts, reason, envelope, body FROM inbound
         WHERE state = 2 AND delivery_id < ? ORDER BY delivery_id DESC LIMIT ?`,
        before ?? "\u{ffff}",
        limit,
      )) {
        bytes += row.bytes;
        if (page.length > 0 && bytes > PAGE_BYTES_MAX) break;
        page.push(deadLetterOf(row));
      }
      return page;
    },
    added(sender, bytes) {
      add(sender, { count: 1, bytes });
      while (total.count > DEAD_LETTERS_MAX || (total.count > 1 && total.bytes > DEAD_LETTER_BYTES_MAX)) giveWay();
    },
    removed: (sender, bytes) => add(sender, { count: -1, bytes: -bytes }),
    purge,
    recount,
  };
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
