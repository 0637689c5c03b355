/**
 * Bodies that the messages to all of a group share: each is stored once, and goes in the commit in which the last of its messages
 * no longer needs it.
 */

/** The shared bodies of one outbox. Each change is part of the caller's transaction. */
export type SharedBodies = {
  /** Stores a body, under the name that its messages have it by. */
  write(sharedId: string, body: string): void;
  /** A message holds its body until {@link SharedBodies.release}. */
  hold(deliveryId: string, sharedId: string): void;
  /** A message does not need its body any more; nothing happens for one that shares none. */
  release(deliveryId: string): void;
  /** Forgets bodies that no message holds: called once, when what is held has been read. */
  forgetOthers(): void;
};

/** @returns the shared bodies on a gate's own tables; memory knows who holds which */
export function createSharedBodies(sql: SqlStorage): SharedBodies {
  const bodyOf = new Map<string, string>();
  const holders = new Map<string, number>();

  return {
    write(sharedId, body) {
      sql.exec("INSERT INTO shared_bodies (shared_id, body) VALUES (?, ?)", sharedId, body);
    },
    hold(deliveryId, sharedId) {
      bodyOf.set(deliveryId, sharedId);
      holders.set(sharedId, (holders.get(sharedId) ?? 0) + 1);
    },
    release(deliveryId) {
      const sharedId = bodyOf.get(deliveryId);
      if (sharedId === undefined) return;
      bodyOf.delete(deliveryId);
      const left = (holders.get(sharedId) ?? 0) - 1;
      if (left > 0) {
        holders.set(sharedId, left);
        return;
      }
      holders.delete(sharedId);
      sql.exec("DELETE FROM shared_bodies WHERE shared_id = ?", sharedId);
    },
    forgetOthers() {
      const stored = sql.exec<{ shared_id: string }>("SELECT shared_id FROM shared_bodies").toArray();
      for (const { shared_id: sharedId } of stored) {
        if (!holders.has(sharedId)) sql.exec("DELETE FROM shared_bodies WHERE shared_id = ?", sharedId);
      }
    },
  };
}
