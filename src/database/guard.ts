/** A condition that undoes its batch when it does not hold at commit. */

/** @returns whether D1 undid a batch because a {@link guard} of it did not hold (constraint of migration 0001). */
export function isGuardFailure(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.message.includes("registry_is_as_read");
}

/**
 * A statement that undoes its batch unless the condition holds at commit.
 *
 * @param condition SQL that is true when the registry is as it was read
 */
export function guard(db: D1Database, condition: string, ...bindings: (string | number | null)[]): D1PreparedStatement {
  return db.prepare(`INSERT INTO registry_guard (holds) SELECT 0 WHERE NOT (${condition})`).bind(...bindings);
}
