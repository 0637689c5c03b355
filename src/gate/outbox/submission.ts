/** What the sender's side of a gate does: takes its agent's sends, and records how they ended. On disk before any answer. */
import type { Handling } from "../../call/gate.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { GroupFences } from "../admission/group-fences.ts";
import type { TrustFences } from "../admission/trust-fences.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type {
  AgentAdmission,
  FannedOut,
  GroupSubmission,
  Submission,
  SubmissionReply,
} from "../protocol/submission.ts";
import type { DeliveryOutcome, Envelope } from "../protocol/transfer.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Outbox, Receipt } from "./outbox.ts";

/** A report that no request waits for goes into whatever commit comes next, or into its own by then. */
const SETTLED_WITHIN_MS = 50;

/** The sender's half of a delivery. */
export type Submissions = {
  /**
   * Takes a send: nonce, flags, rate and the message itself in one commit.
   *
   * @param body JSON text, `send.bytes` bytes of UTF-8
   * @throws GateRefusal
   */
  submit(send: Submission, body: string): Promise<SubmissionReply>;
  /** Takes a send to all of a group, likewise in one commit: all of its messages, or none. @throws GateRefusal */
  submitToGroup(send: GroupSubmission, body: string): Promise<FannedOut[]>;
  /** Waits until a message of this agent has ended, `waitMs` at most; then also says how many still wait for its recipient. */
  awaitDelivery(deliveryId: string, waitMs: number): Promise<{ delivered: boolean; queueDepth: number }>;
  /** Records what became of messages that were handed over. Repeats change nothing. */
  settle(outcomes: readonly DeliveryOutcome[]): Promise<void>;
  /** Records what a recipient's program made of a message. @returns false where that agent was sent no such message */
  recordHandling(deliveryId: string, recipient: AgentDid, handling: Handling): Promise<boolean>;
  /** Ends what has waited too long for a recipient whose gate does not answer. */
  expire(to: AgentDid): Promise<void>;
};

export type SubmissionsDeps = {
  self: AgentDid;
  outbox: Pick<
    Outbox,
    "accept" | "acceptForGroup" | "hasRoom" | "status" | "queueDepth" | "settle" | "handle" | "expire"
  >;
  commits: GroupCommit;
  /** The agent's epoch. */
  epoch: () => number;
  now: () => number;
  /** Admits the request and remembers its nonce. @throws GateRefusal, the last of them `deferredRefusal` */
  admit: (admission: AgentAdmission, nowMs: number, deferredRefusal: GateRefusal | null) => void;
  /** Whether trust by which a message was judged still holds. */
  trustFences: Pick<TrustFences, "admits">;
  /** Whether a group's list has everybody who has come. */
  groupFences: Pick<GroupFences, "isComplete">;
  /** Takes the receipts of what has ended, in the commit that records it. */
  onSettled: (receipts: readonly Receipt[]) => void;
};

/** @returns the submissions of one gate. */
export function createSubmissions(deps: SubmissionsDeps): Submissions {
  const { self, outbox, commits, now } = deps;
  /** Requests that wait for the end of a message, by its delivery id. */
  const waiting = new Map<string, Set<(delivered: boolean) => void>>();

  const untilSettled = async (deliveryId: string, waitMs: number): Promise<boolean> => {
    const waiters = waiting.get(deliveryId) ?? new Set();
    waiting.set(deliveryId, waiters);
    let waiter: ((delivered: boolean) => void) | undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      return await new Promise<boolean>((resolve) => {
        waiter = resolve;
        waiters.add(resolve);
        timer = setTimeout(() => resolve(false), waitMs);
      });
    } finally {
      clearTimeout(timer);
      if (waiter !== undefined) waiters.delete(waiter);
      if (waiters.size === 0) waiting.delete(deliveryId);
    }
  };

  const notify = (deliveryId: string, delivered: boolean): void => {
    for (const resolve of waiting.get(deliveryId) ?? []) resolve(delivered);
  };

  return {
    submit(send, body) {
      const to = send.to as AgentDid;
      const { admission, bytes, idempotency } = send;
      const isAwaited = send.isAwaited === true;
      const sent = envelopeOf(self, send);
      const envelope = JSON.stringify(sent);
      const deferredRefusal = (): GateRefusal | null => {
        if (!deps.trustFences.admits(to, sent)) return new GateRefusal("gate-peer-fenced");
        // A repeat needs no room: whether it is one is seen when the message is written.
        if (idempotency !== undefined || outbox.hasRoom(bytes)) return null;
        return new GateRefusal("gate-outbox-full", 1_000);
      };
      // A repeat under an idempotency key may be refused after its nonce is written, which is undone then.
      const mayUndo = idempotency !== undefined;
      return (mayUndo ? commits.commit : commits.commitChecked)((): SubmissionReply => {
        const nowMs = now();
        deps.admit(admission, nowMs, deferredRefusal());
        const draft = { to, bytes, envelope, body, isAwaited, ...(idempotency === undefined ? {} : { idempotency }) };
        return { ok: true, ...outbox.accept(draft, nowMs), epoch: deps.epoch() };
      });
    },

    submitToGroup(send, body) {
      const { admission, groupId, trustEpoch, bytes, idempotency } = send;
      const members = send.members as AgentDid[];
      const sent = envelopeOf(self, send);
      const envelope = JSON.stringify(sent);
      const isOutOfDate = (): boolean =>
        !deps.groupFences.isComplete(groupId, trustEpoch) ||
        members.some((member) => !deps.trustFences.admits(member, sent));
      return commits.commit(() => {
        const nowMs = now();
        deps.admit(admission, nowMs, isOutOfDate() ? new GateRefusal("gate-peer-fenced") : null);
        const draft = {
          groupId,
          members,
          bytes,
          envelope,
          body,
          ...(idempotency === undefined ? {} : { idempotency }),
        };
        return outbox.acceptForGroup(draft, nowMs);
      });
    },

    async awaitDelivery(deliveryId, waitMs) {
      const status = outbox.status(deliveryId, now());
      if (status === null) return { delivered: false, queueDepth: 0 };
      const delivered =
        status.state === "queued" ? await untilSettled(deliveryId, waitMs) : status.state !== "dead_lettered";
      return { delivered, queueDepth: outbox.queueDepth(status.to) };
    },

    async settle(outcomes) {
      const isAwaited = outcomes.some(({ deliveryId }) => waiting.has(deliveryId));
      await commits.commitChecked(
        () => deps.onSettled(outbox.settle(outcomes, now())),
        isAwaited ? 0 : SETTLED_WITHIN_MS,
      );
      for (const { deliveryId, delivered, waitsAgain } of outcomes) {
        if (waitsAgain !== true) notify(deliveryId, delivered);
      }
    },

    async recordHandling(deliveryId, recipient, handling) {
      const recorded = await commits.commitChecked(() => {
        const receipt = outbox.handle(deliveryId, recipient, handling, now());
        if (typeof receipt !== "string") deps.onSettled([receipt]);
        return receipt;
      });
      if (recorded === "none") return false;
      notify(deliveryId, true);
      return true;
    },

    async expire(to) {
      const receipts = await commits.commitChecked(() => {
        const expired = outbox.expire(to, now());
        deps.onSettled(expired);
        return expired;
      });
      for (const { deliveryId, status } of receipts) notify(deliveryId, status === "delivered");
    },
  };
}

function envelopeOf(self: AgentDid, send: Omit<Submission, "to">): Envelope {
  const { trustEpoch, groupId, contentType, conversationId, replyTo, traceparent, isAwaited } = send;
  const { name: fromName } = send.admission.principal;
  return {
    fromAgentDid: self,
    ...(fromName === undefined ? {} : { fromName }),
    ...(groupId === undefined ? { trustEpoch } : { groupId, groupEpoch: trustEpoch }),
    ...(contentType === undefined ? {} : { contentType }),
    ...(conversationId === undefined ? {} : { conversationId }),
    ...(replyTo === undefined ? {} : { replyTo }),
    ...(traceparent === undefined ? {} : { traceparent }),
    ...(isAwaited === true ? { isAwaited } : {}),
  };
}
