/** What a call may ask of a gate other than the one it runs in. */
import type { OperatorPrincipal } from "../authority/operator.ts";
import { withDeadline } from "../resilience/deadline.ts";
import { errorFields } from "../telemetry/log.ts";
import { ProxyError, proxyErrorFrom } from "../wire/problem.ts";
import type { Log } from "../telemetry/log.ts";
import type { AgentDid } from "../wire/did.ts";
import type { Handling, LocalMessage } from "./gate.ts";
import type { GroupFence } from "./group-fence.ts";
import type { WrittenReply } from "./reply.ts";

/** Another agent's gate, as far as a call may use it. */
export type RemoteGate = {
  /** Puts a message of the proxy's own into that agent's queue; on disk before the answer. */
  notify(message: LocalMessage): Promise<{ deliveryId: string }>;
  /** Keeps a peer below a trust epoch out; on disk before the answer. */
  fencePeer(peer: AgentDid, trustEpoch: number): Promise<void>;
  /** Keeps what was judged by an older list of a group's members out; on disk before the answer. */
  fenceGroup(fence: GroupFence): Promise<void>;
  /** Tells that agent's sockets that may read tasks what a task is at; nothing is kept of it. */
  announceTask(payload: Record<string, unknown>): Promise<void>;
  /** Attempts so far on a message that waits there, or null. */
  attempts(deliveryId: string): Promise<number | null>;
  /**
   * Records what a recipient's program made of a message of that agent; the first verdict stands.
   *
   * @returns false where the agent has sent no such message to that recipient, or it was not delivered
   */
  recordHandling(deliveryId: string, recipient: AgentDid, handling: Handling): Promise<boolean>;
  /** Runs calls of the operator there. */
  call(request: OperatorCall): Promise<OperatorAnswer>;
};

/** Calls that an operator makes on the agent of another gate. */
export type OperatorCall = {
  caller: { kind: "operator"; principal: OperatorPrincipal };
  surface: "rpc" | "http";
  requestId: string;
  origin: string | null;
  bookmark: string | null;
  calls: { method: string; params: unknown }[];
};

export type OperatorAnswer = { ok: true; replies: readonly WrittenReply[] } | { ok: false };

/**
 * A gate that does not answer within this time is out of reach. Shorter than what an end of authority has for its drain: a call
 * that waits for another agent's gate must not keep its own from being ended.
 */
export const REMOTE_GATE_TIMEOUT_MS = 3_000;
/** An operator's call there may end an authority, which has 5 s of its own. */
export const REMOTE_CALL_TIMEOUT_MS = 8_000;

/**
 * Asks a gate. One that fails is out of reach, as it is for every request: whether it did what it was asked nobody knows, and
 * the same call may be made again.
 *
 * @param timeoutMs how long it may take, in milliseconds
 * @throws ProxyError what the gate refused with; PROXY_AUTH_DEPENDENCY_UNAVAILABLE where it did not answer in time
 */
export async function callRemoteGate<T>(
  { log }: { log: Log },
  call: () => Promise<T>,
  timeoutMs: number = REMOTE_GATE_TIMEOUT_MS,
): Promise<T> {
  try {
    return await withDeadline(timeoutMs, call);
  } catch (thrown) {
    const error = proxyErrorFrom(thrown);
    if (error.code !== "PROXY_INTERNAL") throw error;
    log.error("gate.failed", errorFields(thrown));
    throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", {
      reason: "gate-unavailable",
      retryAfterMs: 1_000,
      cause: thrown,
    });
  }
}
