/**
 * What a remote graph has yet to hear. A row is written in the commit of what it tells of, and goes when the graph has taken
 * it: by the call that wrote it, or else by housekeeping. For each object the oldest goes first, only a deregister waits for
 * nothing but its own; and what was deregistered later is not registered any more.
 */
import { errorFields, type Log } from "../../telemetry/log.ts";
import { gauge } from "../../telemetry/metrics.ts";
import { newUlid } from "../../wire/ulid.ts";
import { type ExceptionClass, type GraphChange, REMOTE_CALL_MAX_MS, type RemoteGraph } from "./remote.ts";

/** A change with the id of its row. */
export type PendingChange = GraphChange & { id: string };

const RETRY_INITIAL_MS = 1_000;
const RETRY_MAX_MS = 300_000;
/** How long a parked row rests: whoever refused it may have been mended. */
const PARKED_RETRY_MS = 3_600_000;
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
      nowMs + REMOTE_CALL_MAX_MS,
    );
}

/** @returns the change with an id for its row */
export function pending(change: GraphChange, nowMs: number): PendingChange {
  return { ...change, id: newUlid(nowMs) };
}

/**
 * Deletes what a later row has made pointless, since it says the same or the opposite of the same subject, or takes everybody
 * out; not what somebody is sending.
 *
 * @param object of which alone; null for all
 */
export function supersededStatement(db: D1Database, nowMs: number, object: string | null): D1PreparedStatement {
  return db
    .prepare(
      `DELETE FROM authz_outbox WHERE lease_until_ms <= ?1 AND ${object === null ? "?2 IS NULL" : "object = ?2"}
         AND EXISTS (SELECT 1 FROM authz_outbox AS later
           WHERE later.object = authz_outbox.object AND later.rowid > authz_outbox.rowid
             AND (${isForAll("later")} OR (${isOfSame("later", "authz_outbox")} AND NOT ${isForAll("authz_outbox")})))`,
    )
    .bind(nowMs, object);
}

const isForAll = (row: string): string => `(${row}.op = 'deregister' AND ${row}.principal IS NULL)`;
const isOfSame = (row: string, other: string): string =>
  `(${row}.principal IS ${other}.principal AND ${row}.relation IS ${other}.relation)`;

/**
 * Whether a row waits behind an older one of its object: a register behind every register that is not parked, so that nothing
 * is granted on what the graph does not know yet; each behind what is being sent of the same subject. Who is taken out waits
 * for nobody's grant.
 */
const isBehind = (row: string): string => `EXISTS (SELECT 1 FROM authz_outbox AS older
  WHERE older.object = ${row}.object AND older.rowid < ${row}.rowid
    AND (${isOfSame("older", row)} OR ${isForAll("older")} OR ${isForAll(row)}
      OR (older.op = 'register' AND ${row}.op = 'register' AND older.parked_at_ms IS NULL)))`;

/**
 * Holds a row for one sending, if it is still there, still held under this lease, and behind no other. What was deregistered
 * since it was read, and what somebody else has taken over, must not be sent from memory.
 */
function holdStatement(db: D1Database, id: string, leaseId: string, nowMs: number): D1PreparedStatement {
  return db
    .prepare(
      `UPDATE authz_outbox SET lease_until_ms = ?3 WHERE id = ?1 AND lease_id = ?2 AND NOT ${isBehind("authz_outbox")}
       RETURNING id`,
    )
    .bind(id, leaseId, nowMs + LEASE_MS);
}

/** Strikes off what the graph has taken; not a row that is somebody else's by now. */
function takenStatement(db: D1Database, id: string, leaseId: string): D1PreparedStatement {
  return db.prepare("DELETE FROM authz_outbox WHERE id = ?1 AND lease_id = ?2").bind(id, leaseId);
}

/** Not failed and not told: an older row of the same object goes first, or somebody else has taken this one over. */
export type NotTold = ExceptionClass | "waits";

/**
 * Sends what has just been committed, in order, up to the first that fails or has to wait.
 *
 * @returns why the graph did not take all of it, or null when it has
 */
export async function sendPending(
  db: D1Database,
  graph: RemoteGraph,
  changes: readonly PendingChange[],
  { now, log }: { now: () => number; log: Log },
): Promise<NotTold | null> {
  const session = db.withSession("first-primary");
  /** What is settled, written with the next statement that has to be. */
  const settled: D1PreparedStatement[] = [];
  const letGo = (from: number, error: ExceptionClass | null): void => {
    settled.push(...changes.slice(from).map(({ id }) => failedStatement(db, id, id, error, now())));
  };
  let notTold: NotTold | null = null;
  for (const [index, change] of changes.entries()) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other, in their order
    const held = (await session.batch([...settled.splice(0), holdStatement(db, change.id, change.id, now())])).at(-1);
    if (held?.results.length !== 1) {
      notTold = "waits";
      letGo(index, null);
      break;
    }
    // oxlint-disable-next-line no-await-in-loop -- the same
    const applied = await graph.apply(change);
    if (!applied.ok) {
      notTold = applied.error;
      if (isRefusedForGood(change, applied.error)) {
        logParked(log, change, applied.error);
        settled.push(parkStatement(db, change.id, change.id, applied.error, now()));
        letGo(index + 1, null);
      } else letGo(index, applied.error);
      break;
    }
    settled.push(takenStatement(db, change.id, change.id));
  }
  if (settled.length > 0) await session.batch(settled);
  return notTold;
}

/** What became of one round. */
export type Drained = { sent: number; failed: number; depth: number };

type OutboxRow = {
  place: number;
  id: string;
  op: GraphChange["op"];
  object: string;
  principal: string | null;
  parent: string | null;
  relation: string | null;
  attempts: number;
  due_at_ms: number;
  parked_at_ms: number | null;
};

/** One round over what is due and behind nothing else, each held while it is sent. */
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
           SELECT rowid FROM authz_outbox AS due
           WHERE due_at_ms <= ?3 AND lease_until_ms <= ?3 AND NOT ${isBehind("due")} ORDER BY due_at_ms, rowid LIMIT ?4)
         RETURNING rowid AS place, id, op, object, principal, parent, relation, attempts, due_at_ms, parked_at_ms`,
      )
      .bind(leaseId, now() + LEASE_MS, now(), SENT_AT_ONCE),
  ]);
  const due = (leased?.results ?? []).toSorted(
    (one, other) => one.due_at_ms - other.due_at_ms || one.place - other.place,
  );
  let sent = 0;
  let failed = 0;
  for (const row of due) {
    // oxlint-disable-next-line no-await-in-loop -- a service that was down is not met with everything at once
    if ((await holdStatement(db, row.id, leaseId, now()).first()) === null) continue;
    // oxlint-disable-next-line no-await-in-loop -- the same
    const applied = await graph.apply(row);
    const parks = !applied.ok && isRefusedForGood(row, applied.error);
    const statement = applied.ok
      ? takenStatement(db, row.id, leaseId)
      : (parks ? parkStatement : failedStatement)(db, row.id, leaseId, applied.error, now());
    // oxlint-disable-next-line no-await-in-loop -- struck off before the next is sent
    await statement.run();
    if (applied.ok) {
      sent += 1;
      continue;
    }
    failed += 1;
    if (parks && row.parked_at_ms === null) logParked(log, row, applied.error);
    else
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
  gauge("task_fgac_outbox_parked", {}, await countParked(db));
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

/** Whether the graph will say the same next time, as far as one can tell. A deregister is never given up: it is tried again. */
function isRefusedForGood({ op }: Pick<GraphChange, "op">, error: ExceptionClass): boolean {
  return op === "register" && error === "http_4xx";
}

/** Lets go of a row that was refused for good: it stays, is in no other's way, and is tried now and then. */
function parkStatement(
  db: D1Database,
  id: string,
  leaseId: string,
  error: ExceptionClass,
  nowMs: number,
): D1PreparedStatement {
  return db
    .prepare(
      `UPDATE authz_outbox SET lease_until_ms = 0, lease_id = NULL, last_error = ?3, attempts = attempts + 1,
         parked_at_ms = COALESCE(parked_at_ms, ?4), due_at_ms = ?4 + ?5
       WHERE id = ?1 AND lease_id = ?2`,
    )
    .bind(id, leaseId, error, nowMs, PARKED_RETRY_MS);
}

function logParked(log: Log, { object, op, principal }: GraphChange, exceptionClass: ExceptionClass): void {
  log.error("authz.outbox_parked", { object, op, principal, exceptionClass });
}

/** @returns how many rows a remote graph has refused for good */
export async function countParked(db: D1Database): Promise<number> {
  const select = db.prepare("SELECT COUNT(*) AS n FROM authz_outbox WHERE parked_at_ms IS NOT NULL");
  return (await select.first<number>("n")) ?? 0;
}

/** Logs what a caller need not wait for: the outbox has it. */
export function logDeferred(log: Log, object: string, why: unknown): void {
  log.warn("authz.left_to_outbox", {
    object,
    ...(typeof why === "string" ? { exceptionClass: why } : errorFields(why)),
  });
}
