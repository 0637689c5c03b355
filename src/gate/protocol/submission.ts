/** A send, as it crosses from the Worker to the sender's gate. */
import type { Refusal } from "../../auth/reasons.ts";
import type { AgentPrincipal } from "../../authority/principal.ts";

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
  trustEpoch: number;
  bytes: number;
  contentType?: string;
  conversationId?: string;
  replyTo?: string;
  traceparent?: string;
  /** The caller waits for the end of it. */
  isAwaited?: true;
  idempotency?: { key: string; bodySha256: string };
};

/** What a sender that waits for a delivery began under. */
export type WaitingSender = { epoch: number; jti: string; expMs: number };

/** What the gate answers to a send. */
export type SubmissionReply =
  | {
      ok: true;
      deliveryId: string;
      delivered: boolean;
      queueDepth: number;
      /** The agent's epoch that the send was admitted under. */
      epoch: number;
    }
  | { ok: false; refusal: Refusal };
