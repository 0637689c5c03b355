/** How long entries of the audit are kept. */

/**
 * Deletes the audit before a moment, the oldest first, which it also declares: the database refuses every other delete.
 *
 * @param beforeMs milliseconds since 1970
 * @param limit rows, at most
 */
export function auditRetentionStatements(db: D1Database, beforeMs: number, limit: number): D1PreparedStatement[] {
  return [
    db
      .prepare(
        `INSERT INTO audit_retention (id, delete_before_ms) VALUES (1, ?1)
         ON CONFLICT (id) DO UPDATE SET delete_before_ms = MAX(delete_before_ms, excluded.delete_before_ms)`,
      )
      .bind(beforeMs),
    db
      .prepare("DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at_ms < ?1 ORDER BY at_ms, id LIMIT ?2)")
      .bind(beforeMs, limit),
  ];
}
