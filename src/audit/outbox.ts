/** Audit entries on their way to D1: written here in the commit of what they report, so that neither is there without the other. */
import type { Principal } from "../authority/principal.ts";
import { newUlid } from "../wire/ulid.ts";
import { subjectOf, type AuditEvent } from "./entry.ts";

const ENTRIES_AT_ONCE = 50;

/** Who did it, from where and in which request. */
export type AuditedBy = { principal: Principal | null; origin: string | null; requestId: string | null };

export type AuditEntry = AuditEvent & {
  id: string;
  atMs: number;
  actor: string;
  origin: string | null;
  requestId: string | null;
};

export type AuditOutbox = ReturnType<typeof createAuditOutbox>;

export function createAuditOutbox(sql: SqlStorage) {
  let waiting = sql.exec<{ waiting: number }>("SELECT COUNT(*) AS waiting FROM audit_outbox").one().waiting;

  return {
    isEmpty: (): boolean => waiting === 0,

    /** Part of the caller's transaction. */
    record(event: AuditEvent, by: AuditedBy, nowMs: number): void {
      const actor = by.principal === null ? "sallyport" : subjectOf(by.principal);
      const entry: AuditEntry = {
        ...event,
        id: newUlid(nowMs),
        atMs: nowMs,
        actor,
        origin: by.origin,
        requestId: by.requestId,
      };
      sql.exec("INSERT INTO audit_outbox (id, entry) VALUES (?, ?)", entry.id, JSON.stringify(entry));
      waiting += 1;
    },

    /** The oldest entries. */
    next: (): AuditEntry[] =>
      sql
        .exec<{ entry: string }>("SELECT entry FROM audit_outbox ORDER BY id LIMIT ?", ENTRIES_AT_ONCE)
        .toArray()
        .map(({ entry }) => JSON.parse(entry) as AuditEntry),

    /** D1 has them. */
    done(entries: readonly AuditEntry[]): void {
      for (const { id } of entries)
        waiting -= sql.exec("DELETE FROM audit_outbox WHERE id = ?", id).rowsWritten > 0 ? 1 : 0;
    },
  };
}

/** Appends entries to the audit; one that is there already stays as it is. */
export function auditEntryStatements(db: D1Database, entries: readonly AuditEntry[]): D1PreparedStatement[] {
  return entries.map((entry) =>
    db
      .prepare(
        `INSERT INTO audit (id, at_ms, actor, action, subject, agent_did, origin, result, request_id, details)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 WHERE NOT EXISTS (SELECT 1 FROM audit WHERE id = ?1)`,
      )
      .bind(
        entry.id,
        entry.atMs,
        entry.actor,
        entry.action,
        entry.subject,
        entry.agentDid,
        entry.origin,
        entry.result,
        entry.requestId,
        JSON.stringify(entry.details ?? {}),
      ),
  );
}
