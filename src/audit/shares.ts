/**
 * What was left out of the audit: a trigger lets one actor write 1,000 entries in an hour, and 20 of each action beyond, and counts
 * the rest (`audit_usage`). When the hour is over one entry says what is missing, and the count is forgotten.
 */
import { and, asc, eq, gt, inArray, lt, sql, sum } from "drizzle-orm";
import { mostChanged, runBatch } from "../database/batch.ts";
import { readAll } from "../database/read.ts";
import { auditUsage } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";
import { appendIf, entryOf } from "./entry.ts";

const HOUR_MS = 3_600_000;
/** An entry may wait in its gate for so long before it is counted. */
const SETTLED_AFTER_HOURS = 1;
/** Actors that one batch reports. */
const REPORTED_AT_ONCE = 40;

const { actor, hour, action, leftOut } = auditUsage;

/**
 * Says what was left out in hours that are over, one entry for each actor and hour, and forgets the counts.
 *
 * @param limit rows that are forgotten at most
 * @returns how many rows of each kind went at most
 */
export async function settleAuditShares(db: D1Database, nowMs: number, limit: number): Promise<number> {
  const beforeHour = Math.floor(nowMs / HOUR_MS) - SETTLED_AFTER_HOURS;
  const missing = query
    .select({
      actor,
      hour,
      entries: sum(leftOut),
      byAction: sql<string>`group_concat(${action} || ' ' || ${leftOut}, ', ')`,
    })
    .from(auditUsage)
    .where(and(lt(hour, beforeHour), gt(leftOut, 0)))
    .groupBy(hour, actor)
    .orderBy(asc(hour), asc(actor))
    .limit(REPORTED_AT_ONCE);
  const found = await readAll(db.withSession("first-primary"), missing);
  if (found.length > 0) {
    await runBatch(
      db,
      found.flatMap((each) => reportStatements(each, nowMs)),
    );
    return limit;
  }
  const rest = query
    .select({ key: sql`${actor}, ${hour}, ${action}` })
    .from(auditUsage)
    .where(lt(hour, beforeHour))
    .limit(limit);
  const forgotten = query.delete(auditUsage).where(inArray(sql`(${actor}, ${hour}, ${action})`, rest));
  return mostChanged(await runBatch(db, [forgotten]));
}

type Missing = { actor: string; hour: number; entries: string | null; byAction: string };

function reportStatements(missing: Missing, nowMs: number): Statement<D1Result>[] {
  const isOfHour = and(eq(actor, missing.actor), eq(hour, missing.hour));
  const call = { now: () => nowMs, origin: null, principal: null, requestId: null };
  const entry = entryOf(call, {
    action: "audit.left_out",
    subject: missing.actor,
    agentDid: null,
    result: "bounded",
    details: { sinceMs: missing.hour * HOUR_MS, entries: Number(missing.entries), byAction: missing.byAction },
  });
  return [
    appendIf(entry, sql`EXISTS (SELECT 1 FROM ${auditUsage} WHERE ${and(isOfHour, gt(leftOut, 0))})`),
    query.delete(auditUsage).where(isOfHour),
  ];
}
