/** What recipients say of the messages that were pushed to them, batched into few commits. */
import type { AuthorityRef } from "../../authority/reference.ts";
import { SENDER_WINDOW } from "../queue/dispatch.ts";
import type { Acknowledgement, Queue } from "../queue/queue.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Session } from "./sockets.ts";

/**
 * An acknowledgement whose sender does not wait for it may be batched: the first after an idle time waits this long, those
 * that follow until another message comes, whose commit they share.
 */
const ACK_WITHIN_MS = { whenIdle: 20, following: 250 };
/** No more of them: what is acknowledged makes room for what waits to be pushed. */
const ACKS_BATCH_MAX = SENDER_WINDOW / 2;

export type Acknowledgements = {
  /** Takes one `deliver_ack`; it is recorded within half a second, if the socket's authority still holds then. */
  take(
    session: Session,
    ack: { ackId: string; accepted: boolean; reason?: string | undefined; retryAfterMs?: number | undefined },
  ): void;
  /** Takes one `deliver_working`: the client is at work on a message. */
  working(session: Session, ackId: string): void;
};

export type AcknowledgementsDeps = {
  queue: Pick<Queue, "acknowledge" | "working" | "isAwaited">;
  commits: GroupCommit;
  endReason: (ref: AuthorityRef) => string | null;
  now: () => number;
};

/** @returns the acknowledgements of one gate. */
export function createAcknowledgements({ queue, commits, endReason, now }: AcknowledgementsDeps): Acknowledgements {
  const pending: { session: Session; ack: Acknowledgement }[] = [];
  let committedAtMs = 0;

  const record = (): void => {
    const batch = pending.splice(0);
    committedAtMs = now();
    // The authority once more: between the frame and this commit it may have ended.
    queue.acknowledge(
      batch.filter(({ session }) => endReason(session.authority) === null).map(({ ack }) => ack),
      now(),
    );
  };

  return {
    take(session, { ackId, accepted, reason, retryAfterMs }) {
      session.lastProgressMs = now();
      const { socketId, holder } = session;
      pending.push({
        session,
        ack: { deliveryId: ackId, holder, socketId, accepted, reason: reason ?? null, retryAfterMs },
      });
      const isAwaited = queue.isAwaited(ackId);
      if (pending.length > 1) {
        if (isAwaited || pending.length === ACKS_BATCH_MAX) commits.wake();
        return;
      }
      const isIdle = now() - committedAtMs > ACK_WITHIN_MS.following;
      const withinMs = isIdle ? ACK_WITHIN_MS.whenIdle : ACK_WITHIN_MS.following;
      void commits.commitChecked(record, isAwaited ? 0 : withinMs);
    },

    working(session, ackId) {
      session.lastProgressMs = now();
      queue.working(ackId, session.holder, now());
      // It is written down in time; the group sets the alarm for that.
      commits.wake(ACK_WITHIN_MS.following);
    },
  };
}
