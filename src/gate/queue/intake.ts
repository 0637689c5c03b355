/** What comes into a recipient's gate: messages of other gates, the proxy's own, and the end of a peer's trust. */
import type { LocalMessage } from "../../call/gate.ts";
import type { GroupFence } from "../../call/group-fence.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { Envelope, QueuedMessage, TransferResult } from "../protocol/transfer.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import { PROXY_SENDER, type Queue } from "./queue.ts";

/** The recipient's half of a transfer. */
export type Intake = {
  /** Takes messages of a sender's gate, in order from the start of the batch; on disk before the answer. */
  receive(from: AgentDid, messages: readonly QueuedMessage[]): Promise<TransferResult>;
  /**
   * Queues a message of the proxy's own, or of a sender without a gate. Part of the caller's transaction.
   *
   * @throws ProxyError PROXY_RELAY_QUEUE_FULL
   */
  putLocal(message: LocalMessage): { deliveryId: string };
  /** Ends what a peer has waiting here below this trust epoch, now and from now on. Part of the caller's transaction. */
  fencePeer(peer: AgentDid, trustEpoch: number): void;
  /** Ends what waits here that was judged by an older list of a group's members. Part of the caller's transaction. */
  fenceGroup(fence: GroupFence): void;
};

export type IntakeDeps = {
  queue: Pick<Queue, "receive" | "putLocal" | "endUntrusted">;
  commits: GroupCommit;
  now: () => number;
  /** A fresh delivery id, above all that it has given. */
  nextId: (nowMs: number) => string;
  fences: { raise(peer: AgentDid, trustEpoch: number): void };
  groupFences: { raise(fence: GroupFence, nowMs: number): void };
  trustFences: { admits(peer: AgentDid, judged: Envelope): boolean };
  /** Whether this agent has been revoked: what comes for it is a dead letter. */
  isRevoked: () => boolean;
  /** Whether an end of this agent is in progress, and may yet be undone: messages stay with their senders meanwhile. */
  isEnding: () => boolean;
};

/** @returns the intake of one gate. */
export function createIntake(deps: IntakeDeps): Intake {
  const { queue, commits, now, fences, groupFences, trustFences } = deps;
  return {
    receive(from, messages) {
      const refusal = (message: QueuedMessage): string | null => {
        if (deps.isRevoked()) return "recipient revoked";
        return trustFences.admits(from, JSON.parse(message.envelope) as Envelope) ? null : "trust removed";
      };
      return commits.commitChecked(() => ({
        taken: queue.receive(from, messages, { isShut: deps.isEnding(), refusal }, now()),
      }));
    },

    putLocal(message) {
      const nowMs = now();
      const { fromAgentDid, fromSubject, conversationId, payload } = message;
      const deliveryId = message.deliveryId ?? deps.nextId(nowMs);
      const envelope: Envelope = {
        fromAgentDid,
        contentType: "application/json",
        ...(fromSubject === undefined ? {} : { fromSubject }),
        ...(conversationId === undefined ? {} : { conversationId }),
      };
      const bytes = new TextEncoder().encode(payload).length;
      const queued = { deliveryId, createdAtMs: nowMs, bytes, envelope: JSON.stringify(envelope), body: payload };
      queue.putLocal(fromSubject ?? PROXY_SENDER, queued, nowMs);
      return { deliveryId };
    },

    fencePeer(peer, trustEpoch) {
      fences.raise(peer, trustEpoch);
      queue.endUntrusted(peer, now());
    },

    fenceGroup(fence) {
      groupFences.raise(fence, now());
      // Whoever comes ends nothing.
      if (fence.subject !== "+") queue.endUntrusted(null, now());
    },
  };
}
