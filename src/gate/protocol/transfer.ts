/** What the two ends of a delivery say to each other: the sender's gate, which holds the outbox, and the recipient's, which holds the queue. */
import type { AgentDid } from "../../wire/did.ts";

/** What goes with a body, as JSON text in one column; the members are those of a `deliver` frame (contract §4). */
export type Envelope = {
  fromAgentDid: AgentDid | null;
  fromSubject?: string;
  /** The sending agent's, by its identity token. */
  fromName?: string;
  contentType?: string;
  conversationId?: string;
  groupId?: string;
  replyTo?: string;
  traceparent?: string;
  /** The trust epoch that the sender was judged by; absent where pairing is not consulted. */
  trustEpoch?: number;
  /** In the place of it, in a group: the epoch of the list of members that both were on. */
  groupEpoch?: number;
  /** A request waits for the end of it (`Prefer: wait`): it is not batched. */
  isAwaited?: true;
};

/** One message of a hand-over. */
export type QueuedMessage = { deliveryId: string; createdAtMs: number; bytes: number; envelope: string; body: string };

/** What a recipient's gate answers to a hand-over: how many of the batch, from its start, are on its disk. */
export type TransferResult = { taken: number };

/** How a message ended at its recipient, or that it has not: a dead letter that is replayed waits again. */
export type DeliveryOutcome = {
  deliveryId: string;
  delivered: boolean;
  reason: string | null;
  attempts: number;
  /** When, by the recipient's gate: the later word on a message counts, and the same word again is a repeat. */
  atMs: number;
  waitsAgain?: true;
};

/** Messages of one hand-over, */
export const TRANSFER_BATCH_MAX = 100;
/** and bytes of their bodies; one message goes always. */
export const TRANSFER_BYTES_MAX = 1_048_576;
/** Once so many bytes are being handed over by one gate, other recipients wait for their turn. */
export const TRANSFER_IN_PROGRESS_BYTES_MAX = 8 * 1_048_576;

/** What a queue or an outbox holds at most, in bytes of bodies. */
export const HELD_BYTES_MAX = 64 * 1_048_576;

/** Between two reports to the same gate, unless a request waits for one of them. */
export const REPORT_TICK_MS = 500;
