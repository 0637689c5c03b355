/**
 * The recipient's side of a delivery: what waits for this agent and what is on its way to a socket. A row a message; the
 * order within one sender is the order of its ids. Memory mirrors the rows that still wait, and follows the disk: each
 * change is written first, so that one that fails leaves both as they were.
 */
import type { DeadLetter } from "../../call/gate.ts";
import type { AgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import type { DeliveryOutcome, QueuedMessage } from "../protocol/transfer.ts";
import { type AttemptLimits, createAttempts } from "./attempts.ts";
import { exceedsQueue, exceedsShare, NOTHING, plus, type Usage } from "./capacity.ts";
import { createDeadLetters } from "./dead-letters.ts";
import type { QueueEntry, RelaySocket } from "./dispatch.ts";
import { createPendingOutcomes } from "./outcomes.ts";
import { createPump, type Push } from "./pump.ts";
import { createQueueRows, QUEUE_STATE, type QueueRow } from "./rows.ts";
import { createSenderQueues } from "./senders.ts";

export { ACK_TIMEOUT_MS } from "./attempts.ts";
export type { Push } from "./pump.ts";

const REFUSED = "refused by the recipient";
const FULL_RETRY_AFTER_MS = 1_000;
/** The proxy's own messages have a sender queue beside the agents', so that no sender can crowd them out. */
export const PROXY_SENDER = "proxy";

export type QueueLimits = AttemptLimits & {
  queueMax: number;
  ttlMs: number;
  deadLetterRetentionMs: number;
};

export type QueueDeps = {
  sql: SqlStorage;
  limits: QueueLimits;
  /** Whether trust by which a message was judged still holds, at the moment of a push. */
  admits: (sender: AgentDid, trustEpoch: number) => boolean;
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

/** What a transfer meets at the recipient. */
export type Door = {
  /** Takes nothing but what is dead. */
  readonly isShut: boolean;
  /** Why a message may not be delivered though it was accepted, or null. */
  readonly refusal: (message: QueuedMessage) => string | null;
};

/** One recipient's queue. Each change is part of the caller's transaction. */
export type Queue = {
  /** Takes what there is room for, from the start of a batch, so that the order stays. @returns how many, repeats included */
  receive(from: AgentDid, messages: readonly QueuedMessage[], door: Door, nowMs: number): number;
  /**
   * A message of the proxy's own, or of a sender without a gate. Repeats change nothing.
   *
   * @throws ProxyError PROXY_RELAY_QUEUE_FULL when the sender has its share already, or the queue is full
   */
  putLocal(sender: string, message: QueuedMessage, nowMs: number): void;
  /** Chooses what goes to which socket now; the caller sends. At most some MiB; `nextWorkMs` says when there is more. */
  pump(sockets: () => readonly RelaySocket[], nowMs: number): Push[];
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
  /** Attempts so far on a message that waits here; null for none such. */
  attempts(deliveryId: string): number | null;
  /** What could not be delivered, newest first, a page. @param before an id of an earlier page, or null */
  deadLetters(before: string | null, limit: number): DeadLetter[];
  /**
   * Puts a dead letter back into the queue with its attempts and its time begun anew, whatever has become of trust: the
   * recipient itself asks for it.
   *
   * @returns false when there is none
   * @throws ProxyError PROXY_RELAY_QUEUE_FULL where the queue has no room for it; the letter stays dead
   */
  replay(deliveryId: string, nowMs: number): boolean;
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
  const dead = createDeadLetters(sql);
  const attempts = createAttempts({
    senders,
    rows,
    limits,
    exhausted: (entry, nowMs) => end(entry, "attempts exhausted", nowMs),
  });
  const pump = createPump({
    senders,
    attempts,
    rows,
    admits,
    refused: (entry, nowMs) => end(entry, "trust removed", nowMs),
  });

  const addRevival = (sender: string, deliveryId: string, atMs: number): void => {
    const again = { deliveryId, delivered: false, reason: null, attempts: 0, atMs, waitsAgain: true } as const;
    if (hasGate(sender)) pending.add(sender, again);
  };

  /** @param refusal why it is dead, or null for delivered */
  const end = (entry: QueueEntry, refusal: string, nowMs: number): void => {
    const { deliveryId, sender } = entry;
    const isPending = hasGate(sender);
    rows.dead(deliveryId, { reason: refusal, attempts: entry.attempts, isPending }, nowMs);
    senders.remove(entry);
    attempts.ended(entry, nowMs);
    dead.added(sender, entry.bytes);
    const outcome = { deliveryId, delivered: false, reason: refusal, attempts: entry.attempts, atMs: nowMs };
    if (isPending) pending.add(sender, outcome, entry.isAwaited);
  };

  const delivered = (entries: readonly QueueEntry[], nowMs: number): void => {
    for (const isPending of [true, false]) {
      const ids = entries.filter(({ sender }) => hasGate(sender) === isPending).map(({ deliveryId }) => deliveryId);
      if (ids.length > 0) rows.delivered(ids, isPending, nowMs);
    }
    for (const { sender, deliveryId, attempts: tried, isAwaited } of entries) {
      const outcome = { deliveryId, delivered: true, reason: null, attempts: tried, atMs: nowMs };
      if (hasGate(sender)) pending.add(sender, outcome, isAwaited);
    }
  };

  const isTooOld = (entry: QueueEntry, nowMs: number): boolean =>
    entry.createdAtMs + limits.ttlMs + entry.heldMs <= nowMs;

  /** Why one more message finds no room, as the caller is told. */
  const assertRoom = (sender: string, bytes: number): void => {
    const isFull = sender !== PROXY_SENDER && exceedsQueue(senders.total(), bytes, limits.queueMax);
    if (isFull || exceedsShare(senders.usage(sender), bytes, limits.queueMax))
      throw new ProxyError("PROXY_RELAY_QUEUE_FULL", { retryAfterMs: FULL_RETRY_AFTER_MS });
  };

  const load = (row: QueueRow): void => {
    const { delivery_id: deliveryId, sender, reason, attempts: tried, updated_at_ms: atMs } = row;
    if (row.state !== QUEUE_STATE.queued) {
      pending.add(sender, {
        deliveryId,
        delivered: row.state === QUEUE_STATE.delivered,
        reason,
        attempts: tried,
        atMs,
      });
      return;
    }
    const entry = entryOf(row);
    senders.insert(entry);
    attempts.restore(entry, { socketId: row.socket_id, isPushed: row.is_pushed === 1, dueAtMs: row.due_at_ms }, now());
    if (row.revived === 1) addRevival(sender, deliveryId, atMs);
  };

  for (const row of rows.unreported()) load(row);

  return {
    receive: (from, messages, door, nowMs) => {
      const taken: { entry: QueueEntry; message: QueuedMessage; reason: string | null }[] = [];
      let known = 0;
      let more = NOTHING;
      const seen = rows.known(messages.map(({ deliveryId }) => deliveryId));
      for (const message of messages) {
        if (seen.has(message.deliveryId)) {
          known += 1;
          continue;
        }
        const reason = message.createdAtMs + limits.ttlMs <= nowMs ? "expired" : door.refusal(message);
        if (reason === null) {
          if (door.isShut || exceedsQueue(plus(senders.total(), more), message.bytes, limits.queueMax)) break;
          if (exceedsShare(plus(senders.usage(from), more), message.bytes, limits.queueMax)) break;
          more = plus(more, { count: 1, bytes: message.bytes });
        }
        rows.write(from, message, reason, nowMs);
        taken.push({ entry: entryOfMessage(from, message, nowMs), message, reason });
      }
      for (const { entry, message, reason } of taken) {
        if (reason === null) {
          senders.insert(entry);
          pump.came(entry, message);
        } else {
          dead.added(from, entry.bytes);
          pending.add(from, { deliveryId: entry.deliveryId, delivered: false, reason, attempts: 0, atMs: nowMs });
        }
      }
      return known + taken.length;
    },

    putLocal(sender, message, nowMs) {
      if (rows.known([message.deliveryId]).size > 0) return;
      assertRoom(sender, message.bytes);
      rows.write(sender, message, null, nowMs);
      senders.insert(entryOfMessage(sender, message, nowMs));
    },

    pump: pump.next,
    recordAttempts: attempts.record,
    nextWorkMs: () => (pump.hasMore() ? 0 : null),
    nextRecordMs: attempts.nextRecordMs,

    acknowledge(acks, nowMs) {
      const accepted: QueueEntry[] = [];
      for (const { deliveryId, holder, socketId, reason, retryAfterMs, ...ack } of acks) {
        const entry = senders.find(deliveryId);
        if (entry === undefined || entry.holder !== holder) continue;
        attempts.answered(socketId);
        if (ack.accepted) {
          senders.remove(entry);
          attempts.ended(entry, nowMs);
          accepted.push(entry);
        } else if (retryAfterMs === undefined) end(entry, reason ?? REFUSED, nowMs);
        // One that waits already has not failed again, and waits for no less.
        else if (entry.socketId === null) entry.dueAtMs = Math.max(entry.dueAtMs, nowMs + retryAfterMs);
        else attempts.fail(entry, nowMs, retryAfterMs);
      }
      delivered(accepted, nowMs);
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
        if (socketId !== null && !isOpen(socketId)) attempts.socketGone(socketId, nowMs);
      }
    },

    expire(isOpen, nowMs) {
      attempts.expire(isOpen, nowMs);
      for (const queue of senders.each()) {
        attempts.release(queue, nowMs);
        // What waits behind one that the recipient has in its hands does not age.
        if (queue.inHandsSinceMs !== null) continue;
        for (const entry of queue.entries.filter((each) => isTooOld(each, nowMs))) end(entry, "expired", nowMs);
      }
    },

    nextDueMs(hasSocket, nowMs) {
      let due = Infinity;
      for (const { entries, inHandsSinceMs } of senders.each()) {
        const next = entries.find(({ socketId }) => socketId === null);
        for (const entry of entries) {
          if (entry.socketId !== null) due = Math.min(due, entry.dueAtMs);
          else if (inHandsSinceMs === null) due = Math.min(due, entry.createdAtMs + limits.ttlMs + entry.heldMs);
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
        end(entry, reason, nowMs);
      }
    },

    endAll(reason, nowMs) {
      for (const entry of senders.entries()) end(entry, reason, nowMs);
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
    attempts: (deliveryId) => senders.find(deliveryId)?.attempts ?? null,

    deadLetters: dead.list,
    replay(deliveryId, nowMs) {
      const row = rows.deadLetter(deliveryId);
      if (row === null) return false;
      assertRoom(row.sender, row.bytes);
      rows.revive(deliveryId, nowMs);
      dead.removed(row.sender, row.bytes);
      const again = {
        attempts: 0,
        created_at_ms: nowMs,
        updated_at_ms: nowMs,
        due_at_ms: nowMs,
        held_ms: 0,
        holder: null,
      };
      senders.insert(entryOf({ ...row, ...again }));
      addRevival(row.sender, deliveryId, nowMs);
      return true;
    },
    purge: dead.purge,

    prune(nowMs) {
      rows.prune(nowMs);
      dead.recount();
    },
    nextPruneMs: rows.nextPruneMs,
  };
}

/** The proxy's own messages, and those of senders that are no agents, have no gate that waits for a report. */
function hasGate(sender: string): boolean {
  return sender.startsWith("did:");
}

function entryOf(row: QueueRow): QueueEntry {
  return {
    deliveryId: row.delivery_id,
    sender: row.sender,
    bytes: row.bytes,
    createdAtMs: row.created_at_ms,
    takenAtMs: row.updated_at_ms,
    heldMs: row.held_ms,
    attempts: row.attempts,
    dueAtMs: row.due_at_ms,
    socketId: null,
    holder: row.holder,
    isAwaited: false,
  };
}

function entryOfMessage(sender: string, message: QueuedMessage, nowMs: number): QueueEntry {
  return {
    deliveryId: message.deliveryId,
    sender,
    bytes: message.bytes,
    createdAtMs: message.createdAtMs,
    takenAtMs: nowMs,
    heldMs: 0,
    attempts: 0,
    dueAtMs: nowMs,
    socketId: null,
    holder: null,
    isAwaited: false,
  };
}
