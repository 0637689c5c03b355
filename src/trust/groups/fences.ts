/**
 * What the gates of a group are notified of: pending in D1 from the commit of a change on, then on disk in each of them. A fence
 * says of a member, or of the whole group, that it is out below an epoch, or that somebody came, so that what is sent to all is
 * judged by a list that has them.
 */
import { and, asc, eq, isNotNull, lte, sql } from "drizzle-orm";
import type { GroupFence } from "../../call/group-fence.ts";
import type { RemoteGate } from "../../call/remote-gate.ts";
import { runBatch } from "../../database/batch.ts";
import { execute, readAll } from "../../database/read.ts";
import { agentGroups, groupFences, groupMembers, groupTokens } from "../../database/schema.ts";
import { query, type Statement } from "../../database/statement.ts";
import { backoffMs } from "../../resilience/backoff.ts";
import { type RoundLimits, type RoundReport, runRound } from "../../resilience/round.ts";
import { errorFields } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { GroupId } from "../../wire/group-id.ts";
import type { TrustDeps } from "../peer-gates.ts";
import { MEMBERS_MAX } from "./rows.ts";

type FenceSubject = GroupFence["subject"];

/** A fence that gates are not known to have. */
export type PendingGroupFence = GroupFence & { readonly attempts: number };

/** A change places its fences itself; after this time housekeeping does. */
export const GROUP_FENCES_GRACE_MS = 15_000;
/** Gates of one fence: all members, and the one who left. */
export const GATES_PER_FENCE_MAX = MEMBERS_MAX + 1;

const RETRY = { initialMs: 15_000, maxMs: 3_600_000, jitterRatio: 0.2 } as const;

/** The gates of a group's members; what they were asked is on disk there before they answer. */
export type GroupGates = { of(did: AgentDid): Pick<RemoteGate, "fenceGroup"> };

/** Puts a fence into the gate of `at`. @throws what that gate throws */
export type PlaceGroupFence = (at: AgentDid, fence: GroupFence) => Promise<void>;

/** Records a fence as pending at the group's epoch, where the statement right before it in the batch changed a row. */
export function pendingStatement(groupId: GroupId, subject: FenceSubject, nowMs: number): Statement<D1Result> {
  return query.run(sql`
    INSERT INTO ${groupFences} (group_id, subject, epoch, due_at_ms)
    SELECT ${groupId}, ${subject}, ${agentGroups.epoch}, ${nowMs + GROUP_FENCES_GRACE_MS} FROM ${agentGroups}
      WHERE ${eq(agentGroups.groupId, groupId)} AND changes() > 0
    ON CONFLICT (group_id, subject) DO UPDATE SET epoch = excluded.epoch, due_at_ms = excluded.due_at_ms, attempts = 0`);
}

/** A fence as far as it is pending. */
export function selectPendingStatement(groupId: GroupId, subject: FenceSubject): Statement<PendingGroupFence[]> {
  return query
    .select(PENDING)
    .from(groupFences)
    .where(and(eq(groupFences.groupId, groupId), eq(groupFences.subject, subject)));
}

const PENDING = {
  groupId: groupFences.groupId,
  subject: groupFences.subject,
  epoch: groupFences.epoch,
  attempts: groupFences.attempts,
};

/** The gates that a fence belongs into: of the members, and of those who are out and whose own fences are pending still. */
export function gatesStatement(groupId: GroupId): Statement<{ agentDid: AgentDid }[]> {
  return query.all(sql`
    SELECT ${groupMembers.agentDid} AS "agentDid" FROM ${groupMembers} WHERE ${eq(groupMembers.groupId, groupId)}
    UNION SELECT ${groupFences.subject} FROM ${groupFences}
      WHERE ${eq(groupFences.groupId, groupId)} AND ${groupFences.subject} NOT IN ('', '+')`);
}

/**
 * Places a fence in every gate that it belongs into, then says in D1 that it stands. Of a group that was deleted nothing is left then.
 *
 * @throws what a gate throws; the fence stays pending
 */
export async function placeGroupFence(
  deps: Pick<TrustDeps, "db" | "log">,
  fence: GroupFence,
  gates: readonly AgentDid[],
  place: PlaceGroupFence,
): Promise<void> {
  const { groupId, subject, epoch } = fence;
  await Promise.all(gates.map((at) => place(at, { groupId, subject, epoch })));
  try {
    if (subject === "") await runBatch(deps.db, forgetGroupStatements(groupId));
    else await execute(deps.db, settleStatement(fence));
  } catch (error) {
    // The fences stand; placing them a second time changes nothing.
    deps.log.error("group.fences_not_settled", { groupId, epoch, ...errorFields(error) });
  }
}

/** One of a later change stays pending. */
function settleStatement({ groupId, subject, epoch }: GroupFence): Statement<D1Result> {
  return query
    .delete(groupFences)
    .where(and(eq(groupFences.groupId, groupId), eq(groupFences.subject, subject), eq(groupFences.epoch, epoch)));
}

function forgetGroupStatements(groupId: GroupId): Statement<D1Result>[] {
  const isDeleted = sql`NOT EXISTS (SELECT 1 FROM ${agentGroups} WHERE ${eq(agentGroups.groupId, groupId)})`;
  return [
    query.delete(agentGroups).where(and(eq(agentGroups.groupId, groupId), isNotNull(agentGroups.deletedAtMs))),
    query.delete(groupMembers).where(and(eq(groupMembers.groupId, groupId), isDeleted)),
    query.delete(groupTokens).where(and(eq(groupTokens.groupId, groupId), isDeleted)),
    query.delete(groupFences).where(and(eq(groupFences.groupId, groupId), isDeleted)),
  ];
}

/**
 * Places the pending fences that are due: those of changes whose process died before the gates had them, or whose gates were out of
 * reach. One that fails is tried again later and later, so that it never keeps others waiting.
 *
 * @returns what the round came to; `left` counts those due that it did not come to, as far as it has seen
 */
export async function retryPendingGroupFences(
  deps: TrustDeps & { readonly gates: GroupGates },
  limits: RoundLimits,
): Promise<RoundReport> {
  const seen = Math.floor(limits.calls / GATES_PER_FENCE_MAX);
  const pending = await readAll(
    deps.db.withSession("first-primary"),
    query
      .select(PENDING)
      .from(groupFences)
      .where(lte(groupFences.dueAtMs, deps.now()))
      .orderBy(asc(groupFences.dueAtMs))
      .limit(seen + 1),
  );
  return runRound(pending, limits, {
    callsPerItem: GATES_PER_FENCE_MAX,
    now: deps.now,
    async run(fence, ask) {
      const gates = await readAll(deps.db.withSession("first-primary"), gatesStatement(fence.groupId));
      await placeGroupFence(
        deps,
        fence,
        gates.map(({ agentDid }) => agentDid),
        (at, what) => ask(at, () => deps.gates.of(at).fenceGroup(what)),
      );
    },
    async failed({ groupId, subject, epoch, attempts }, error) {
      deps.log.error("group.fence_failed", { groupId, epoch, ...errorFields(error) });
      const dueAtMs = deps.now() + backoffMs(attempts + 1, RETRY, Math.random());
      await execute(
        deps.db,
        query
          .update(groupFences)
          .set({ dueAtMs, attempts: attempts + 1 })
          .where(and(eq(groupFences.groupId, groupId), eq(groupFences.subject, subject), eq(groupFences.epoch, epoch))),
      );
    },
  });
}
