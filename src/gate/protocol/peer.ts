/** Another agent's gate, as the transfer of messages and the reporting of their outcomes see it. */
import { withDeadline } from "../../resilience/deadline.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { DeliveryOutcome, QueuedMessage, TransferResult } from "./transfer.ts";

/** What one gate may ask of another about messages between their agents. */
export type PeerGate = {
  /** Takes messages of `from`, in order from the start; on disk before the answer. */
  receive(from: AgentDid, messages: QueuedMessage[]): Promise<TransferResult>;
  /** Records how messages of its own agent ended; on disk before the answer. */
  settle(outcomes: DeliveryOutcome[]): Promise<void>;
};

/** A gate that does not answer within this time is asked again; it recognises repeats. */
export const PEER_TIMEOUT_MS = 10_000;

/** How long a gate that has failed is left alone: 1 s at first, 30 s at most, ±20 %. */
export const PEER_RETRY = { initialMs: 1_000, maxMs: 30_000, jitterRatio: 0.2 };

/**
 * Asks another gate, within {@link PEER_TIMEOUT_MS}.
 *
 * @throws DeadlineExceeded when no answer comes in time, or what the call throws
 */
export function askPeer<T>(call: () => Promise<T>): Promise<T> {
  return withDeadline(PEER_TIMEOUT_MS, call);
}
