/** How long entries of the audit are kept. */
import { asc, inArray, lt, sql } from "drizzle-orm";
import { excluded } from "../database/columns.ts";
import { audit, auditRetention } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";

/**
 * Deletes the audit before a moment, the oldest first, which it also declares: the database refuses every other delete.
 *
 * @param beforeMs milliseconds since 1970
 * @param limit rows, at most
 */
export function auditRetentionStatements(beforeMs: number, limit: number): Statement<D1Result>[] {
  const { id, deleteBeforeMs } = auditRetention;
  const oldest = query
    .select({ id: audit.id })
    .from(audit)
    .where(lt(audit.atMs, beforeMs))
    .orderBy(asc(audit.atMs), asc(audit.id))
    .limit(limit);
  return [
    query
      .insert(auditRetention)
      .values({ id: 1, deleteBeforeMs: beforeMs })
      .onConflictDoUpdate({
        target: id,
        set: { deleteBeforeMs: sql`MAX(${deleteBeforeMs}, ${excluded(deleteBeforeMs)})` },
      }),
    query.delete(audit).where(inArray(audit.id, oldest)),
  ];
}
