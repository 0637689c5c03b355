/**
 * The recipient's side of a delivery: what waits for this agent and what is on its way to a socket. A row a message; the
 * order within one sender is the order of its ids. Memory mirrors the rows that still wait, and follows the disk: each
 * change is written first, so that one that fails leaves both as they were.
 */
import type { DeadLetter } from "../../call/gate.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { DeliveryOutcome, Envelope } from "../protocol/transfer.ts";
import { type AttemptLimits, type Attempts, createAttempts } from "./attempts.ts";
import { createDeadLetters } from "./dead-letters.ts";
import { isPullSocket, pullSocket, type QueueEntry, type RelaySocket } from "./dispatch.ts";
import { createEndings, hasGate } from "./endings.ts";
import { createPump, type Push } from "./pump.ts";
import { createReception, entryOf, type Reception, revivalOf } from "./reception.ts";
import { createPendingOutcomes, type PendingOutcomes } from "./reporting.ts";
import { createQueueRows, QUEUE_STATE, type QueueRow } from "./rows.ts";
import { createSenderQueues, type SenderQueues, type Usage } from "./senders.ts";

export { ACK_TIMEOUT_MS } from "./attempts.ts";
export type { Push } from "./pump.ts";
export { PROXY_SENDER } from "./reception.ts";

const REFUSED = "refused by the recipient";
const TRUST_REMOVED = "trust removed";

export type QueueLimits = AttemptLimits & {
  queueMax: number;
  ttlMs: number;
  deadLetterRetentionMs: number;
};

export type QueueDeps = {
  sql: SqlStorage;
  limits: QueueLimits;
  /** Whether trust by which a message was judged still holds, at the moment of a push. */
  admits: (sender: AgentDid, judged: Envelope) => boolean;
  now: () => number;
};

/** What a recipient says of one message. */
export type Acknowledgement = {
  readonly deliveryId: string;
  /** Who says so, and over which socket. */
  readonly holder: string;
  readonly socketId: string;
  readonly accepted: boolean;
  readonly reason: string | null;
  /** Not accepted now: tried again after so long, and no dead letter. */
  readonly retryAfterMs?: number | undefined;
};

/** One recipient's queue. Each change is part of the caller's transaction. */
export type Queue = Reception & {
  /** Chooses what goes to which socket now; the caller sends. At most some MiB; `nextWorkMs` says when there is more. */
  pump(sockets: () => readonly RelaySocket[], nowMs: number): Push[];
  /**
   * The same for a holder that fetches: each is its own for 60 s.
   *
   * @returns at most `limit` messages, and some MiB of them
   */
  fetch(holder: string, limit: number, nowMs: number): Push[];
  /** Whether a message could be pushed or fetched now. */
  hasDue(nowMs: number): boolean;
  /** Whether a message is in this holder's hands, or was the last that it was in. */
  isHeldBy(deliveryId: string, holder: string): boolean;
  /** Writes down the attempts that were not answered at once. */
  recordAttempts(nowMs: number): void;
  /** 0 when `pump` has more to do; null for nothing. */
  nextWorkMs(): number | null;
  /** When `recordAttempts` has something to do; null for nothing. */
  nextRecordMs(): number | null;
  /** What a recipient says, as far as the messages were pushed to this holder. */
  acknowledge(acks: readonly Acknowledgement[], nowMs: number): void;
  /** The holder is at work on a message: its attempt does not fail meanwhile, for an hour at most. */
  working(deliveryId: string, holder: string, nowMs: number): void;
  /** A socket has gone: what was on its way to it has failed. */
  socketGone(socketId: string, nowMs: number): void;
  /** Fails what is on its way to sockets that are not there, as after a crash. */
  failLost(isOpen: (socketId: string) => boolean, nowMs: number): void;
  /** Fails what was not acknowledged in time, or whose socket is not there any more; ends what waited too long. */
  expire(isOpen: (socketId: string) => boolean, nowMs: number): void;
  /** When something here falls due. @param hasSocket whether a retry could go anywhere */
  nextDueMs(hasSocket: boolean, nowMs: number): number | null;
  /** Since when a socket has left an attempt unanswered; null when it answers. */
  unansweredSinceMs(socketId: string): number | null;
  /** When the oldest attempt on a socket began; null when nothing is on its way there. */
  oldestPushMs(socketId: string): number | null;
  /** What is on its way to each socket. */
  inFlight(): ReadonlyMap<string, Usage>;
  /** Dead-letters what a sender has waiting here unpushed. */
  endSender(sender: string, reason: string, nowMs: number): void;
  /** Dead-letters what waits here unpushed though trust does not admit it any more. @param sender null for everybody's */
  endUntrusted(sender: string | null, nowMs: number): void;
  /** Dead-letters everything that still waits. */
  endAll(reason: string, nowMs: number): void;
  /** Senders whose gates have a report to come. */
  pendingReports(): AgentDid[];
  /** What is pending for one of them, a batch of the oldest. */
  reportsFor(sender: AgentDid): DeliveryOutcome[];
  /** Whether a request waits for what is pending for a sender. */
  isReportUrgent(sender: AgentDid): boolean;
  /** The sender's gate has them on disk. */
  reported(sender: AgentDid, outcomes: readonly DeliveryOutcome[], nowMs: number): void;
  /** Whether a request waits for the end of a message that is on its way to a socket. */
  isAwaited(deliveryId: string): boolean;
  /** Whether a message waits here or is on its way to a socket. */
  isWaiting(deliveryId: string): boolean;
  /** Attempts so far on a message that waits here; null for none such. */
  attempts(deliveryId: string): number | null;
  /** What could not be delivered, newest first, a page. @param before an id of an earlier page, or null */
  deadLetters(before: string | null, limit: number): DeadLetter[];
  /** Throws a dead letter away. @returns false when there is none */
  purge(deliveryId: string): boolean;
  /** Forgets what is past, a bounded amount. */
  prune(nowMs: number): void;
  /** When pruning is next worth waking for; null when there is nothing to forget. */
  nextPruneMs(): number | null;
};

/** @returns the queue on a gate's own tables, as it was when the gate last slept. */
export function createQueue({ sql, limits, admits, now }: QueueDeps): Queue {
  const senders = createSenderQueues();
  const pending = createPendingOutcomes();
  const rows = createQueueRows(sql, limits.deadLetterRetentionMs);
  const deadLetters = createDeadLetters(sql);
  const endings = createEndings({ senders, rows, deadLetters, pending, attempts: () => attempts });
  const exhausted = (entry: QueueEntry, nowMs: number): void => endings.dead(entry, "attempts exhausted", nowMs);
  const attempts = createAttempts({ senders, rows, limits, exhausted });
  const refused = (entry: QueueEntry, nowMs: number): void => endings.dead(entry, TRUST_REMOVED, nowMs);
  const pump = createPump({ senders, attempts, rows, admits, refused });
  const reception = createReception({ limits, senders, rows, deadLetters, pending, onTaken: pump.came });

  for (const row of rows.unreported()) load(row, { senders, attempts, pending }, now());

  const dueToExpireMs = ({ createdAtMs, heldMs }: QueueEntry): number => createdAtMs + limits.ttlMs + heldMs;

  return {
    ...reception,

    pump: pump.next,
    fetch: (holder, limit, nowMs) => pump.next(() => [pullSocket(holder, nowMs)], nowMs, limit),
    hasDue: pump.couldGo,
    isHeldBy: (deliveryId, holder) => senders.find(deliveryId)?.holder === holder,
    recordAttempts: attempts.record,
    nextWorkMs: () => (pump.hasMore() ? 0 : null),
    nextRecordMs: attempts.nextRecordMs,

    acknowledge(acks, nowMs) {
      const accepted = new Set<QueueEntry>();
      for (const { deliveryId, holder, socketId, reason, retryAfterMs, ...ack } of acks) {
        const entry = senders.find(deliveryId);
        if (entry === undefined || entry.holder !== holder || accepted.has(entry)) continue;
        attempts.answered(socketId);
        if (ack.accepted) accepted.add(entry);
        else if (retryAfterMs === undefined) endings.dead(entry, reason ?? REFUSED, nowMs);
        // One that waits already has not failed again, and waits for no less.
        else if (entry.socketId === null) entry.dueAtMs = Math.max(entry.dueAtMs, nowMs + retryAfterMs);
        else attempts.fail(entry, nowMs, retryAfterMs);
      }
      endings.delivered([...accepted], nowMs);
    },

    working(deliveryId, holder, nowMs) {
      const entry = senders.find(deliveryId);
      if (entry === undefined || entry.holder !== holder) return;
      if (entry.socketId !== null) attempts.answered(entry.socketId);
      attempts.working(entry, nowMs);
    },

    socketGone: attempts.socketGone,
    failLost(isOpen, nowMs) {
      for (const { socketId } of senders.entries()) {
        if (socketId !== null && !isPullSocket(socketId) && !isOpen(socketId)) attempts.socketGone(socketId, nowMs);
      }
    },

    expire(isOpen, nowMs) {
      attempts.expire(isOpen, nowMs);
      for (const queue of senders.each()) {
        attempts.release(queue, nowMs);
        // What waits behind one that the recipient has in its hands does not age.
        if (queue.inHandsSinceMs !== null) continue;
        for (const entry of queue.entries.filter((each) => dueToExpireMs(each) <= nowMs)) {
          endings.dead(entry, "expired", nowMs);
        }
      }
    },

    nextDueMs(hasSocket, nowMs) {
      let due = Infinity;
      for (const { entries, inHandsSinceMs } of senders.each()) {
        const next = entries.find(({ socketId }) => socketId === null);
        for (const entry of entries) {
          if (entry.socketId !== null) due = Math.min(due, entry.dueAtMs);
          else if (inHandsSinceMs === null) due = Math.min(due, dueToExpireMs(entry));
        }
        // What could go by now and has not is held back by something on its way, and goes when that ends.
        if (hasSocket && next !== undefined && next.dueAtMs > nowMs) due = Math.min(due, next.dueAtMs);
      }
      return due === Infinity ? null : due;
    },

    unansweredSinceMs: attempts.unansweredSinceMs,
    oldestPushMs: attempts.oldestMs,
    inFlight: senders.inFlight,

    endSender(sender, reason, nowMs) {
      for (const entry of (senders.of(sender)?.entries ?? []).filter(({ socketId }) => socketId === null)) {
        endings.dead(entry, reason, nowMs);
      }
    },

    endUntrusted(sender, nowMs) {
      const entries = sender === null ? senders.entries() : [...(senders.of(sender)?.entries ?? [])];
      for (const entry of entries) {
        if (entry.socketId !== null) continue;
        if (!admits(entry.sender as AgentDid, rows.envelope(entry.deliveryId)))
          endings.dead(entry, TRUST_REMOVED, nowMs);
      }
    },

    endAll(reason, nowMs) {
      for (const entry of senders.entries()) endings.dead(entry, reason, nowMs);
    },

    pendingReports: pending.senders,
    reportsFor: pending.take,
    isReportUrgent: pending.isUrgent,

    reported(sender, outcomes, nowMs) {
      const revived = outcomes.filter(({ waitsAgain }) => waitsAgain === true).map(({ deliveryId }) => deliveryId);
      if (revived.length > 0) rows.revivalReported(revived);
      // What was replayed meanwhile has yet to end anew.
      const over = pending.done(sender, outcomes).filter(({ deliveryId }) => !senders.has(deliveryId));
      const idsOf = (wanted: boolean): string[] =>
        over.filter((outcome) => outcome.delivered === wanted).map(({ deliveryId }) => deliveryId);
      rows.reported({ delivered: idsOf(true), dead: idsOf(false) }, nowMs);
    },

    isAwaited: (deliveryId) => senders.find(deliveryId)?.isAwaited === true,
    isWaiting: senders.has,
    attempts: (deliveryId) => senders.find(deliveryId)?.attempts ?? null,

    deadLetters: deadLetters.list,
    purge: deadLetters.purge,

    prune(nowMs) {
      rows.prune(nowMs);
      deadLetters.recount();
    },
    nextPruneMs: rows.nextPruneMs,
  };
}

/** Takes in what a row says from before the gate slept. */
function load(
  row: QueueRow,
  { senders, attempts, pending }: { senders: SenderQueues; attempts: Attempts; pending: PendingOutcomes },
  nowMs: number,
): void {
  const { delivery_id: deliveryId, sender, reason, attempts: tried, updated_at_ms: atMs } = row;
  if (row.state !== QUEUE_STATE.queued) {
    const delivered = row.state === QUEUE_STATE.delivered;
    pending.add(sender, { deliveryId, delivered, reason, attempts: tried, atMs });
    return;
  }
  const entry = entryOf(row);
  senders.insert(entry);
  attempts.restore(entry, { socketId: row.socket_id, isPushed: row.is_pushed === 1, dueAtMs: row.due_at_ms }, nowMs);
  if (row.revived === 1 && hasGate(sender)) pending.add(sender, revivalOf(deliveryId, atMs));
}
