/**
 * What is pending for a remote graph, as statements. A row is written in the commit of what it tells of, and goes when the graph
 * has taken it: by the call that wrote it, or else by housekeeping (drain.ts). The newest change of a subject supersedes the older
 * ones; a register waits behind the older registers of its object, so that nothing is granted on what the graph does not know yet;
 * a removal waits only for what is being sent of the same subject. Each statement finds its rows by an index.
 */
import { and, eq, isNotNull, isNull, lte, type SQL, sql } from "drizzle-orm";
import { alias, type SQLiteColumn } from "drizzle-orm/sqlite-core";
import { names } from "../../database/columns.ts";
import { readFirst } from "../../database/read.ts";
import { authzOutbox, authzOutboxState } from "../../database/schema.ts";
import { query, type Statement, type Store } from "../../database/statement.ts";
import { errorFields, type Log } from "../../telemetry/log.ts";
import { newUlid } from "../../wire/ulid.ts";
import { type ExceptionClass, type GraphChange, REMOTE_CALL_MAX_MS } from "./remote-call.ts";

/** A change with the id of its row, and the tenant whose turn it waits for. */
export type PendingChange = GraphChange & { id: string; tenantId: string };

const RETRY_INITIAL_MS = 1_000;
const RETRY_MAX_MS = 300_000;
/** How long a parked row rests: the fault may be mended by then. */
const PARKED_RETRY_MS = 3_600_000;
/** A register that waits behind another is looked at again after this; what it waits for brings it forward. */
const BEHIND_RETRY_MS = 600_000;
/** A row is held anew directly before it is sent, and for longer than the sending can take: no other round sends it meanwhile. */
export const LEASE_MS = REMOTE_CALL_MAX_MS * 2;
/** When a removal that was taken is read back: an older grant that timed out may reach the service after it. */
const READ_BACK_AFTER_MS = [10_000, 60_000] as const;
/** A removal that the service takes and can say nothing of is read back no longer than this. */
const READ_BACK_MAX_MS = 600_000;
/** Rows that the gauges count; beyond it they say this number. */
const COUNTED_MAX = 10_000;

const o = authzOutbox;
const older = alias(authzOutbox, "older");
const later = alias(authzOutbox, "later");
const rowid = sql.raw('"authz_outbox".rowid');
const LET_GO = { leaseUntilMs: 0, leaseId: null } as const;

/** The version of what is written in the same batch, after {@link nextVersionStatement}. */
export const VERSION = sql`(SELECT ${authzOutboxState.version} FROM ${authzOutboxState} WHERE ${authzOutboxState.id} = 1)`;

/** @returns the change with an id for its row */
export function pending(change: GraphChange & { tenantId: string }, nowMs: number): PendingChange {
  return { ...change, id: newUlid(nowMs) };
}

/** @returns the statement that raises the version; it stands before the rows of its batch */
export function nextVersionStatement(): Statement<D1Result> {
  return query
    .insert(authzOutboxState)
    .values({ id: 1, version: 1 })
    .onConflictDoUpdate({ target: authzOutboxState.id, set: { version: sql`${authzOutboxState.version} + 1` } });
}

/** Gives out a version for a change that is sent before there is a row of it. @throws ProxyError when D1 fails */
export async function nextVersion(db: D1Database): Promise<number> {
  const { version } = authzOutboxState;
  const raise = query
    .insert(authzOutboxState)
    .values({ id: 1, version: 1 })
    .onConflictDoUpdate({ target: authzOutboxState.id, set: { version: sql`${version} + 1` } })
    .returning({ version });
  return (await readFirst(db, raise))?.version ?? 1;
}

/**
 * The statements that put changes into the outbox, each held under its own id by the caller, who sends it after the commit. What
 * they supersede goes, but for what is being sent.
 */
export function outboxStatements(changes: readonly PendingChange[], nowMs: number): Statement<D1Result>[] {
  const [first] = changes;
  if (first === undefined) return [];
  // Nothing waits for an owner who is new with the object.
  const isNew = first.op === "register" && first.relation === null;
  return [
    nextVersionStatement(),
    ...changes.flatMap((change) => [
      ...(isNew ? [] : [supersedeStatement(change, nowMs)]),
      insertStatement(change, nowMs),
    ]),
    ...(isNew ? [] : [wakeStatement(first.object, nowMs)]),
  ];
}

function insertStatement(change: PendingChange, nowMs: number): Statement<D1Result> {
  const { id, op, object, principal, parent, relation, tenantId } = change;
  const held = { leaseId: id, leaseUntilMs: nowMs + REMOTE_CALL_MAX_MS, dueAtMs: nowMs, createdAtMs: nowMs };
  return query
    .insert(authzOutbox)
    .values({ id, op, object, principal, parent, relation, tenantId, ...held, version: sql`${VERSION}` });
}

/**
 * The statements that put many changes into the outbox at once, for housekeeping to send.
 *
 * @param select a SELECT with a WHERE of id, op, object, principal, parent, relation and tenant, in this order
 */
export function bulkOutboxStatements(select: SQL, nowMs: number): Statement<D1Result>[] {
  const columns = names(o.id, o.op, o.object, o.principal, o.parent, o.relation, o.tenantId);
  return [
    nextVersionStatement(),
    query.run(sql`INSERT INTO ${authzOutbox} (${columns}, ${names(o.createdAtMs, o.dueAtMs, o.version)})
      SELECT *, ${nowMs}, ${nowMs}, ${VERSION} FROM (${select}) WHERE TRUE ON CONFLICT (${names(o.id)}) DO NOTHING`),
  ];
}

/** Deletes what a change of a subject makes pointless: what was said of the same subject before, or of everybody. */
function supersedeStatement(change: GraphChange, nowMs: number): Statement<D1Result> {
  const isIdle = lte(o.leaseUntilMs, nowMs);
  if (isForAll(change)) return query.delete(authzOutbox).where(and(eq(o.object, change.object), isIdle));
  return query.delete(authzOutbox).where(and(isOfSubject(change), sql`NOT ${isForAllRow(o)}`, isIdle));
}

/** Brings the first register of an object forward, which may have waited behind what has gone. */
export function wakeStatement(object: string, nowMs: number): Statement<D1Result> {
  const first = sql`(SELECT MIN(older.rowid) FROM ${authzOutbox} AS older
    WHERE ${older.object} = ${object} AND ${older.op} = 'register' AND ${older.parkedAtMs} IS NULL)`;
  return query
    .update(authzOutbox)
    .set({ dueAtMs: nowMs })
    .where(sql`${rowid} = ${first} AND ${o.attempts} = 0 AND ${o.dueAtMs} > ${nowMs}`);
}

type Row = Record<"op" | "object" | "principal" | "relation", SQLiteColumn>;
const isForAll = ({ op, principal }: GraphChange): boolean => op === "deregister" && principal === null;
const isForAllRow = (row: Row): SQL => sql`(${row.op} = 'deregister' AND ${row.principal} IS NULL)`;
const isOfSubject = ({ object, principal, relation }: GraphChange): SQL =>
  sql`(${o.object} = ${object} AND ${o.principal} IS ${principal} AND ${o.relation} IS ${relation})`;
const isOfSameRow = (row: Row): SQL =>
  sql`${row.object} = ${o.object} AND ${row.principal} IS ${o.principal} AND ${row.relation} IS ${o.relation}`;
const isHeldBy = (id: string, leaseId: string): SQL | undefined => and(eq(o.id, id), eq(o.leaseId, leaseId));

/** Deletes a row that a later one has made pointless; returns it then. */
export function dropSupersededStatement(id: string, leaseId: string): Statement<{ id: string }[]> {
  const isSuperseded = sql`(
    EXISTS (SELECT 1 FROM ${authzOutbox} AS later WHERE ${later.object} = ${o.object} AND ${later.principal} IS NULL
      AND ${later.op} = 'deregister' AND later.rowid > ${rowid})
    OR (NOT ${isForAllRow(o)} AND EXISTS (SELECT 1 FROM ${authzOutbox} AS later WHERE ${isOfSameRow(later)} AND later.rowid > ${rowid})))`;
  return query
    .delete(authzOutbox)
    .where(and(isHeldBy(id, leaseId), isSuperseded))
    .returning({ id: o.id });
}

/** Deletes the older rows that a row supersedes and that are not being sent. */
export function clearOlderStatement(change: GraphChange & { id: string }, nowMs: number): Statement<D1Result> {
  const isOlder = sql`${rowid} < (SELECT later.rowid FROM ${authzOutbox} AS later WHERE ${later.id} = ${change.id})`;
  const superseded = isForAll(change)
    ? eq(o.object, change.object)
    : and(isOfSubject(change), sql`NOT ${isForAllRow(o)}`);
  return query.delete(authzOutbox).where(and(superseded, isOlder, lte(o.leaseUntilMs, nowMs)));
}

/**
 * Holds a row for one sending, if it is still there, still held under this lease, and behind no other. What was deregistered
 * since it was read, and what another round has taken over, must not be sent from memory.
 */
export function holdStatement(
  change: GraphChange & { id: string },
  leaseId: string,
  nowMs: number,
): Statement<{ version: number }[]> {
  const isFree = sql.join(
    behindWhich(change, nowMs).map(
      (condition) => sql`NOT EXISTS (SELECT 1 FROM ${authzOutbox} AS older WHERE ${condition})`,
    ),
    sql` AND `,
  );
  return query
    .update(authzOutbox)
    .set({ leaseUntilMs: nowMs + LEASE_MS })
    .where(and(isHeldBy(change.id, leaseId), isFree))
    .returning({ version: o.version });
}

/** What a row waits behind, each by its index. */
function behindWhich(change: GraphChange, nowMs: number): SQL[] {
  const isOlder = sql`older.rowid < ${rowid}`;
  const isBeingSent = sql`${older.leaseUntilMs} > ${nowMs}`;
  const removalOfAll = sql`${older.object} = ${o.object} AND ${older.principal} IS NULL AND ${older.op} = 'deregister' AND ${isOlder}
    AND ${older.acceptedAtMs} IS NULL`;
  if (isForAll(change)) return [sql`${older.object} = ${o.object} AND ${isOlder} AND ${isBeingSent}`];
  const sameSubject = sql`${isOfSameRow(older)} AND ${isOlder} AND ${isBeingSent}`;
  if (change.op === "deregister") return [removalOfAll, sameSubject];
  const registers = sql`${older.object} = ${o.object} AND ${older.op} = 'register' AND ${older.parkedAtMs} IS NULL AND ${isOlder}`;
  return [removalOfAll, sameSubject, registers];
}

/** Strikes off what the graph has taken; not a row that another round holds by now. */
export function takenStatement(id: string, leaseId: string): Statement<D1Result> {
  return query.delete(authzOutbox).where(isHeldBy(id, leaseId));
}

/** Keeps a removal that the graph has taken, to be read back. @param acceptedAtMs when it took it first; null: now */
export function acceptedStatement(
  id: string,
  leaseId: string,
  acceptedAtMs: number | null,
  nowMs: number,
): Statement<D1Result> {
  const takenAtMs = acceptedAtMs ?? nowMs;
  const nextMs = READ_BACK_AFTER_MS.map((afterMs) => takenAtMs + afterMs).find((atMs) => atMs > nowMs);
  if (nextMs === undefined) return takenStatement(id, leaseId);
  return query
    .update(authzOutbox)
    .set({ ...LET_GO, acceptedAtMs: takenAtMs, dueAtMs: nextMs, attempts: 0, lastError: null })
    .where(isHeldBy(id, leaseId));
}

/** @returns whether a removal of which the service can say nothing has been read back for long enough */
export function isReadBackLongEnough(acceptedAtMs: number, nowMs: number): boolean {
  return nowMs - acceptedAtMs >= READ_BACK_MAX_MS;
}

/** Lets go of a row and says when it is tried again. */
export function failedStatement(
  id: string,
  leaseId: string,
  error: ExceptionClass,
  nowMs: number,
): Statement<D1Result> {
  const backoffMs = sql`MIN(${RETRY_MAX_MS}, ${RETRY_INITIAL_MS} * (1 << MIN(${o.attempts}, 20)))`;
  return query
    .update(authzOutbox)
    .set({ ...LET_GO, lastError: error, attempts: sql`${o.attempts} + 1`, dueAtMs: sql`${nowMs} + ${backoffMs}` })
    .where(isHeldBy(id, leaseId));
}

/** Lets go of a row that was not sent: it is due at once, but for a register that waits until what is before it has gone. */
export function releasedStatement(id: string, leaseId: string, isBehind: boolean, nowMs: number): Statement<D1Result> {
  return query
    .update(authzOutbox)
    .set({
      ...LET_GO,
      dueAtMs: isBehind ? sql`${nowMs} + IIF(${o.op} = 'register', ${BEHIND_RETRY_MS}, 0)` : nowMs,
    })
    .where(isHeldBy(id, leaseId));
}

/** Lets go of a row that was refused permanently: it stays, is in no other's way, and is tried now and then. */
export function parkStatement(id: string, leaseId: string, error: ExceptionClass, nowMs: number): Statement<D1Result> {
  return query
    .update(authzOutbox)
    .set({
      ...LET_GO,
      lastError: error,
      attempts: sql`${o.attempts} + 1`,
      parkedAtMs: sql`COALESCE(${o.parkedAtMs}, ${nowMs})`,
      dueAtMs: nowMs + PARKED_RETRY_MS,
    })
    .where(isHeldBy(id, leaseId));
}

/** Whether the graph will say the same next time, as far as one can tell. A deregister is never given up: it is tried again. */
export function isRefusedPermanently({ op }: Pick<GraphChange, "op">, error: ExceptionClass): boolean {
  return op === "register" && error === "http_4xx";
}

/** How many rows a condition holds for, as far as they are counted. */
function counted(condition: SQL): SQL<number> {
  return sql<number>`(SELECT COUNT(*) FROM (SELECT 1 FROM ${authzOutbox} WHERE ${condition} LIMIT ${COUNTED_MAX}))`;
}

/** @returns how many rows a remote graph has not taken yet, and how many it has refused permanently; each 10,000 at most */
export async function countPending(db: Store): Promise<{ depth: number; parked: number }> {
  const counts = sql`SELECT ${counted(isNull(o.acceptedAtMs))} AS depth, ${counted(isNotNull(o.parkedAtMs))} AS parked`;
  return (await readFirst(db, query.all<{ depth: number; parked: number }>(counts))) ?? { depth: 0, parked: 0 };
}

/** Logs a change that a remote graph has refused permanently. */
export function logParked(log: Log, { object, op, principal }: GraphChange, exceptionClass: ExceptionClass): void {
  log.error("authz.outbox_parked", { object, op, principal, exceptionClass });
}

/** Logs what a caller need not wait for: the outbox has it. */
export function logDeferred(log: Log, object: string, why: unknown): void {
  log.warn("authz.left_to_outbox", {
    object,
    ...(typeof why === "string" ? { exceptionClass: why } : errorFields(why)),
  });
}
