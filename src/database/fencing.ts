/** Fencing tokens in D1: what has ended cannot commit any more. */

/** Raises the fencing token of an authority; never lowers it. */
export function raiseStatement(db: D1Database, authority: string, epoch: number): D1PreparedStatement {
  return db
    .prepare(
      "INSERT INTO authority_epochs (authority, epoch) VALUES (?1, ?2) ON CONFLICT (authority) DO UPDATE SET epoch = MAX(epoch, excluded.epoch)",
    )
    .bind(authority, epoch);
}

/** The fence in D1: the batch it begins is aborted once the authority has been raised above the epoch it was begun with. */
export function fenceStatement(
  db: D1Database,
  { authority, epoch }: { authority: string; epoch: number },
): D1PreparedStatement {
  return db
    .prepare(
      "INSERT INTO fence (current) SELECT 0 WHERE COALESCE((SELECT epoch FROM authority_epochs WHERE authority = ?1), 0) > ?2",
    )
    .bind(authority, epoch);
}

/** @returns whether D1 undid a batch because its fence found the caller's authority ended (constraint of migration 0003). */
export function isFenceFailure(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.message.includes("authority_is_current");
}
