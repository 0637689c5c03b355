/** Messages that a local program has handed in, on this machine's disk until the server has them. */
import { openDatabase, transaction } from "./database.ts";

/** Most messages that wait to be handed in, and most bytes of their payloads. */
export const OUTBOX_MAX = { messages: 10_000, bytes: 256 * 1_048_576 } as const;
const OVER_KEPT_MS = 86_400_000;

/** A message to be sent. `key` is its idempotency key, by which it is sent once however often it is handed in. */
export type OutgoingMessage = {
  readonly key: string;
  readonly to: string;
  readonly payloadText: string;
  readonly conversationId?: string | undefined;
  readonly receiptUrl?: string | undefined;
};

/** What became of one. `sent` with the server's delivery id; `failed` for good. */
export type OutgoingState =
  | { readonly state: "waiting"; readonly reason: string | null }
  | { readonly state: "sent"; readonly deliveryId: string }
  | { readonly state: "failed"; readonly reason: string };

/** Each change is on the disk when it returns. */
export type OutboxStore = {
  /** @returns `known` for a key that is here already; `other` where it is, with another message */
  put(message: OutgoingMessage, nowMs: number): "kept" | "known" | "other" | "full";
  /** The first of each recipient that waits, as far as it is due, but those of the recipients given. */
  due(nowMs: number, busy: ReadonlySet<string>): { message: OutgoingMessage; attempts: number }[];
  nextDueMs(busy: ReadonlySet<string>): number | null;
  sent(key: string, deliveryId: string, nowMs: number): void;
  failed(key: string, reason: string, nowMs: number): void;
  postponed(key: string, reason: string, dueAtMs: number, nowMs: number): void;
  get(key: string): OutgoingState | null;
  usage(): { messages: number; bytes: number; oldestMs: number | null };
  prune(nowMs: number): void;
  close(): void;
};

type Row = {
  key: string;
  recipient: string;
  state: number;
  attempts: number;
  reason: string | null;
  delivery_id: string | null;
  message: string;
  payload: string;
  due_at_ms: number;
};

const SCHEMA = `CREATE TABLE IF NOT EXISTS outbox (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, recipient TEXT NOT NULL, state INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL, reason TEXT, delivery_id TEXT, created_at_ms INTEGER NOT NULL,
  updated_at_ms INTEGER NOT NULL, due_at_ms INTEGER NOT NULL, message TEXT NOT NULL, payload TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS outbox_waiting ON outbox (recipient, seq) WHERE state = 0;
CREATE INDEX IF NOT EXISTS outbox_over ON outbox (updated_at_ms) WHERE state > 0;`;

const FIRST_OF_EACH = `SELECT MIN(seq) AS seq FROM outbox WHERE state = 0 GROUP BY recipient`;

/** @param path of the database, made where it is missing */
export function openOutboxStore(path: string, limits: { messages: number; bytes: number } = OUTBOX_MAX): OutboxStore {
  const database = openDatabase(path);
  database.exec(SCHEMA);
  const prepare = (sql: string) => database.prepare(sql);
  const find = prepare("SELECT * FROM outbox WHERE key = ?");
  const used = prepare(
    "SELECT COUNT(*) AS messages, COALESCE(SUM(bytes), 0) AS bytes, MIN(created_at_ms) AS oldest FROM outbox WHERE state = 0",
  );
  const insert = prepare(
    `INSERT INTO outbox (key, recipient, bytes, created_at_ms, updated_at_ms, due_at_ms, message, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  const due = prepare(`SELECT * FROM outbox WHERE seq IN (${FIRST_OF_EACH}) AND due_at_ms <= ? ORDER BY seq`);
  const firsts = prepare(`SELECT recipient, due_at_ms FROM outbox WHERE seq IN (${FIRST_OF_EACH})`);
  const end = prepare(
    `UPDATE outbox SET state = ?, reason = ?, delivery_id = ?, updated_at_ms = ?, attempts = attempts + 1, payload = '' WHERE key = ? AND state = 0`,
  );
  const postpone = prepare(
    `UPDATE outbox SET reason = ?, due_at_ms = ?, updated_at_ms = ?, attempts = attempts + 1 WHERE key = ? AND state = 0`,
  );
  const forget = prepare(`DELETE FROM outbox WHERE state > 0 AND updated_at_ms < ?`);
  const usage = () => used.get() as { messages: number; bytes: number; oldest: number | null };

  return {
    put(message, nowMs) {
      const { payloadText, ...rest } = message;
      const text = JSON.stringify(rest);
      return transaction(database, () => {
        const row = find.get(message.key) as Row | undefined;
        if (row !== undefined)
          return row.message === text && (row.state > 0 || row.payload === payloadText) ? "known" : "other";
        const bytes = new TextEncoder().encode(payloadText).length;
        const { messages, bytes: held } = usage();
        if (messages >= limits.messages || held + bytes > limits.bytes) return "full";
        insert.run(message.key, message.to, bytes, nowMs, nowMs, nowMs, text, payloadText);
        return "kept";
      });
    },
    due: (nowMs, busy) =>
      (due.all(nowMs) as Row[])
        .filter(({ recipient }) => !busy.has(recipient))
        .map(({ message, payload, attempts }) => ({
          message: { ...(JSON.parse(message) as Omit<OutgoingMessage, "payloadText">), payloadText: payload },
          attempts,
        })),
    nextDueMs(busy) {
      const rows = (firsts.all() as Row[]).filter(({ recipient }) => !busy.has(recipient));
      return rows.length === 0 ? null : Math.min(...rows.map(({ due_at_ms: dueAtMs }) => dueAtMs));
    },
    sent: (key, deliveryId, nowMs) => void end.run(1, null, deliveryId, nowMs, key),
    failed: (key, reason, nowMs) => void end.run(2, reason, null, nowMs, key),
    postponed: (key, reason, dueAtMs, nowMs) => void postpone.run(reason, dueAtMs, nowMs, key),
    get(key) {
      const row = find.get(key) as Row | undefined;
      if (row === undefined) return null;
      if (row.state === 1) return { state: "sent", deliveryId: row.delivery_id ?? "" };
      return row.state === 2 ? { state: "failed", reason: row.reason ?? "" } : { state: "waiting", reason: row.reason };
    },
    usage() {
      const { messages, bytes, oldest } = usage();
      return { messages, bytes, oldestMs: oldest };
    },
    prune: (nowMs) => void forget.run(nowMs - OVER_KEPT_MS),
    close: () => database.close(),
  };
}
