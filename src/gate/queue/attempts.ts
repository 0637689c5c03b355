/**
 * The attempts on what a recipient has in its hands: which acknowledgement is due when, what a failure does to the messages
 * behind it, and how much of it all is on disk. Contract §4, delivery.
 */
import { backoffMs, type Spacing } from "../../resilience/backoff.ts";
import { isPullSocket, type QueueEntry, type RelaySocket, type SocketLoad } from "./dispatch.ts";
import type { QueueRows } from "./rows.ts";
import type { SenderQueue, SenderQueues, Usage } from "./senders.ts";

/** No acknowledgement within this time is a failed attempt, counted from when a message is its sender's oldest on a socket. */
export const ACK_TIMEOUT_MS = 30_000;
/** What was fetched over HTTP is its fetcher's for so long (contract §3); then the attempt has failed. */
export const PULL_HELD_MS = 60_000;
/** A client may say that it is at work on a message for so long. */
export const WORKING_MAX_MS = 3_600_000;
/**
 * An attempt that is answered sooner is never written down: after a crash the message comes again. Sooner than the platform
 * lets an object sleep (10 s).
 */
export const RECORDED_AFTER_MS = 2_000;

export type AttemptLimits = { maxAttempts: number; retry: Spacing };

type Clock = { startedAtMs: number };

/** The attempts of one recipient. */
export type Attempts = {
  /** A message goes to a socket. */
  push(entry: QueueEntry, socket: SocketLoad, nowMs: number): void;
  /**
   * An attempt has failed: the message waits for its retry, or its attempts are used up. What its sender has pushed behind it
   * waits as well, without having failed.
   *
   * @param delayMs how long to wait; by default the spacing of retries
   */
  fail(entry: QueueEntry, nowMs: number, delayMs?: number): void;
  /** A message is over: the next of its sender becomes its oldest. */
  ended(entry: QueueEntry, nowMs: number): void;
  /** The holder says that it is at work on a message. */
  working(entry: QueueEntry, nowMs: number): void;
  /** A socket has answered. */
  answered(socketId: string): void;
  /** A socket has gone: what was on its way to it has failed, once for each sender. */
  socketGone(socketId: string, nowMs: number): void;
  /** Fails what was not acknowledged in time, and what is on its way to sockets that are not there. */
  expire(isOpen: (socketId: string) => boolean, nowMs: number): void;
  /** Counts the time that a sender's messages spent in the recipient's hands, once none of them is there any more. */
  release(queue: SenderQueue, nowMs: number): void;
  /** Sockets as they may be chosen from now. */
  loads(sockets: readonly RelaySocket[]): SocketLoad[];
  /** Since when a socket has left an attempt unanswered; null when it has not. */
  unansweredSinceMs(socketId: string): number | null;
  /** When the oldest attempt on a socket began; null when nothing is on its way there. */
  oldestMs(socketId: string): number | null;
  /** Takes in what a row says of an attempt from before the gate slept. */
  restore(entry: QueueEntry, row: { socketId: string | null; isPushed: boolean; dueAtMs: number }, nowMs: number): void;
  /** Writes down the attempts that have not been answered at once. */
  record(nowMs: number): void;
  /** When {@link Attempts.record} has something to do; null when all is written. */
  nextRecordMs(): number | null;
};

export type AttemptsDeps = {
  senders: SenderQueues;
  rows: Pick<QueueRows, "place" | "hold">;
  limits: AttemptLimits;
  /** Ends a message whose attempts are used up. */
  exhausted: (entry: QueueEntry, nowMs: number) => void;
};

/** @returns the attempts of one queue. */
export function createAttempts({ senders, rows, limits, exhausted }: AttemptsDeps): Attempts {
  const missed = createMissed();
  const clocks = new Map<QueueEntry, Clock>();
  const unrecorded = createUnrecorded((entry) => rows.place(entry, null));

  const startClock = (entry: QueueEntry, nowMs: number): void => {
    clocks.set(entry, { startedAtMs: nowMs });
    entry.dueAtMs = nowMs + ACK_TIMEOUT_MS;
    unrecorded.add(entry, nowMs);
  };

  /** The sender's oldest on a socket may be another one now. */
  const startNext = (sender: string, nowMs: number): void => {
    const oldest = oldestPushed(senders.of(sender));
    if (oldest !== undefined && !clocks.has(oldest)) startClock(oldest, nowMs);
  };

  /** Takes a message out of the recipient's hands. @param missedSocketId the socket that left the attempt unanswered */
  const takeBack = (entry: QueueEntry, dueAtMs: number, missedSocketId: string | null = null): void => {
    const wasRecorded = !unrecorded.delete(entry);
    clocks.delete(entry);
    entry.socketId = null;
    entry.dueAtMs = dueAtMs;
    if (wasRecorded || missedSocketId !== null || entry.attempts > 0) rows.place(entry, missedSocketId);
  };

  const fail = (entry: QueueEntry, nowMs: number, delayMs?: number, missedSocketId: string | null = null): void => {
    const queue = senders.of(entry.sender);
    if (entry.attempts >= limits.maxAttempts) {
      exhausted(entry, nowMs);
      return;
    }
    takeBack(entry, nowMs + (delayMs ?? backoffMs(entry.attempts, limits.retry, Math.random())), missedSocketId);
    for (const later of queue?.entries.slice(queue.entries.indexOf(entry) + 1) ?? []) {
      if (later.socketId === null) continue;
      later.attempts -= 1;
      takeBack(later, nowMs);
    }
    startNext(entry.sender, nowMs);
  };

  /** What one sender has on a socket that is no more. */
  const lose = (queue: SenderQueue, isLost: (socketId: string) => boolean, nowMs: number): void => {
    const lost = queue.entries.filter(({ socketId }) => socketId !== null && isLost(socketId));
    const [oldest, ...later] = lost;
    if (oldest === undefined) return;
    // Only the oldest was being worked on, as far as anybody knows.
    for (const entry of later) {
      entry.attempts -= 1;
      takeBack(entry, nowMs);
    }
    fail(oldest, nowMs);
  };

  const release = (queue: SenderQueue, nowMs: number): void => {
    const sinceMs = queue.inHandsSinceMs;
    if (sinceMs === null || oldestPushed(queue) !== undefined) return;
    queue.inHandsSinceMs = null;
    for (const entry of queue.entries) entry.heldMs += Math.max(0, nowMs - Math.max(sinceMs, entry.takenAtMs));
    if (nowMs - sinceMs > RECORDED_AFTER_MS) rows.hold(queue.entries);
  };

  return {
    push(entry, { socketId, holder }, nowMs) {
      const queue = senders.of(entry.sender);
      if (queue !== undefined) queue.inHandsSinceMs ??= nowMs;
      const isOldest = oldestPushed(queue) === undefined;
      entry.attempts += 1;
      entry.socketId = socketId;
      entry.holder = holder;
      entry.dueAtMs = Infinity;
      unrecorded.add(entry, nowMs);
      if (isPullSocket(socketId)) {
        clocks.set(entry, { startedAtMs: nowMs });
        entry.dueAtMs = nowMs + PULL_HELD_MS;
        return;
      }
      if (isOldest) startClock(entry, nowMs);
    },

    fail: (entry, nowMs, delayMs) => fail(entry, nowMs, delayMs),

    ended(entry, nowMs) {
      clocks.delete(entry);
      unrecorded.delete(entry);
      startNext(entry.sender, nowMs);
    },

    working(entry, nowMs) {
      const clock = clocks.get(entry);
      if (clock === undefined) return;
      const dueAtMs = Math.min(nowMs + ACK_TIMEOUT_MS, clock.startedAtMs + WORKING_MAX_MS);
      if (dueAtMs <= entry.dueAtMs) return;
      entry.dueAtMs = dueAtMs;
      unrecorded.add(entry, nowMs);
    },

    answered: (socketId) => void missed.delete(socketId),

    socketGone(socketId, nowMs) {
      missed.delete(socketId);
      for (const queue of senders.each()) lose(queue, (id) => id === socketId, nowMs);
    },

    expire(isOpen, nowMs) {
      for (const socketId of missed.keys()) if (!isOpen(socketId)) missed.delete(socketId);
      for (const queue of senders.each()) {
        lose(queue, (socketId) => !isPullSocket(socketId) && !isOpen(socketId), nowMs);
        const oldest = oldestPushed(queue);
        if (oldest === undefined || oldest.dueAtMs > nowMs || oldest.socketId === null) continue;
        const { socketId } = oldest;
        const startedAtMs = clocks.get(oldest)?.startedAtMs ?? nowMs;
        // Who fetches and does not answer leaves no socket behind that could be silent.
        if (!isPullSocket(socketId)) missed.add(socketId, startedAtMs);
        fail(oldest, nowMs, undefined, isPullSocket(socketId) ? null : socketId);
      }
    },

    release,

    loads: (sockets) => loadsOf(sockets, senders.inFlight(), missed),

    unansweredSinceMs: (socketId) => missed.get(socketId)?.sinceMs ?? null,

    oldestMs(socketId) {
      let oldest = Infinity;
      for (const [entry, { startedAtMs }] of clocks) {
        if (entry.socketId === socketId) oldest = Math.min(oldest, startedAtMs);
      }
      return oldest === Infinity ? null : oldest;
    },

    restore(entry, { socketId, isPushed, dueAtMs }, nowMs) {
      if (socketId === null) return;
      if (!isPushed) {
        missed.add(socketId, dueAtMs);
        return;
      }
      const queue = senders.of(entry.sender);
      const startedAtMs = dueAtMs === 0 ? nowMs : dueAtMs - ACK_TIMEOUT_MS;
      if (queue !== undefined) queue.inHandsSinceMs ??= startedAtMs;
      const isOldest = isPullSocket(socketId) || oldestPushed(queue) === undefined;
      entry.socketId = socketId;
      entry.dueAtMs = isOldest ? startedAtMs + ACK_TIMEOUT_MS : Infinity;
      if (isOldest) clocks.set(entry, { startedAtMs });
    },

    record: unrecorded.record,
    nextRecordMs: unrecorded.nextMs,
  };
}

function oldestPushed(queue: SenderQueue | undefined): QueueEntry | undefined {
  return queue?.entries.find(({ socketId }) => socketId !== null);
}

/** By socket: attempts that it has left unanswered since it last answered one, and when the last of them began. */
type Missed = Map<string, { count: number; sinceMs: number }> & { add(socketId: string, startedAtMs: number): void };

function createMissed(): Missed {
  const missed = new Map<string, { count: number; sinceMs: number }>();
  const add = (socketId: string, startedAtMs: number): void => {
    missed.set(socketId, { count: (missed.get(socketId)?.count ?? 0) + 1, sinceMs: startedAtMs });
  };
  return Object.assign(missed, { add });
}

function loadsOf(
  sockets: readonly RelaySocket[],
  inFlight: ReadonlyMap<string, Usage>,
  missed: ReadonlyMap<string, { count: number; sinceMs: number }>,
): SocketLoad[] {
  return sockets.map(({ socketId, holder, lastFrameMs }) => {
    const load = inFlight.get(socketId);
    const unanswered = missed.get(socketId);
    return {
      socketId,
      holder,
      inFlight: load?.count ?? 0,
      inFlightBytes: load?.bytes ?? 0,
      missed: unanswered?.count ?? 0,
      isSilent: unanswered !== undefined && lastFrameMs <= unanswered.sinceMs,
    };
  });
}

/** Messages whose attempt is not on disk as it is: since when. */
function createUnrecorded(record: (entry: QueueEntry) => void) {
  const sinceMs = new Map<QueueEntry, number>();
  return {
    add(entry: QueueEntry, nowMs: number): void {
      if (!sinceMs.has(entry)) sinceMs.set(entry, nowMs);
    },
    delete: (entry: QueueEntry): boolean => sinceMs.delete(entry),
    record(nowMs: number): void {
      for (const [entry, ms] of sinceMs) {
        if (ms + RECORDED_AFTER_MS > nowMs) continue;
        sinceMs.delete(entry);
        record(entry);
      }
    },
    nextMs(): number | null {
      let due = Infinity;
      for (const ms of sinceMs.values()) due = Math.min(due, ms + RECORDED_AFTER_MS);
      return due === Infinity ? null : due;
    },
  };
}
