/** Fences of a removed trust: written in D1, then placed in the peers' gates. */
import { errorFields } from "../telemetry/log.ts";
import type { AgentDid } from "../wire/did.ts";
import { BATCH, type NotificationDeps } from "./notifications.ts";
import { listPendingFences, settleFences } from "./pairs.ts";

/**
 * Leaves a fence for each of the two in the other's gate, then says in D1 that both stand.
 *
 * @param place puts the fence "`peer` below `epoch` is out" into the gate of `at`
 * @throws whatever a gate throws; the debt stays on record
 */
export async function placeFences(
  deps: Pick<NotificationDeps, "db" | "log">,
  removal: { a: AgentDid; b: AgentDid; epoch: number },
  place: (at: AgentDid, peer: AgentDid, epoch: number) => Promise<void>,
): Promise<void> {
  const { a, b, epoch } = removal;
  await Promise.all([place(a, b, epoch), place(b, a, epoch)]);
  try {
    await settleFences(deps.db, a, b, epoch);
  } catch (error) {
    // The fences stand; laying them a second time changes nothing.
    deps.log.error("trust.fences_not_settled", { agentDid: a, peerAgentDid: b, epoch, ...errorFields(error) });
  }
}

/**
 * Lays the fences of removals that died between their commit and the gates.
 *
 * @returns how many pairs are fenced, and how many failed again
 */
export async function retryPendingFences(deps: NotificationDeps): Promise<{ settled: number; failed: number }> {
  const owed = await listPendingFences(deps.db, BATCH);
  let settled = 0;
  for (const { low, high, epoch } of owed) {
    try {
      await placeFences(deps, { a: low, b: high, epoch }, async (at, peer) => {
        await deps.gates.of(at).fencePeer(peer, epoch);
      });
      settled += 1;
    } catch (error) {
      deps.log.error("trust.fence_failed", { agentDid: low, peerAgentDid: high, epoch, ...errorFields(error) });
    }
  }
  return { settled, failed: owed.length - settled };
}
