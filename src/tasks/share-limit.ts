/** How many subjects a task may be shared with, so that every question about it stays one that can be decided. */
import { ProxyError } from "../wire/problem.ts";

/** Shares of one task, editors and viewers together. */
export const SHARES_MAX = 1_000;

/** A statement that undoes its batch when a new share would be one too many; a share that stands already is none. */
export function roomForShare(
  db: D1Database,
  share: { taskId: string; relation: "editor" | "viewer"; subject: string },
): D1PreparedStatement {
  return db
    .prepare(
      `INSERT INTO share_guard (has_room) SELECT 0
       WHERE (SELECT COUNT(*) FROM (SELECT 1 FROM relationships
           WHERE object_type = 'task' AND object_id = ?1 AND relation IN ('editor', 'viewer') LIMIT ?2)) >= ?2
         AND NOT EXISTS (SELECT 1 FROM relationships
           WHERE object_type = 'task' AND object_id = ?1 AND relation = ?3
             AND subject_type || ':' || subject_id || IIF(subject_relation = '', '', '#' || subject_relation) = ?4)`,
    )
    .bind(share.taskId, SHARES_MAX, share.relation, share.subject);
}

/** @throws ProxyError PROXY_CONFLICT when a batch was undone for want of room; otherwise what `committing` throws */
export async function withinShareLimit<T>(committing: Promise<T>): Promise<T> {
  try {
    return await committing;
  } catch (error) {
    const cause = error instanceof ProxyError ? error.cause : error;
    if (!(cause instanceof Error && cause.message.includes("task_has_room_for_a_share"))) throw error;
    throw new ProxyError("PROXY_CONFLICT", {
      detail: `subject: the task is shared with ${SHARES_MAX} already; take one back first.`,
    });
  }
}
