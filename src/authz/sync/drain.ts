/**
 * One round over what is pending for a remote graph and due: removals first, fair among tenants, so many rows and so much time.
 * What a round costs does not grow with what is pending.
 */
import { and, eq, sql } from "drizzle-orm";
import { execute, readAll } from "../../database/read.ts";
import { authzOutbox, authzOutboxState } from "../../database/schema.ts";
import { query, type Statement, type Store } from "../../database/statement.ts";
import type { Log } from "../../telemetry/log.ts";
import { gauge } from "../../telemetry/metrics.ts";
import { newUlid } from "../../wire/ulid.ts";
import { countPending, LEASE_MS } from "./outbox.ts";
import type { GraphChange, RemoteGraph } from "./remote-call.ts";
import { createSender, type HeldRow } from "./sending.ts";

/** Rows of one round. */
export const ROUND_ROWS_MAX = 100;
/** Of them, removals: the rest is kept for grants while any is due. */
const ROUND_REMOVALS_MAX = 80;
/** Tenants that one round looks at for each. */
const ROUND_TENANTS_MAX = 50;
/** No further row is begun after this. */
const ROUND_TIME_MAX_MS = 10_000;

/** What became of one round; `hasMore` where its share of rows or time was not enough. */
export type Drained = { sent: number; failed: number; depth: number; hasMore: boolean };

type DrainDeps = { db: D1Database; graph: RemoteGraph; now: () => number; log: Log };

/** Runs one round. */
export async function drainOutbox(deps: DrainDeps): Promise<Drained> {
  const { db, now } = deps;
  const leaseId = newUlid(now());
  const removals = await lease(db, "deregister", ROUND_REMOVALS_MAX, leaseId, now());
  const grants = await lease(db, "register", ROUND_ROWS_MAX - removals.length, leaseId, now());
  const due = [...removals, ...grants];
  const { sent, failed, isCut } = await sendAll(deps, due, leaseId);
  const { depth, parked } = await countPending(db);
  gauge("task_fgac_outbox_depth", {}, depth);
  gauge("task_fgac_outbox_parked", {}, parked);
  const isFull = removals.length === ROUND_REMOVALS_MAX || due.length === ROUND_ROWS_MAX;
  return { sent, failed, depth, hasMore: sent > 0 && (isFull || isCut) };
}

async function sendAll({ log, ...deps }: DrainDeps, due: readonly HeldRow[], leaseId: string) {
  const sender = createSender({ ...deps, log });
  const endsAtMs = deps.now() + ROUND_TIME_MAX_MS;
  let sent = 0;
  let failed = 0;
  let isCut = false;
  for (const row of due) {
    if (isCut || deps.now() >= endsAtMs) {
      isCut = true;
      sender.release(row, leaseId);
      continue;
    }
    // oxlint-disable-next-line no-await-in-loop -- a service that was down is not met with everything at once
    const notTaken = await sender.send(row, leaseId);
    if (notTaken === null) sent += 1;
    if (notTaken === null || notTaken === "waits") continue;
    failed += 1;
    log.warn("authz.outbox_waits", {
      object: row.object,
      op: row.op,
      attempts: row.attempts + 1,
      exceptionClass: notTaken,
    });
    if (notTaken === "breaker_open") isCut = true;
  }
  await sender.settle();
  return { sent, failed, isCut };
}

/** Leases due rows of one kind: of each tenant whose turn it is about as many, the one that was served last at the end. */
async function lease(
  db: Store,
  op: GraphChange["op"],
  limit: number,
  leaseId: string,
  nowMs: number,
): Promise<HeldRow[]> {
  const tenants = await readAll(db, tenantsStatement(op, nowMs));
  const due = tenants.filter(({ isDue }) => isDue === 1).map(({ id }) => id);
  const turn = tenants.at(-1);
  if (op === "register" && turn !== undefined) await execute(db, turnStatement(turn.id));
  if (due.length === 0 || limit === 0) return [];
  const rows = await readAll(db, leaseStatement(op, due, { limit, leaseId, nowMs }));
  return rows.toSorted((one, other) => one.dueAtMs - other.dueAtMs || one.place - other.place);
}

/** The next tenants of which anything is pending, beginning after the last turn and around the end, each found by the index. */
function tenantsStatement(op: GraphChange["op"], nowMs: number): Statement<{ id: string; isDue: 0 | 1 }[]> {
  const { tenantId, dueAtMs, leaseUntilMs } = authzOutbox;
  const isOp = sql`${authzOutbox.op} = ${op}`;
  const after = (id: ReturnType<typeof sql>) =>
    sql`(SELECT MIN(${tenantId}) FROM ${authzOutbox} WHERE ${isOp} AND ${tenantId} > ${id})`;
  const turn = sql`COALESCE((SELECT ${authzOutboxState.turn} FROM ${authzOutboxState}), '')`;
  const first = sql`(SELECT MIN(${tenantId}) FROM ${authzOutbox} WHERE ${isOp})`;
  return query.all<{ id: string; isDue: 0 | 1 }>(sql`WITH RECURSIVE behind (id, n) AS (
      SELECT ${after(turn)}, 1 UNION ALL SELECT ${after(sql`behind.id`)}, n + 1 FROM behind
        WHERE id IS NOT NULL AND n < ${ROUND_TENANTS_MAX}),
    around (id, n) AS (
      SELECT ${first}, 1 UNION ALL SELECT ${after(sql`around.id`)}, n + 1 FROM around
        WHERE id IS NOT NULL AND n < ${ROUND_TENANTS_MAX}),
    tenant (id, place) AS (
      SELECT id, n FROM behind WHERE id IS NOT NULL
      UNION ALL SELECT id, ${ROUND_TENANTS_MAX} + n FROM around WHERE id <= ${turn}
      ORDER BY 2 LIMIT ${ROUND_TENANTS_MAX})
    SELECT id, EXISTS (SELECT 1 FROM ${authzOutbox} WHERE ${isOp} AND ${tenantId} = tenant.id AND ${dueAtMs} <= ${nowMs}
      AND ${leaseUntilMs} <= ${nowMs}) AS isDue FROM tenant ORDER BY place`);
}

function turnStatement(turn: string): Statement<D1Result> {
  return query
    .insert(authzOutboxState)
    .values({ id: 1, version: 0, turn })
    .onConflictDoUpdate({ target: authzOutboxState.id, set: { turn } });
}

type Leased = HeldRow & { dueAtMs: number; place: number };

function leaseStatement(
  op: GraphChange["op"],
  tenants: readonly string[],
  { limit, leaseId, nowMs }: { limit: number; leaseId: string; nowMs: number },
): Statement<Leased[]> {
  const o = authzOutbox;
  const share = Math.max(1, Math.ceil(limit / tenants.length));
  // No ORDER BY around the whole: each tenant's oldest by the index, and no more of them than its share.
  const chosen = sql`SELECT due.rowid FROM json_each(${JSON.stringify(tenants)}) AS tenant CROSS JOIN ${o} AS due
    ON due.rowid IN (SELECT rowid FROM ${o} WHERE ${o.op} = ${op} AND ${o.tenantId} = tenant.value AND ${o.dueAtMs} <= ${nowMs}
      AND ${o.leaseUntilMs} <= ${nowMs} ORDER BY ${o.dueAtMs} LIMIT ${share}) LIMIT ${limit}`;
  return query
    .update(o)
    .set({ leaseId, leaseUntilMs: nowMs + LEASE_MS })
    .where(and(eq(o.op, op), sql`rowid IN (${chosen})`))
    .returning({
      id: o.id,
      op: o.op,
      object: o.object,
      principal: o.principal,
      parent: o.parent,
      relation: o.relation,
      tenantId: o.tenantId,
      attempts: o.attempts,
      parkedAtMs: o.parkedAtMs,
      acceptedAtMs: o.acceptedAtMs,
      dueAtMs: o.dueAtMs,
      place: sql<number>`rowid`.as("place"),
    });
}
