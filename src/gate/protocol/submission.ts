/** A send, as it crosses from the Worker to the sender's gate. */
import type { Refusal } from "../../auth/reasons.ts";
import type { DeliveryState } from "../../call/gate.ts";
import type { AgentPrincipal } from "../../authority/principal.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { GroupId } from "../../wire/group-id.ts";

/** An agent whose identity token, revocation and proof the chain has verified; plain data, so that it can cross to the gate. */
export type AgentAdmission = {
  principal: AgentPrincipal;
  nonce: string;
  timestampSeconds: number;
  /** `validatedAtMs` null: the registry did not answer, and the gate's last good validation decides. Absent: not asked for. */
  access?: { keyHash: string; validatedAtMs: number | null };
};

/** A send, beside its body. */
export type Submission = {
  admission: AgentAdmission;
  to: string;
  /** Of the pair, or of the group that it is sent in. */
  trustEpoch: number;
  groupId?: GroupId;
  bytes: number;
  contentType?: string;
  conversationId?: string;
  replyTo?: string;
  traceparent?: string;
  /** The caller waits for the end of it. */
  isAwaited?: true;
  idempotency?: { key: string; bodySha256: string };
};

/** A send to all of a group but its sender, beside its body. */
export type GroupSubmission = Omit<Submission, "to" | "groupId"> & { groupId: GroupId; members: string[] };

/** What the gate answers to it: one message for each. */
export type GroupSubmissionReply = { ok: true; deliveries: FannedOut[] } | { ok: false; refusal: Refusal };

/** One message of a send to all of a group. */
export type FannedOut = { agentDid: AgentDid; deliveryId: string };

/** What a sender that waits for a delivery began under. */
export type WaitingSender = { epoch: number; jti: string; expMs: number };

/** What the gate answers to a send. */
export type SubmissionReply =
  | {
      ok: true;
      deliveryId: string;
      /** Other than `queued` only for a repeat under an idempotency key. */
      state: DeliveryState;
      queueDepth: number;
      /** The agent's epoch that the send was admitted under. */
      epoch: number;
    }
  | { ok: false; refusal: Refusal };
