/**
 * The gate's own tables, in SQLite inside the object, and how they come to be. A gate that no caller has proved anything to
 * has no tables at all: reading what is not there creates nothing, and the schema is laid at the first verified call.
 */

/** In order, expand only. Position + 1 is the version. */
const MIGRATIONS: readonly string[] = [
  `CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;

   CREATE TABLE nonces (nonce TEXT NOT NULL, key TEXT NOT NULL, timestamp_s INTEGER NOT NULL, PRIMARY KEY (nonce, key)) WITHOUT ROWID;
   CREATE INDEX nonces_by_time ON nonces (timestamp_s);

   CREATE TABLE ended_tokens (jti TEXT PRIMARY KEY, expires_at_ms INTEGER NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID;
   CREATE TABLE peer_fences (peer_did TEXT PRIMARY KEY, trust_epoch INTEGER NOT NULL) WITHOUT ROWID;

   CREATE TABLE access_validations (key_hash TEXT PRIMARY KEY, validated_at_ms INTEGER NOT NULL) WITHOUT ROWID;

   CREATE TABLE outbox (
     delivery_id TEXT PRIMARY KEY, to_did TEXT NOT NULL, state INTEGER NOT NULL, bytes INTEGER NOT NULL,
     created_at_ms INTEGER NOT NULL, updated_at_ms INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
     reason TEXT, receipt_due INTEGER NOT NULL DEFAULT 0, origin_frame_id TEXT, envelope TEXT NOT NULL, body TEXT);
   CREATE INDEX outbox_open ON outbox (delivery_id) WHERE state < 2;
   CREATE INDEX outbox_receipts ON outbox (delivery_id) WHERE receipt_due = 1;
   CREATE TABLE idempotency (key TEXT PRIMARY KEY, body_sha256 TEXT NOT NULL, delivery_id TEXT NOT NULL, created_at_ms INTEGER NOT NULL) WITHOUT ROWID;
   CREATE INDEX idempotency_by_time ON idempotency (created_at_ms);

   CREATE TABLE queue (
     delivery_id TEXT PRIMARY KEY, lane TEXT NOT NULL, state INTEGER NOT NULL, bytes INTEGER NOT NULL,
     created_at_ms INTEGER NOT NULL, updated_at_ms INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
     due_at_ms INTEGER NOT NULL, socket_id TEXT, reason TEXT, reported INTEGER NOT NULL DEFAULT 0,
     envelope TEXT NOT NULL, body TEXT);
   CREATE INDEX queue_done ON queue (updated_at_ms) WHERE reported = 1;

   CREATE TABLE relay_tickets (
     ticket_sha256 TEXT PRIMARY KEY, expires_at_ms INTEGER NOT NULL, authority TEXT NOT NULL) WITHOUT ROWID;`,

  `CREATE TABLE devices (
     device_id TEXT PRIMARY KEY, public_key TEXT NOT NULL, label TEXT, ceiling TEXT NOT NULL, scopes TEXT NOT NULL,
     epoch INTEGER NOT NULL, token_sha256 TEXT, token_expires_at_ms INTEGER, token_waits INTEGER NOT NULL,
     paired_at_ms INTEGER NOT NULL, rotated_at_ms INTEGER, last_used_at_ms INTEGER, ended_at_ms INTEGER, ended_as TEXT) WITHOUT ROWID;
   CREATE TABLE ended_device_tokens (
     token_sha256 TEXT PRIMARY KEY, device_id TEXT NOT NULL, expires_at_ms INTEGER NOT NULL) WITHOUT ROWID;
   CREATE TABLE pair_requests (
     device_id TEXT PRIMARY KEY, request_id TEXT NOT NULL, public_key TEXT NOT NULL, label TEXT, scopes TEXT NOT NULL,
     digest TEXT NOT NULL, requested_by TEXT NOT NULL, expires_at_ms INTEGER NOT NULL) WITHOUT ROWID;

   CREATE TABLE audit_outbox (id TEXT PRIMARY KEY, entry TEXT NOT NULL) WITHOUT ROWID;`,

  `CREATE TABLE rate_counts (at_ms INTEGER PRIMARY KEY, count INTEGER NOT NULL);
   CREATE INDEX queue_unreported ON queue (delivery_id) WHERE reported = 0;
   CREATE INDEX queue_dead ON queue (delivery_id) WHERE state = 2;
   CREATE INDEX outbox_ended ON outbox (receipt_due, updated_at_ms) WHERE state >= 2;`,

  `CREATE TABLE ended_api_keys (api_key_id TEXT PRIMARY KEY, forget_at_ms INTEGER) WITHOUT ROWID;`,

  // A dead letter that waits again, of which its sender's gate has not been notified yet.
  `ALTER TABLE queue ADD COLUMN revived INTEGER NOT NULL DEFAULT 0;`,

  // The rate by holder. What was counted before counts for the agent itself.
  `CREATE TABLE rate_windows (
     at_ms INTEGER NOT NULL, holder TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (at_ms, holder)) WITHOUT ROWID;
   INSERT INTO rate_windows (holder, at_ms, count) SELECT 'agent', at_ms, count FROM rate_counts;
   DELETE FROM rate_counts;`,

  // Messages in tables whose key is the table, without an index that every message enters and leaves. What is not over yet
  // moves, at most what a queue, its dead letters and an outbox may hold; what has ended is pruned where it is.
  `CREATE TABLE inbound (
     delivery_id TEXT PRIMARY KEY, sender TEXT NOT NULL, state INTEGER NOT NULL, bytes INTEGER NOT NULL,
     created_at_ms INTEGER NOT NULL, updated_at_ms INTEGER NOT NULL, held_ms INTEGER NOT NULL DEFAULT 0,
     attempts INTEGER NOT NULL DEFAULT 0, due_at_ms INTEGER NOT NULL, socket_id TEXT,
     is_pushed INTEGER NOT NULL DEFAULT 0, holder TEXT, reason TEXT, reported INTEGER NOT NULL DEFAULT 0,
     revived INTEGER NOT NULL DEFAULT 0, envelope TEXT NOT NULL, body TEXT) WITHOUT ROWID;
   CREATE INDEX inbound_dead ON inbound (delivery_id) WHERE state = 2;
   INSERT INTO inbound (delivery_id, sender, state, bytes, created_at_ms, updated_at_ms, attempts, due_at_ms, socket_id,
       is_pushed, reason, reported, revived, envelope, body)
     SELECT delivery_id, lane, state, bytes, created_at_ms, updated_at_ms, attempts, due_at_ms, socket_id,
       socket_id IS NOT NULL, reason, reported, revived, envelope, body
     FROM queue WHERE reported = 0 OR state = 2;
   DELETE FROM queue WHERE reported = 0 OR state = 2;`,

  // By scope, the epoch at which a device lost it; NULL in rows from before.
  `ALTER TABLE devices ADD COLUMN lost_scopes TEXT;`,

  `CREATE TABLE outbound (
     delivery_id TEXT PRIMARY KEY, to_did TEXT NOT NULL, state INTEGER NOT NULL, bytes INTEGER NOT NULL,
     created_at_ms INTEGER NOT NULL, updated_at_ms INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
     reason TEXT, receipt_due INTEGER NOT NULL DEFAULT 0, origin_frame_id TEXT, envelope TEXT NOT NULL, body TEXT) WITHOUT ROWID;
   CREATE INDEX outbound_receipts ON outbound (delivery_id) WHERE receipt_due = 1;
   INSERT INTO outbound (delivery_id, to_did, state, bytes, created_at_ms, updated_at_ms, attempts, reason, receipt_due,
       origin_frame_id, envelope, body)
     SELECT delivery_id, to_did, state, bytes, created_at_ms, updated_at_ms, attempts, reason, receipt_due,
       origin_frame_id, envelope, body
     FROM outbox WHERE state <> 2;
   DELETE FROM outbox WHERE state <> 2;`,

  // What paired devices ask to be allowed besides.
  `CREATE TABLE scope_requests (
     device_id TEXT PRIMARY KEY, scopes TEXT NOT NULL, digest TEXT NOT NULL, expires_at_ms INTEGER NOT NULL) WITHOUT ROWID;`,

  // Nonces without an index by time, which cost a row at each insert and deletion; pruning looks through the few minutes of them.
  `CREATE TABLE proof_nonces (
     nonce TEXT NOT NULL, key TEXT NOT NULL, timestamp_s INTEGER NOT NULL, PRIMARY KEY (nonce, key)) WITHOUT ROWID;
   INSERT INTO proof_nonces (nonce, key, timestamp_s) SELECT nonce, key, timestamp_s FROM nonces;
   DELETE FROM nonces;`,

  // Groups: whom of them nothing may come from or go to below an epoch. And the bodies of what is sent to all of a group, each once;
  // `shared_id` names it in the rows of its messages.
  `CREATE TABLE group_fences (
     group_id TEXT NOT NULL, subject TEXT NOT NULL, epoch INTEGER NOT NULL, raised_at_ms INTEGER NOT NULL,
     PRIMARY KEY (group_id, subject)) WITHOUT ROWID;
   CREATE TABLE shared_bodies (shared_id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
   ALTER TABLE outbound ADD COLUMN shared_id TEXT;`,
];

const EXISTS = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'";

/** Whether this gate has tables; reads only. */
export function hasSchema(sql: SqlStorage): boolean {
  return sql.exec(EXISTS).toArray().length > 0;
}

/** Brings the tables up to a version, in one transaction. @param version the newest, unless a test asks for an older one */
export function migrate(storage: DurableObjectStorage, version = MIGRATIONS.length): void {
  const { sql } = storage;
  const applied = hasSchema(sql)
    ? sql.exec<{ version: number }>("SELECT COALESCE(MAX(version), 0) AS version FROM schema_migrations").one().version
    : 0;
  if (applied >= version) return;
  storage.transactionSync(() => {
    sql.exec(
      "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY, applied_at_ms INTEGER NOT NULL)",
    );
    for (const [index, statements] of MIGRATIONS.entries()) {
      if (index < applied || index >= version) continue;
      sql.exec(statements);
      sql.exec("INSERT INTO schema_migrations (version, applied_at_ms) VALUES (?, ?)", index + 1, Date.now());
    }
  });
}
