/** Pages of the audit, newest first, each by an index: what is read is what is shown. */
import { and, eq, getTableColumns, gte, lte, type SQL, sql } from "drizzle-orm";
import { selected } from "../database/columns.ts";
import { audit } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";
import type { AuditRow } from "./entry.ts";

/** Which entries; times in milliseconds since 1970, both ends included. */
export type AuditFilter = {
  subject?: string | undefined;
  action?: string | undefined;
  sinceMs?: number | undefined;
  untilMs?: number | undefined;
};

/** The last entry of the page before. */
export type AuditPosition = { atMs: number; id: string };

/**
 * @param after null for the first page
 * @returns the statement of a page: `limit` entries at most, newest first
 */
export function auditPageStatement(
  { subject, action, sinceMs = 0, untilMs = Number.MAX_SAFE_INTEGER }: AuditFilter,
  after: AuditPosition | null,
  limit: number,
): Statement<AuditRow[]> {
  // One upper bound: with two SQLite would begin at the later one, and read all that lies between.
  const isEarlier: SQL =
    after === null || after.atMs > untilMs
      ? lte(audit.atMs, untilMs)
      : sql`(${audit.atMs}, ${audit.id}) < (${after.atMs}, ${after.id})`;
  const conditions = and(
    subject === undefined ? undefined : eq(audit.subject, subject),
    action === undefined ? undefined : eq(audit.action, action),
    gte(audit.atMs, sinceMs),
    isEarlier,
  );
  // SQLite has no statistics here, and takes any index for as good as the one that fits.
  return query.all<AuditRow>(sql`
    SELECT ${selected(getTableColumns(audit))} FROM ${audit} INDEXED BY ${sql.identifier(indexFor(subject, action))}
    WHERE ${conditions} ORDER BY ${audit.atMs} DESC, ${audit.id} DESC LIMIT ${limit}`);
}

function indexFor(subject: string | undefined, action: string | undefined): string {
  if (subject === undefined) return action === undefined ? "audit_by_time" : "audit_by_action";
  return action === undefined ? "audit_by_subject" : "audit_by_subject_and_action";
}
