/** Audit entries on their way to D1: written here in the commit of what they report, so that neither is there without the other. */
import { eq, notExists } from "drizzle-orm";
import type { Principal } from "../authority/principal.ts";
import { audit } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";
import { newUlid } from "../wire/ulid.ts";
import { appendIf, type AuditEvent, operatorNameOf, subjectOf } from "./entry.ts";

const ENTRIES_AT_ONCE = 50;

/** Who did it, from where and in which request. */
export type AuditedBy = { principal: Principal | null; origin: string | null; requestId: string | null };

export type AuditEntry = AuditEvent & {
  id: string;
  atMs: number;
  actor: string;
  /** The name of an operator; absent in what an older version wrote. */
  operator?: string | null;
  origin: string | null;
  requestId: string | null;
};

export type AuditOutbox = {
  isEmpty(): boolean;
  /** Part of the caller's transaction. */
  record(event: AuditEvent, by: AuditedBy, nowMs: number): void;
  /** The oldest entries, {@link ENTRIES_AT_ONCE} at most. */
  next(): AuditEntry[];
  /** D1 has them. */
  done(entries: readonly AuditEntry[]): void;
};

/** @param sql the gate's own database */
export function createAuditOutbox(sql: SqlStorage): AuditOutbox {
  let waiting = sql.exec<{ waiting: number }>("SELECT COUNT(*) AS waiting FROM audit_outbox").one().waiting;

  return {
    isEmpty: () => waiting === 0,

    record(event, by, nowMs) {
      const actor = by.principal === null ? "sallyport" : subjectOf(by.principal);
      const entry: AuditEntry = {
        ...event,
        id: newUlid(nowMs),
        atMs: nowMs,
        actor,
        operator: operatorNameOf(by.principal),
        origin: by.origin,
        requestId: by.requestId,
      };
      sql.exec("INSERT INTO audit_outbox (id, entry) VALUES (?, ?)", entry.id, JSON.stringify(entry));
      waiting += 1;
    },

    next: () =>
      sql
        .exec<{ entry: string }>("SELECT entry FROM audit_outbox ORDER BY id LIMIT ?", ENTRIES_AT_ONCE)
        .toArray()
        .map(({ entry }) => JSON.parse(entry) as AuditEntry),

    done(entries) {
      for (const { id } of entries)
        waiting -= sql.exec("DELETE FROM audit_outbox WHERE id = ?", id).rowsWritten > 0 ? 1 : 0;
    },
  };
}

/** Appends entries to the audit; one that is there already stays as it is. */
export function auditEntryStatements(entries: readonly AuditEntry[]): Statement<D1Result>[] {
  return entries.map(({ details, ...entry }) =>
    appendIf(
      { ...entry, operator: entry.operator ?? null, details: JSON.stringify(details ?? {}) },
      // The table refuses a row that is there, rather than leave it: see its triggers.
      notExists(query.select({ id: audit.id }).from(audit).where(eq(audit.id, entry.id))),
    ),
  );
}
