/**
 * The recipient's side of a delivery: what waits for this agent and what is on its way to a socket. A row a message; the
 * order within one sender is the order of its ids. Memory mirrors the rows that still wait, and follows the disk: each
 * change is written first, so that one that fails leaves both as they were.
 */
import { backoffMs, type Spacing } from "../../resilience/backoff.ts";
import type { AgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import { type Envelope, HELD_BYTES_MAX, type DeliveryOutcome, type QueuedMessage } from "../protocol/transfer.ts";
import { dropOldestDeadLetters, listDeadLetters, purgeDeadLetter } from "./dead-letters.ts";
import { chooseSocket, type LaneEntry, nextOfLane, type RatedSocket, type SocketLoad } from "./dispatch.ts";
import { createReports } from "./outcomes.ts";
import { createQueueRows, QUEUE_STATE, type QueueRow } from "./rows.ts";
import { createLanes } from "./senders.ts";

export type { DeadLetter } from "../../call/gate.ts";

/** Contract §4: no acknowledgement within this time is a failed attempt. */
export const ACK_TIMEOUT_MS = 30_000;
const SHARE_OF_ONE_SENDER = 5;
const REFUSED = "refused by the recipient";
/** The proxy's own messages have a lane beside the agents', so that no sender can crowd them out. */
export const PROXY_SENDER = "proxy";

export type QueueLimits = {
  queueMax: number;
  ttlMs: number;
  maxAttempts: number;
  retry: Spacing;
  deadLetterRetentionMs: number;
};

export type QueueDeps = {
  sql: SqlStorage;
  limits: QueueLimits;
  /** Whether trust by which a message was judged still holds, at the moment of a push. */
  admits: (sender: AgentDid, trustEpoch: number) => boolean;
};

export type Push = { socketId: string; deliveryId: string; envelope: Envelope; body: string };

export type Queue = ReturnType<typeof createQueue>;

export function createQueue({ sql, limits, admits }: QueueDeps) {
  const lanes = createLanes();
  const reports = createReports(sql);
  const rows = createQueueRows(sql, limits.deadLetterRetentionMs);
  /** Attempts that a socket has left unanswered since it last answered one. */
  const missed = new Map<string, number>();
  const oweRevival = (lane: string, deliveryId: string, atMs: number): void => {
    const again = { deliveryId, delivered: false, reason: null, attempts: 0, atMs, waitsAgain: true } as const;
    if (hasGate(lane)) reports.owe(lane, again);
  };

  for (const row of rows.unreported()) {
    if (row.state === QUEUE_STATE.queued) {
      lanes.insert(entryOf(row));
      if (row.revived === 1) oweRevival(row.lane, row.delivery_id, row.updated_at_ms);
    } else {
      const { delivery_id: deliveryId, reason, attempts, updated_at_ms: atMs } = row;
      reports.owe(row.lane, { deliveryId, delivered: row.state === QUEUE_STATE.delivered, reason, attempts, atMs });
    }
  }

  /** What came in this group, so that what is pushed at once need not be read back. */
  const fresh = new Map<LaneEntry, QueuedMessage>();

  /** @param refusal why it is dead, or null for delivered */
  const end = (entry: LaneEntry, refusal: string | null, nowMs: number): void => {
    const { deliveryId, lane, attempts } = entry;
    const isOwed = hasGate(lane);
    if (refusal === null) rows.delivered([deliveryId], isOwed, nowMs);
    else {
      rows.dead(deliveryId, { reason: refusal, attempts, isOwed }, nowMs);
      dropOldestDeadLetters(sql);
    }
    lanes.remove(entry);
    const outcome = { deliveryId, delivered: refusal === null, reason: refusal, attempts, atMs: nowMs };
    if (isOwed) reports.owe(lane, outcome, entry.isAwaited);
  };

  /** One attempt has failed: the message waits, or its attempts are used up. */
  const fail = (entry: LaneEntry, nowMs: number): void => {
    if (entry.attempts >= limits.maxAttempts) {
      end(entry, "attempts exhausted", nowMs);
      return;
    }
    const dueAtMs = nowMs + backoffMs(entry.attempts, limits.retry, Math.random());
    rows.waits(entry.deliveryId, dueAtMs);
    entry.dueAtMs = dueAtMs;
    entry.socketId = null;
  };

  /** Writes a message; one with a reason is a dead letter from the start. Memory is told by the caller. */
  const write = (lane: string, message: QueuedMessage, reason: string | null, nowMs: number): LaneEntry => {
    rows.write(lane, message, reason, nowMs);
    const { deliveryId, createdAtMs } = message;
    return {
      deliveryId,
      lane,
      bytes: message.bytes,
      createdAtMs,
      attempts: 0,
      dueAtMs: nowMs,
      socketId: null,
      isAwaited: false,
    };
  };

  /** A fifth of the queue, in messages and in bytes; at least one message. */
  const exceedsShare = (count: number, laneBytes: number): boolean =>
    count > 0 &&
    (count >= Math.floor(limits.queueMax / SHARE_OF_ONE_SENDER) || laneBytes > HELD_BYTES_MAX / SHARE_OF_ONE_SENDER);

  return {
    /**
     * Takes what there is room for, from the start of a batch, so that the order stays.
     *
     * @param door.isShut takes nothing but what is dead
     * @param door.refusal why a message may not be delivered though it was accepted, or null
     */
    receive(
      from: AgentDid,
      messages: readonly QueuedMessage[],
      door: { isShut: boolean; refusal: (message: QueuedMessage) => string | null },
      nowMs: number,
    ): number {
      const lane = lanes.lane(from);
      const taken: { entry: LaneEntry; reason: string | null }[] = [];
      let known = 0;
      let held = 0;
      let heldBytes = 0;
      const seen = rows.known(messages.map(({ deliveryId }) => deliveryId));
      for (const message of messages) {
        if (seen.has(message.deliveryId)) {
          known += 1;
          continue;
        }
        const reason = message.createdAtMs + limits.ttlMs <= nowMs ? "expired" : door.refusal(message);
        if (reason === null) {
          if (door.isShut) break;
          const after = heldBytes + message.bytes;
          const isFull = lanes.count() + held >= limits.queueMax || lanes.bytes() + after > HELD_BYTES_MAX;
          if (isFull || exceedsShare((lane?.entries.length ?? 0) + held, (lane?.bytes ?? 0) + after)) break;
          held += 1;
          heldBytes = after;
        }
        const entry = write(from, message, reason, nowMs);
        fresh.set(entry, message);
        taken.push({ entry, reason });
      }
      if (taken.some(({ reason }) => reason !== null)) dropOldestDeadLetters(sql);
      for (const { entry, reason } of taken) {
        if (reason === null) lanes.insert(entry);
        else reports.owe(from, { deliveryId: entry.deliveryId, delivered: false, reason, attempts: 0, atMs: nowMs });
      }
      return known + taken.length;
    },

    /**
     * A message of the proxy's own, or of someone who has no gate. Repeats change nothing.
     *
     * @throws ProxyError when the lane has its share already
     */
    putLocal(lane: string, message: QueuedMessage, nowMs: number): void {
      if (rows.known([message.deliveryId]).size > 0) return;
      const waiting = lanes.lane(lane);
      const isFull =
        lane !== PROXY_SENDER && (lanes.count() >= limits.queueMax || lanes.bytes() + message.bytes > HELD_BYTES_MAX);
      if (isFull || exceedsShare(waiting?.entries.length ?? 0, (waiting?.bytes ?? 0) + message.bytes)) {
        throw new ProxyError("PROXY_RELAY_QUEUE_FULL", { retryAfterMs: 1_000 });
      }
      lanes.insert(write(lane, message, null, nowMs));
    },

    /**
     * Chooses what goes to which socket now, and writes the attempts down. The caller sends.
     *
     * @param sockets asked for only when a message could go: there may be hundreds, and most commits bring none
     */
    pump(sockets: () => readonly SocketLoad[], nowMs: number): Push[] {
      const came = new Map(fresh);
      fresh.clear();
      if (!lanes.some((lane) => nextOfLane(lane.entries, nowMs) !== null)) return [];
      const loads: RatedSocket[] = sockets().map(({ socketId, inFlight }) => ({
        socketId,
        inFlight,
        missed: missed.get(socketId) ?? 0,
      }));
      if (loads.length === 0) return [];
      const pushes: Push[] = [];
      const bySocket = new Map<string, string[]>();
      let progress = true;
      while (progress) {
        progress = false;
        for (const lane of lanes.each()) {
          const entry = nextOfLane(lane.entries, nowMs);
          const socket = entry === null ? null : chooseSocket(lane.entries, loads);
          if (entry === null || socket === null) continue;
          progress = true;
          const row = came.get(entry) ?? rows.content(entry.deliveryId);
          const envelope = JSON.parse(row.envelope) as Envelope;
          // Trust may have been removed while this was on its way to a socket that did not take it.
          if (envelope.trustEpoch !== undefined && !admits(entry.lane as AgentDid, envelope.trustEpoch)) {
            end(entry, "trust removed", nowMs);
            continue;
          }
          const dueAtMs = nowMs + ACK_TIMEOUT_MS;
          const pushed = bySocket.get(socket.socketId);
          if (pushed === undefined) bySocket.set(socket.socketId, [entry.deliveryId]);
          else pushed.push(entry.deliveryId);
          entry.isAwaited = envelope.isAwaited === true;
          entry.attempts += 1;
          entry.socketId = socket.socketId;
          entry.dueAtMs = dueAtMs;
          socket.inFlight += 1;
          pushes.push({ socketId: socket.socketId, deliveryId: entry.deliveryId, envelope, body: row.body });
        }
      }
      for (const [socketId, deliveryIds] of bySocket) rows.pushed(socketId, deliveryIds, nowMs + ACK_TIMEOUT_MS);
      return pushes;
    },

    /** When the oldest message that is on its way to a socket was pushed; null when none is. */
    oldestPushMs(socketId: string): number | null {
      const dueAtMs = lanes.firstDueMs(socketId);
      return dueAtMs === null ? null : dueAtMs - ACK_TIMEOUT_MS;
    },

    /** How many messages are on their way to each socket. */
    inFlight: lanes.inFlight,

    /** The recipient's word on a message: delivered, or refused and dead at once. False for one that no longer waits. */
    acknowledge(deliveryId: string, accepted: boolean, reason: string | null, nowMs: number): boolean {
      const entry = lanes.find(deliveryId);
      if (entry === undefined) return false;
      if (entry.socketId !== null) missed.delete(entry.socketId);
      end(entry, accepted ? null : (reason ?? REFUSED), nowMs);
      return true;
    },

    /** Many at once: those that were delivered are one statement. */
    acknowledgeAll(acks: readonly { ackId: string; accepted: boolean; reason: string | null }[], nowMs: number): void {
      const delivered: LaneEntry[] = [];
      for (const { ackId, accepted, reason } of acks) {
        const entry = lanes.find(ackId);
        if (entry === undefined) continue;
        if (entry.socketId !== null) missed.delete(entry.socketId);
        if (!accepted) end(entry, reason ?? REFUSED, nowMs);
        else {
          lanes.remove(entry);
          delivered.push(entry);
        }
      }
      for (const isOwed of [true, false]) {
        const ids = delivered.filter(({ lane }) => hasGate(lane) === isOwed).map(({ deliveryId }) => deliveryId);
        if (ids.length === 0) continue;
        rows.delivered(ids, isOwed, nowMs);
      }
      for (const { lane, deliveryId, attempts, isAwaited } of delivered) {
        const outcome = { deliveryId, delivered: true, reason: null, attempts, atMs: nowMs };
        if (hasGate(lane)) reports.owe(lane, outcome, isAwaited);
      }
    },

    /** A socket has gone: what was on its way to it has failed. */
    socketGone(socketId: string, nowMs: number): void {
      missed.delete(socketId);
      for (const entry of lanes.entries()) if (entry.socketId === socketId) fail(entry, nowMs);
    },

    /** Fails what was on its way to sockets that are not there any more, as after a crash. */
    failLost(isOpen: (socketId: string) => boolean, nowMs: number): void {
      for (const entry of lanes.entries()) {
        if (entry.socketId === null || isOpen(entry.socketId)) continue;
        missed.delete(entry.socketId);
        fail(entry, nowMs);
      }
    },

    /** Fails what nobody acknowledged in time, or whose socket is not there any more; ends what waited too long. */
    expire(isOpen: (socketId: string) => boolean, nowMs: number): void {
      for (const entry of lanes.entries()) {
        if (entry.socketId !== null) {
          const isLost = !isOpen(entry.socketId);
          if (!isLost && entry.dueAtMs > nowMs) continue;
          if (isLost) missed.delete(entry.socketId);
          else missed.set(entry.socketId, (missed.get(entry.socketId) ?? 0) + 1);
          fail(entry, nowMs);
        }
        if (lanes.has(entry.deliveryId) && entry.createdAtMs + limits.ttlMs <= nowMs) end(entry, "expired", nowMs);
      }
    },

    /** When something here falls due. @param hasSocket whether a retry could go anywhere */
    nextDueMs: (hasSocket: boolean, nowMs: number): number | null => lanes.nextDueMs(limits.ttlMs, hasSocket, nowMs),

    /** Dead-letters what a sender has waiting here unpushed. */
    endSender(lane: string, reason: string, nowMs: number): void {
      for (const entry of (lanes.lane(lane)?.entries ?? []).filter(({ socketId }) => socketId === null)) {
        end(entry, reason, nowMs);
      }
    },

    /** Dead-letters everything that still waits. */
    endAll(reason: string, nowMs: number): void {
      for (const entry of lanes.entries()) end(entry, reason, nowMs);
    },

    /** Senders whose gates are owed a report. */
    pendingReports: reports.senders,

    /** What is owed to one of them, a batch of the oldest. */
    reportsFor: reports.take,

    /** Whether somebody waits for what is owed to a sender. */
    isReportUrgent: reports.isUrgent,

    /** The sender's gate has them on disk. */
    reported(sender: AgentDid, outcomes: readonly DeliveryOutcome[]): void {
      const revived = outcomes.filter(({ waitsAgain }) => waitsAgain === true).map(({ deliveryId }) => deliveryId);
      if (revived.length > 0) rows.toldOfRevival(revived);
      reports.done(sender, outcomes, lanes.has);
    },

    /** Whether somebody waits for the end of a message that is on its way to a socket. */
    isAwaited: (deliveryId: string): boolean => lanes.find(deliveryId)?.isAwaited === true,

    attempts: (deliveryId: string): number | null => lanes.find(deliveryId)?.attempts ?? null,

    /** What could not be delivered, newest first, a page. @param before an id of an earlier page, or null */
    deadLetters: (before: string | null, limit: number) => listDeadLetters(sql, before, limit),

    /**
     * Puts a dead letter back into the queue with its attempts and its time begun anew, whatever has become of trust: the
     * recipient itself asks for it. False when there is none.
     */
    replay(deliveryId: string, nowMs: number): boolean {
      const row = rows.revive(deliveryId, nowMs);
      if (row === null) return false;
      lanes.insert({ ...entryOf(row), attempts: 0, createdAtMs: nowMs, dueAtMs: nowMs, socketId: null });
      oweRevival(row.lane, deliveryId, nowMs);
      return true;
    },

    purge: (deliveryId: string): boolean => purgeDeadLetter(sql, deliveryId),

    prune: rows.prune,
    nextPruneMs: rows.nextPruneMs,
  };
}

/** The proxy's own lane, and those of senders that are no agents, have no gate that waits for a report. */
function hasGate(lane: string): boolean {
  return lane.startsWith("did:");
}

function entryOf(row: QueueRow): LaneEntry {
  return {
    deliveryId: row.delivery_id,
    lane: row.lane,
    bytes: row.bytes,
    createdAtMs: row.created_at_ms,
    attempts: row.attempts,
    dueAtMs: row.due_at_ms,
    socketId: row.socket_id,
    isAwaited: false,
  };
}
