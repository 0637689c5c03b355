/**
 * Groups whose members have changed: below the epoch of a change nothing passes that was judged by the list from before it, whatever
 * a cache says.
 */
import type { GroupFence } from "../../call/group-fence.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { GroupId } from "../../wire/group-id.ts";

/** Longer than anything that was judged before a change can still be on its way: in a cache, in an outbox, or in a queue. */
const RETENTION_MS = 30 * 86_400_000;
const PRUNE_BATCH_MAX = 1_000;

export type GroupFences = {
  /** Whether a message from one to the other may pass that was judged by the list of this epoch. */
  admits(groupId: GroupId, epoch: number, parties: readonly AgentDid[]): boolean;
  /** Whether a list of this epoch has everybody who has come: for what is sent to all. */
  isComplete(groupId: GroupId, epoch: number): boolean;
  /** Only ever raises: what comes twice or late changes nothing. Part of the caller's transaction. */
  raise(fence: GroupFence, nowMs: number): void;
  /** Forgets fences that nothing can meet any more, a bounded number. */
  prune(nowMs: number): void;
};

/** @param sql the gate's own database; memory mirrors it */
export function createGroupFences(sql: SqlStorage): GroupFences {
  const fences = new Map<string, Map<string, number>>();
  const keep = (groupId: string, subject: string, epoch: number): void => {
    let group = fences.get(groupId);
    if (group === undefined) fences.set(groupId, (group = new Map()));
    group.set(subject, epoch);
  };
  const load = (): void => {
    fences.clear();
    for (const { group_id, subject, epoch } of sql.exec<{ group_id: string; subject: string; epoch: number }>(
      "SELECT group_id, subject, epoch FROM group_fences",
    ))
      keep(group_id, subject, epoch);
  };
  load();

  return {
    admits(groupId, epoch, parties) {
      const group = fences.get(groupId);
      if (group === undefined) return true;
      return ["", ...parties].every((subject) => epoch >= (group.get(subject) ?? 0));
    },
    isComplete: (groupId, epoch) => epoch >= (fences.get(groupId)?.get("+") ?? 0),
    raise({ groupId, subject, epoch }, nowMs) {
      if ((fences.get(groupId)?.get(subject) ?? 0) >= epoch) return;
      sql.exec(
        `INSERT INTO group_fences (group_id, subject, epoch, raised_at_ms) VALUES (?, ?, ?, ?)
         ON CONFLICT (group_id, subject) DO UPDATE SET epoch = excluded.epoch, raised_at_ms = excluded.raised_at_ms`,
        groupId,
        subject,
        epoch,
        nowMs,
      );
      keep(groupId, subject, epoch);
    },
    prune(nowMs) {
      const forgotten = sql.exec(
        `DELETE FROM group_fences WHERE (group_id, subject) IN (
           SELECT group_id, subject FROM group_fences WHERE raised_at_ms <= ? LIMIT ?)`,
        nowMs - RETENTION_MS,
        PRUNE_BATCH_MAX,
      );
      if (forgotten.rowsWritten > 0) load();
    },
  };
}
