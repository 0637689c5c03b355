/** What the registry may forget. */

const DAY_MS = 86_400_000;

/**
 * Deletes identity tokens and token pairs that have been expired for a day, families that are left without any, and
 * retired signing keys that no unexpired token was signed with. Agents and their keys stay: a DID or key never comes back.
 *
 * @param nowMs milliseconds since 1970
 * @param limit rows that each statement deletes at most; keys, which the operator makes one by one, go all at once
 * @returns statements for one batch, to be repeated until none finds as many
 */
export function identityRetentionStatements(db: D1Database, nowMs: number, limit: number): D1PreparedStatement[] {
  const beforeMs = nowMs - DAY_MS;
  return [
    db
      .prepare(
        `DELETE FROM aits WHERE jti IN (
           SELECT jti FROM aits WHERE expires_at_ms < ?1 ORDER BY expires_at_ms LIMIT ?2)`,
      )
      .bind(beforeMs, limit),
    db
      .prepare(
        `DELETE FROM token_pairs WHERE refresh_hash IN (
           SELECT refresh_hash FROM token_pairs WHERE refresh_expires_at_ms < ?1 ORDER BY refresh_expires_at_ms LIMIT ?2)`,
      )
      .bind(beforeMs, limit),
    db
      .prepare(
        `DELETE FROM token_families WHERE family_id IN (
           SELECT family_id FROM token_families WHERE created_at_ms < ?1
             AND NOT EXISTS (SELECT 1 FROM token_pairs WHERE token_pairs.family_id = token_families.family_id)
           LIMIT ?2)`,
      )
      .bind(beforeMs, limit),
    // A list it signed may be served for days by a reader that cannot reach us.
    db
      .prepare(
        `DELETE FROM registry_keys WHERE is_current = 0 AND retired_at_ms < ?1
           AND NOT EXISTS (SELECT 1 FROM aits WHERE aits.kid = registry_keys.kid AND aits.expires_at_ms > ?2)`,
      )
      .bind(nowMs - 15 * DAY_MS, nowMs),
  ];
}
