/** What the registry may forget. */

const DAY_MS = 86_400_000;

/**
 * Deletes identity tokens and token pairs that have been expired for a day, families that are left without any, and
 * retired signing keys that no unexpired token was signed with. Agents and their keys stay: a DID or key never comes back.
 *
 * @param nowMs milliseconds since 1970
 * @returns statements for one batch, safe to repeat
 */
export function identityRetentionStatements(db: D1Database, nowMs: number): D1PreparedStatement[] {
  const beforeMs = nowMs - DAY_MS;
  return [
    db.prepare("DELETE FROM aits WHERE expires_at_ms < ?1").bind(beforeMs),
    db.prepare("DELETE FROM token_pairs WHERE refresh_expires_at_ms < ?1").bind(beforeMs),
    db
      .prepare(
        `DELETE FROM token_families WHERE created_at_ms < ?1
           AND NOT EXISTS (SELECT 1 FROM token_pairs WHERE token_pairs.family_id = token_families.family_id)`,
      )
      .bind(beforeMs),
    // A list it signed may be served for days by a reader that cannot reach us.
    db
      .prepare(
        `DELETE FROM registry_keys WHERE is_current = 0 AND retired_at_ms < ?1
           AND NOT EXISTS (SELECT 1 FROM aits WHERE aits.kid = registry_keys.kid AND aits.expires_at_ms > ?2)`,
      )
      .bind(nowMs - 15 * DAY_MS, nowMs),
  ];
}
