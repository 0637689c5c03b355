/**
 * What comes into a gate to be delivered and what is heard of it: sends of its own agent, hand-overs and reports of other
 * gates, and the proxy's own messages. All of it is on disk before it is answered.
 */
import type { LocalMessage } from "../../call/gate.ts";
import type { AgentDid } from "../../wire/did.ts";
import { admitAgent } from "../admission/agent.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { Submission, SubmissionReply } from "../protocol/submission.ts";
import type { Envelope, Outcome, QueuedMessage, TransferResult } from "../protocol/transfer.ts";
import { PROXY_LANE } from "../queue/queue.ts";
import type { Relay } from "../relay/connection.ts";
import type { GateState } from "../state.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import { createDeliveryIds } from "./delivery-id.ts";

/** A report that nobody waits for goes into whatever commit comes next, or into its own by then. */
const SETTLE_WITHIN_MS = 50;

export type Mailroom = ReturnType<typeof createMailroom>;

export function createMailroom(
  state: GateState,
  commits: GroupCommit,
  relay: Relay,
  { self, now }: { self: AgentDid; now: () => number },
) {
  /** Requests that wait for the end of a message, by its delivery id. */
  const waiting = new Map<string, Set<(delivered: boolean) => void>>();
  const localIds = createDeliveryIds(null);

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

  /** Part of the caller's transaction. */
  const putLocal = (message: LocalMessage): { deliveryId: string } => {
    const nowMs = now();
    const { fromAgentDid, fromSubject, conversationId, payload } = message;
    const deliveryId = message.deliveryId ?? localIds(nowMs);
    const envelope: Envelope = {
      fromAgentDid,
      contentType: "application/json",
      ...(fromSubject === undefined ? {} : { fromSubject }),
      ...(conversationId === undefined ? {} : { conversationId }),
    };
    const bytes = new TextEncoder().encode(payload).length;
    const queued = { deliveryId, createdAtMs: nowMs, bytes, envelope: JSON.stringify(envelope), body: payload };
    state.queue.putLocal(fromSubject ?? PROXY_LANE, queued, nowMs);
    return { deliveryId };
  };

  return {
    putLocal,

    /**
     * Takes a send: nonce, flags, rate and the message itself in one commit.
     *
     * @throws GateRefusal
     */
    submit(send: Submission, body: string): Promise<SubmissionReply> {
      const to = send.to as AgentDid;
      const { admission, trustEpoch, bytes, idempotency, contentType, conversationId, replyTo, traceparent } = send;
      const isAwaited = send.isAwaited === true;
      const envelope: Envelope = {
        fromAgentDid: self,
        trustEpoch,
        ...(contentType === undefined ? {} : { contentType }),
        ...(conversationId === undefined ? {} : { conversationId }),
        ...(replyTo === undefined ? {} : { replyTo }),
        ...(traceparent === undefined ? {} : { traceparent }),
        ...(isAwaited ? { isAwaited } : {}),
      };
      const deferredRefusal = (): GateRefusal | null => {
        if (!state.fences.admits(to, trustEpoch)) return new GateRefusal("gate-peer-fenced");
        // A repeat needs no room: whether it is one is seen when the message is written.
        if (idempotency !== undefined || state.outbox.hasRoom(bytes)) return null;
        return new GateRefusal("gate-outbox-full", 1_000);
      };
      // A repeat under an idempotency key may be refused after its nonce is written, which is undone then.
      const mayUndo = idempotency !== undefined;
      return (mayUndo ? commits.commit : commits.commitChecked)((): SubmissionReply => {
        const nowMs = now();
        admitAgent(state.admission, admission, nowMs, deferredRefusal());
        const draft = {
          to,
          bytes,
          envelope: JSON.stringify(envelope),
          body,
          isAwaited,
          ...(idempotency === undefined ? {} : { idempotency }),
        };
        return { ok: true, ...state.outbox.accept(draft, nowMs) };
      });
    },

    /** Waits until a message of this agent has been acknowledged, or for so long; then says what waits for its recipient still. */
    async awaitDelivery(deliveryId: string, waitMs: number): Promise<{ delivered: boolean; queueDepth: number }> {
      const status = state.outbox.status(deliveryId, now());
      if (status === null) return { delivered: false, queueDepth: 0 };
      const delivered =
        status.state === "queued" ? await untilSettled(deliveryId, waitMs) : status.state === "delivered";
      return { delivered, queueDepth: state.outbox.queueDepth(status.to) };
    },

    /** Takes messages over from a sender's gate. */
    receive(from: AgentDid, messages: QueuedMessage[]): Promise<TransferResult> {
      const refusal = (message: QueuedMessage): string | null => {
        if (state.authority.isOver()) return "recipient revoked";
        const { trustEpoch } = JSON.parse(message.envelope) as Envelope;
        return trustEpoch === undefined || state.fences.admits(from, trustEpoch) ? null : "trust removed";
      };
      return commits.commitChecked(() => {
        // An end that is under way may come to nothing, or let the agent go on: messages stay with their sender meanwhile.
        const isShut = state.authority.isEnded();
        return { taken: state.queue.receive(from, messages, { isShut, refusal }, now()) };
      });
    },

    /** What became of messages that were handed over. */
    async settle(outcomes: Outcome[]): Promise<void> {
      const isAwaited = outcomes.some(({ deliveryId }) => waiting.has(deliveryId));
      await commits.commitChecked(
        () => relay.tell(state.outbox.settle(outcomes, now())),
        isAwaited ? 0 : SETTLE_WITHIN_MS,
      );
      for (const { deliveryId, delivered, waitsAgain } of outcomes) {
        if (waitsAgain !== true) for (const resolve of waiting.get(deliveryId) ?? []) resolve(delivered);
      }
    },

    /** A peer below this trust epoch is out, here and from now on. Part of the caller's transaction. */
    fencePeer(peer: AgentDid, trustEpoch: number): void {
      state.fences.raise(peer, trustEpoch);
      state.queue.endLane(peer, "trust removed", now());
    },
  };
}
