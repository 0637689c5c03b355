/** What the registry may forget. */

const DAY_MS = 86_400_000;

/**
 * Deletes identity tokens and token pairs that have been expired for a day; and once none of them is left, families that
 * are left without any and retired signing keys that no unexpired token was signed with. Agents and their keys stay: a DID
 * or key never comes back.
 *
 * @param nowMs milliseconds since 1970
 * @param limit rows of each kind that go at most; signing keys, which the operator makes one by one, go all at once
 * @returns how many went of the kind that lost most; as many as `limit` where there may be more
 */
export async function pruneIdentity(db: D1Database, nowMs: number, limit: number): Promise<number> {
  const beforeMs = nowMs - DAY_MS;
  const tokens = mostChanged(await db.batch(tokenStatements(db, beforeMs, limit)));
  // No index knows which families are empty: they are gone through one by one, so not for each piece of the tokens.
  if (tokens >= limit) return tokens;
  return Math.max(tokens, mostChanged(await db.batch(familyStatements(db, nowMs, limit))));
}

/** @returns how many rows the statement of a batch changed that changed most */
export function mostChanged(results: readonly D1Result[]): number {
  return Math.max(0, ...results.map(({ meta }) => meta.changes));
}

function tokenStatements(db: D1Database, beforeMs: number, limit: number): D1PreparedStatement[] {
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
  ];
}

function familyStatements(db: D1Database, nowMs: number, limit: number): D1PreparedStatement[] {
  return [
    db
      .prepare(
        `DELETE FROM token_families WHERE family_id IN (
           SELECT family_id FROM token_families WHERE created_at_ms < ?1
             AND NOT EXISTS (SELECT 1 FROM token_pairs WHERE token_pairs.family_id = token_families.family_id)
           LIMIT ?2)`,
      )
      .bind(nowMs - DAY_MS, limit),
    // A list it signed may be served for days by a reader that cannot reach us.
    db
      .prepare(
        `DELETE FROM registry_keys WHERE is_current = 0 AND retired_at_ms < ?1
           AND NOT EXISTS (SELECT 1 FROM aits WHERE aits.kid = registry_keys.kid AND aits.expires_at_ms > ?2)`,
      )
      .bind(nowMs - 15 * DAY_MS, nowMs),
  ];
}
