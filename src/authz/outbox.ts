/**
 * What a remote graph has yet to hear. A row is written in the commit of what it tells of, and goes when the graph has taken
 * it: by the call that wrote it, or else by housekeeping. For each object the oldest goes first, and what was deregistered
 * later is not registered any more.
 */
import { errorFields, type Log } from "../telemetry/log.ts";
import { gauge } from "../telemetry/metrics.ts";
import { newUlid } from "../wire/ulid.ts";
import { type ExceptionClass, type GraphChange, REMOTE_CALL_MAX_MS, type RemoteGraph } from "./remote.ts";

/** A change with the id of its row. */
export type PendingChange = GraphChange & { id: string };

const RETRY_INITIAL_MS = 1_000;
const RETRY_MAX_MS = 300_000;
const SENT_AT_ONCE = 50;
/** A row is held anew directly before it is sent, and for longer than the sending can take: nobody else sends it meanwhile. */
const LEASE_MS = REMOTE_CALL_MAX_MS * 2;

/** @returns the statement that puts a change into the outbox, held under its own id by the caller, who sends it after the commit */
export function outboxStatement(db: D1Database, change: PendingChange, nowMs: number): D1PreparedStatement {
  return db
    .prepare(
      `INSERT INTO authz_outbox
         (id, op, object, principal, parent, relation, created_at_ms, due_at_ms, lease_until_ms, lease_id)
       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?1)`,
    )
    .bind(
      change.id,
      change.op,
      change.object,
      change.principal,
      change.parent,
      change.relation,
      nowMs,
      nowMs + LEASE_MS,
    );
}

/** @returns the change with an id for its row */
export function pending(change: GraphChange, nowMs: number): PendingChange {
  return { ...change, id: newUlid(nowMs) };
}

/** Registers that a later deregister has made pointless; not those that somebody is sending. */
export function supersededStatement(db: D1Database, nowMs: number, object: string | null): D1PreparedStatement {
  return db
    .prepare(
      `DELETE FROM authz_outbox WHERE op = 'register' AND lease_until_ms <= ?1 AND (?2 IS NULL OR object = ?2)
         AND EXISTS (SELECT 1 FROM authz_outbox AS later
           WHERE later.object = authz_outbox.object AND later.rowid > authz_outbox.rowid AND later.op = 'deregister'
             AND (later.principal IS NULL
               OR (later.principal = authz_outbox.principal AND later.relation IS authz_outbox.relation)))`,
    )
    .bind(nowMs, object);
}

/**
 * Holds a row for one sending, if it is still there and still held under this lease. What was deregistered since it was read,
 * and what somebody else has taken over, must not be sent from memory.
 */
function holdStatement(db: D1Database, id: string, leaseId: string, nowMs: number): D1PreparedStatement {
  return db
    .prepare("UPDATE authz_outbox SET lease_until_ms = ?3 WHERE id = ?1 AND lease_id = ?2 RETURNING id")
    .bind(id, leaseId, nowMs + LEASE_MS);
}

/** Strikes off what the graph has taken; not a row that is somebody else's by now. */
function takenStatement(db: D1Database, id: string, leaseId: string): D1PreparedStatement {
  return db.prepare("DELETE FROM authz_outbox WHERE id = ?1 AND lease_id = ?2").bind(id, leaseId);
}

/**
 * Sends what has just been committed, in order, up to the first failure. Where older rows of the same object wait, these
 * wait behind them.
 *
 * @returns why the graph did not take all of it, or null
 */
export async function sendPending(
  db: D1Database,
  graph: RemoteGraph,
  changes: readonly PendingChange[],
  now: () => number,
): Promise<ExceptionClass | null> {
  const [first] = changes;
  if (first === undefined) return null;
  const older = await db
    .withSession("first-primary")
    .prepare(
      "SELECT COUNT(*) AS n FROM authz_outbox WHERE object = ?1 AND rowid < (SELECT rowid FROM authz_outbox WHERE id = ?2)",
    )
    .bind(first.object, first.id)
    .first<number>("n");
  if ((older ?? 0) > 0) {
    await db.batch(changes.map(({ id }) => failedStatement(db, id, id, null, now())));
    return null;
  }
  let failed: ExceptionClass | null = null;
  const taken: D1PreparedStatement[] = [];
  for (const [index, change] of changes.entries()) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other, in their order
    const held = (await db.batch([...taken.splice(0), holdStatement(db, change.id, change.id, now())])).at(-1);
    // Housekeeping has it, or a later deregister has made it pointless.
    if (held?.results.length !== 1) continue;
    // oxlint-disable-next-line no-await-in-loop -- the same
    const applied = await graph.apply(change);
    if (applied.ok) {
      taken.push(takenStatement(db, change.id, change.id));
      continue;
    }
    failed = applied.error;
    taken.push(...changes.slice(index).map(({ id }) => failedStatement(db, id, id, applied.error, now())));
    break;
  }
  if (taken.length > 0) await db.batch(taken);
  return failed;
}

/** What became of one round. */
export type Drained = { sent: number; failed: number; depth: number };

type OutboxRow = {
  id: string;
  op: GraphChange["op"];
  object: string;
  principal: string | null;
  parent: string | null;
  relation: string | null;
  attempts: number;
};

/** One round over what is due: the oldest of each object, each held while it is sent. */
export async function drainOutbox(deps: {
  db: D1Database;
  graph: RemoteGraph;
  now: () => number;
  log: Log;
}): Promise<Drained> {
  const { db, graph, now, log } = deps;
  const leaseId = newUlid(now());
  const [, leased] = await db.batch<OutboxRow>([
    supersededStatement(db, now(), null),
    db
      .prepare(
        `UPDATE authz_outbox SET lease_id = ?1, lease_until_ms = ?2 WHERE rowid IN (
           SELECT rowid FROM authz_outbox
           WHERE rowid IN (SELECT MIN(rowid) FROM authz_outbox GROUP BY object) AND due_at_ms <= ?3 AND lease_until_ms <= ?3
           ORDER BY rowid LIMIT ?4)
         RETURNING id, op, object, principal, parent, relation, attempts`,
      )
      .bind(leaseId, now() + LEASE_MS, now(), SENT_AT_ONCE),
  ]);
  const due = leased?.results ?? [];
  let sent = 0;
  let failed = 0;
  for (const row of due) {
    // oxlint-disable-next-line no-await-in-loop -- a service that was down is not met with everything at once
    if ((await holdStatement(db, row.id, leaseId, now()).first()) === null) continue;
    // oxlint-disable-next-line no-await-in-loop -- the same
    const applied = await graph.apply(row);
    const statement = applied.ok
      ? takenStatement(db, row.id, leaseId)
      : failedStatement(db, row.id, leaseId, applied.error, now());
    // oxlint-disable-next-line no-await-in-loop -- struck off before the next is sent
    await statement.run();
    if (applied.ok) {
      sent += 1;
      continue;
    }
    failed += 1;
    log.warn("authz.outbox_waits", {
      object: row.object,
      op: row.op,
      attempts: row.attempts + 1,
      exceptionClass: applied.error,
    });
    if (applied.error === "breaker_open") break;
  }
  await db
    .prepare("UPDATE authz_outbox SET lease_until_ms = 0, lease_id = NULL WHERE lease_id = ?1")
    .bind(leaseId)
    .run();
  const depth = (await db.prepare("SELECT COUNT(*) AS n FROM authz_outbox").first<number>("n")) ?? 0;
  gauge("task_fgac_outbox_depth", {}, depth);
  return { sent, failed, depth };
}

/** Lets go of a row and says when it is tried again; a row that only waited for older ones is tried at once. */
function failedStatement(
  db: D1Database,
  id: string,
  leaseId: string,
  error: ExceptionClass | null,
  nowMs: number,
): D1PreparedStatement {
  return db
    .prepare(
      `UPDATE authz_outbox SET lease_until_ms = 0, lease_id = NULL, last_error = ?3,
         attempts = attempts + CASE WHEN ?3 IS NULL THEN 0 ELSE 1 END,
         due_at_ms = ?4 + CASE WHEN ?3 IS NULL THEN 0 ELSE MIN(?6, ?5 * (1 << MIN(attempts, 20))) END
       WHERE id = ?1 AND lease_id = ?2`,
    )
    .bind(id, leaseId, error, nowMs, RETRY_INITIAL_MS, RETRY_MAX_MS);
}

/** Logs what a caller need not wait for: the outbox has it. */
export function leftToOutbox(log: Log, object: string, why: unknown): void {
  log.warn("authz.left_to_outbox", {
    object,
    ...(typeof why === "string" ? { exceptionClass: why } : errorFields(why)),
  });
}
