/** Fences of a removed trust: pending in D1, then placed in the two gates. */
import { backoffMs } from "../resilience/backoff.ts";
import { type RoundLimits, type RoundReport, runRound } from "../resilience/round.ts";
import { errorFields } from "../telemetry/log.ts";
import type { AgentDid } from "../wire/did.ts";
import { listPendingFences, postponeFences, settleFences } from "./pairs.ts";
import type { PeerGates, TrustDeps } from "./peer-gates.ts";

/** The calls of one pair: each of the two gates takes a fence. */
const CALLS_PER_PAIR = 2;
const RETRY = { initialMs: 15_000, maxMs: 3_600_000, jitterRatio: 0.2 } as const;

/** Puts the fence "`peer` below `epoch` is out" into the gate of `at`. @throws what that gate throws */
export type PlaceFence = (at: AgentDid, peer: AgentDid, epoch: number) => Promise<void>;

/**
 * Leaves a fence for each of the two in the other's gate, then says in D1 that both stand.
 *
 * @throws what a gate throws; the fences stay pending
 */
export async function placeFences(
  deps: Pick<TrustDeps, "db" | "log">,
  removal: { a: AgentDid; b: AgentDid; epoch: number },
  place: PlaceFence,
): Promise<void> {
  const { a, b, epoch } = removal;
  await Promise.all([place(a, b, epoch), place(b, a, epoch)]);
  try {
    await settleFences(deps.db, a, b, epoch);
  } catch (error) {
    // The fences stand; placing them a second time changes nothing.
    deps.log.error("trust.fences_not_settled", { agentDid: a, peerAgentDid: b, epoch, ...errorFields(error) });
  }
}

/**
 * Places the pending fences that are due: those of removals whose process died before the gates had them, or whose gates were out
 * of reach. A pair that fails is tried again later and later, so that it never keeps others waiting.
 *
 * @returns what the round came to; `left` counts those due that it did not come to, as far as it has seen
 */
export async function retryPendingFences(
  deps: TrustDeps & { readonly gates: PeerGates },
  limits: RoundLimits,
): Promise<RoundReport> {
  const seen = Math.floor(limits.calls / CALLS_PER_PAIR);
  const pending = await listPendingFences(deps.db, deps.now(), seen + 1);
  return runRound(pending, limits, {
    callsPerItem: CALLS_PER_PAIR,
    now: deps.now,
    run: ({ low, high, epoch }, ask) =>
      placeFences(deps, { a: low, b: high, epoch }, (at, peer) =>
        ask(at, () => deps.gates.of(at).fencePeer(peer, epoch)),
      ),
    async failed(each, error) {
      const { low, high, epoch, attempts } = each;
      deps.log.error("trust.fence_failed", { agentDid: low, peerAgentDid: high, epoch, ...errorFields(error) });
      await postponeFences(deps.db, each, deps.now() + backoffMs(attempts + 1, RETRY, Math.random()));
    },
  });
}
