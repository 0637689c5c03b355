/** Messages on this machine's disk: acknowledged to their senders, and not yet handled by the program. */
import type { Delivery } from "../message.ts";
import { senderOf } from "../message.ts";
import { type DatabaseSync, openDatabase, transaction } from "./database.ts";

/** Most messages that wait, and most bytes of their payloads; beyond that the server keeps them. */
export const INBOX_MAX = { messages: 10_000, bytes: 256 * 1_048_576 } as const;
/** What is over is recognised, and shown, so long. */
const OVER_KEPT_MS = 86_400_000;
const OVER_KEPT_MAX = 20_000;

export type InboxState = "waiting" | "handled" | "failed";

/** What is shown of one message. */
export type InboxEntry = {
  readonly deliveryId: string;
  readonly sender: string;
  readonly state: InboxState;
  readonly attempts: number;
  readonly bytes: number;
  readonly reason: string | null;
  /** Milliseconds since 1970. */
  readonly receivedAtMs: number;
  readonly updatedAtMs: number;
  readonly dueAtMs: number;
};

/** A message that is due. */
export type DueMessage = { readonly message: Delivery; readonly attempts: number };

/** What waits and what is over. Each change is on the disk when it returns. */
export type InboxStore = {
  /** @returns `known` for one that is here already, whatever has become of it; `full` where there is no room, and nothing is kept */
  put(message: Delivery): "kept" | "known" | "full";
  /** The first message of each sender that waits, as far as it is due, but those of the senders given. */
  due(nowMs: number, busy: ReadonlySet<string>): DueMessage[];
  /** When the next is due, of other senders than those given; null for none. */
  nextDueMs(busy: ReadonlySet<string>): number | null;
  handled(deliveryId: string, nowMs: number): void;
  failed(deliveryId: string, reason: string, nowMs: number): void;
  postponed(deliveryId: string, reason: string, dueAtMs: number, nowMs: number): void;
  /** Those that are over and whose sender has not been notified, a batch of the oldest. */
  unreported(
    limit: number,
  ): { deliveryId: string; fromAgentDid: string | null; state: "handled" | "failed"; reason: string | null }[];
  reported(deliveryIds: readonly string[]): void;
  list(state: InboxState | null, limit: number): InboxEntry[];
  get(deliveryId: string): { entry: InboxEntry; message: Delivery } | null;
  /** A failed or waiting message is due now. @returns whether there is one */
  retry(deliveryId: string, nowMs: number): boolean;
  /** Forgets a message; its sender hears that it failed. @returns whether there is one that waits or has failed */
  drop(deliveryId: string, nowMs: number): boolean;
  usage(): { messages: number; bytes: number; oldestMs: number | null };
  /** Forgets what is long over. */
  prune(nowMs: number): void;
  close(): void;
};

const STATES: readonly InboxState[] = ["waiting", "handled", "failed"];

type Row = {
  delivery_id: string;
  sender: string;
  state: number;
  attempts: number;
  bytes: number;
  reason: string | null;
  received_at_ms: number;
  updated_at_ms: number;
  due_at_ms: number;
  message: string;
  payload: string;
};

const SCHEMA = `CREATE TABLE IF NOT EXISTS inbox (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, delivery_id TEXT NOT NULL UNIQUE, sender TEXT NOT NULL, state INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL, reason TEXT, reported INTEGER NOT NULL DEFAULT 0,
  received_at_ms INTEGER NOT NULL, updated_at_ms INTEGER NOT NULL, due_at_ms INTEGER NOT NULL, message TEXT NOT NULL, payload TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS inbox_waiting ON inbox (sender, seq) WHERE state = 0;
CREATE INDEX IF NOT EXISTS inbox_unreported ON inbox (seq) WHERE state > 0 AND reported = 0;
CREATE INDEX IF NOT EXISTS inbox_over ON inbox (updated_at_ms) WHERE state > 0;
CREATE TABLE IF NOT EXISTS inbox_usage (id INTEGER PRIMARY KEY CHECK (id = 1), messages INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT OR IGNORE INTO inbox_usage SELECT 1, COUNT(*), COALESCE(SUM(bytes), 0) FROM inbox WHERE state = 0;
CREATE TRIGGER IF NOT EXISTS inbox_came AFTER INSERT ON inbox WHEN NEW.state = 0 BEGIN
  UPDATE inbox_usage SET messages = messages + 1, bytes = bytes + NEW.bytes; END;
CREATE TRIGGER IF NOT EXISTS inbox_ended AFTER UPDATE OF state ON inbox WHEN OLD.state = 0 AND NEW.state > 0 BEGIN
  UPDATE inbox_usage SET messages = messages - 1, bytes = bytes - OLD.bytes; END;
CREATE TRIGGER IF NOT EXISTS inbox_again AFTER UPDATE OF state ON inbox WHEN OLD.state > 0 AND NEW.state = 0 BEGIN
  UPDATE inbox_usage SET messages = messages + 1, bytes = bytes + NEW.bytes; END;`;

/**
 * The first that waits of each sender; one that waits for its retry holds back those behind it. Goes from sender to sender by the index:
 * as many steps as there are senders, however many messages wait.
 */
const FIRST_OF_EACH = `WITH RECURSIVE waiting(sender) AS (
  SELECT MIN(sender) FROM inbox WHERE state = 0
  UNION ALL
  SELECT (SELECT MIN(sender) FROM inbox WHERE state = 0 AND sender > waiting.sender) FROM waiting WHERE waiting.sender IS NOT NULL)
  SELECT (SELECT MIN(seq) FROM inbox WHERE state = 0 AND sender = waiting.sender) AS seq FROM waiting WHERE waiting.sender IS NOT NULL`;

/** @param path of the database, made where it is missing */
export function openInboxStore(path: string, limits: { messages: number; bytes: number } = INBOX_MAX): InboxStore {
  const database = openDatabase(path);
  database.exec(SCHEMA);
  const statements = statementsOf(database);
  const usage = () => statements.usage.get() as { messages: number; bytes: number; oldest: number | null };

  return {
    put(message) {
      const { payloadText, ...rest } = message;
      return transaction(database, () => {
        if (statements.known.get(message.deliveryId) !== undefined) return "known";
        const bytes = new TextEncoder().encode(payloadText).length;
        const used = usage();
        if (used.messages >= limits.messages || used.bytes + bytes > limits.bytes) return "full";
        const { receivedAtMs: atMs } = message;
        statements.put.run(
          message.deliveryId,
          senderOf(message),
          bytes,
          atMs,
          atMs,
          atMs,
          JSON.stringify(rest),
          payloadText,
        );
        return "kept";
      });
    },

    due(nowMs, busy) {
      return (statements.due.all(nowMs) as Row[])
        .filter(({ sender }) => !busy.has(sender))
        .map((row) => ({
          message: messageOf(row),
          attempts: row.attempts,
        }));
    },
    nextDueMs(busy) {
      const rows = statements.firsts.all() as Pick<Row, "sender" | "due_at_ms">[];
      const free = rows.filter(({ sender }) => !busy.has(sender)).map(({ due_at_ms: dueAtMs }) => dueAtMs);
      return free.length === 0 ? null : Math.min(...free);
    },

    handled: (deliveryId, nowMs) => void statements.end.run(1, null, nowMs, deliveryId),
    failed: (deliveryId, reason, nowMs) => void statements.end.run(2, reason, nowMs, deliveryId),
    postponed: (deliveryId, reason, dueAtMs, nowMs) => void statements.postpone.run(reason, dueAtMs, nowMs, deliveryId),

    unreported(limit) {
      return (statements.unreported.all(limit) as Row[]).map((row) => ({
        deliveryId: row.delivery_id,
        fromAgentDid: messageOf(row).fromAgentDid,
        state: row.state === 1 ? ("handled" as const) : ("failed" as const),
        reason: row.reason,
      }));
    },
    reported(deliveryIds) {
      transaction(database, () => {
        for (const id of deliveryIds) statements.reported.run(id);
      });
    },

    list(state, limit) {
      const wanted = state === null ? null : STATES.indexOf(state);
      return (statements.list.all(wanted, wanted, limit) as Row[]).map(entryOf);
    },
    get(deliveryId) {
      const row = statements.get.get(deliveryId) as Row | undefined;
      return row === undefined ? null : { entry: entryOf(row), message: messageOf(row) };
    },
    retry: (deliveryId, nowMs) => statements.retry.run(nowMs, nowMs, deliveryId).changes > 0,
    drop: (deliveryId, nowMs) => statements.drop.run("dropped by the recipient", nowMs, deliveryId).changes > 0,

    usage() {
      const { messages, bytes, oldest } = usage();
      return { messages, bytes, oldestMs: oldest };
    },
    prune(nowMs) {
      statements.prune.run(nowMs - OVER_KEPT_MS, OVER_KEPT_MAX);
    },
    close: () => database.close(),
  };
}

/** Prepared once. */
function statementsOf(database: DatabaseSync) {
  return {
    known: database.prepare("SELECT 1 AS one FROM inbox WHERE delivery_id = ?"),
    usage: database.prepare(
      "SELECT messages, bytes, (SELECT MIN(received_at_ms) FROM inbox WHERE state = 0) AS oldest FROM inbox_usage",
    ),
    put: database.prepare(
      `INSERT INTO inbox (delivery_id, sender, bytes, received_at_ms, updated_at_ms, due_at_ms, message, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
    ),
    due: database.prepare(`SELECT * FROM inbox WHERE seq IN (${FIRST_OF_EACH}) AND due_at_ms <= ? ORDER BY seq`),
    firsts: database.prepare(`SELECT sender, due_at_ms FROM inbox WHERE seq IN (${FIRST_OF_EACH})`),
    end: database.prepare(
      `UPDATE inbox SET state = ?, reason = ?, updated_at_ms = ?, attempts = attempts + 1 WHERE delivery_id = ? AND state = 0`,
    ),
    postpone: database.prepare(
      `UPDATE inbox SET reason = ?, due_at_ms = ?, updated_at_ms = ?, attempts = attempts + 1 WHERE delivery_id = ? AND state = 0`,
    ),
    unreported: database.prepare(`SELECT * FROM inbox WHERE state > 0 AND reported = 0 ORDER BY seq LIMIT ?`),
    reported: database.prepare(`UPDATE inbox SET reported = 1 WHERE delivery_id = ?`),
    list: database.prepare(`SELECT * FROM inbox WHERE (? IS NULL OR state = ?) ORDER BY seq DESC LIMIT ?`),
    get: database.prepare(`SELECT * FROM inbox WHERE delivery_id = ?`),
    retry: database.prepare(
      `UPDATE inbox SET state = 0, due_at_ms = ?, updated_at_ms = ? WHERE delivery_id = ? AND state IN (0, 2)`,
    ),
    drop: database.prepare(
      `UPDATE inbox SET state = 2, reason = ?, updated_at_ms = ? WHERE delivery_id = ? AND state IN (0, 2)`,
    ),
    prune: database.prepare(
      `DELETE FROM inbox WHERE state > 0 AND reported = 1 AND (updated_at_ms < ? OR seq <= (
         SELECT seq FROM inbox WHERE state > 0 ORDER BY seq DESC LIMIT 1 OFFSET ?))`,
    ),
  };
}

function entryOf(row: Row): InboxEntry {
  return {
    deliveryId: row.delivery_id,
    sender: row.sender,
    state: STATES[row.state] ?? "failed",
    attempts: row.attempts,
    bytes: row.bytes,
    reason: row.reason,
    receivedAtMs: row.received_at_ms,
    updatedAtMs: row.updated_at_ms,
    dueAtMs: row.due_at_ms,
  };
}

function messageOf({ message, payload }: Pick<Row, "message" | "payload">): Delivery {
  return { ...(JSON.parse(message) as Omit<Delivery, "payloadText">), payloadText: payload };
}
