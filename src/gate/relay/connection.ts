/** The sockets that are open, and what holds for all of them: authority, order, bounds, and how they end. Contract §4. */
import type { AuthorityRef } from "../../authority/reference.ts";
import { errorFields, type Log } from "../../telemetry/log.ts";
import { eventFrame } from "../../wire/frame-encoder.ts";
import { MALFORMED_FRAMES_MAX, RELAY_CLOSE, RELAY_CLOSE_REASON } from "../../wire/relay-close.ts";
import { SENDER_WINDOW } from "../queue/dispatch.ts";
import { ACK_TIMEOUT_MS, type Queue } from "../queue/queue.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Session, Sockets } from "./sockets.ts";

const BUSY_RECHECK_MS = 1_000;
/** A socket that leaves an attempt unanswered and sends no frame of its own for so long is closed. */
const SILENT_MAX_MS = 2 * ACK_TIMEOUT_MS;
/** Frames of one socket that are worked on or wait for their turn. */
export const CALLS_PER_SOCKET_MAX = 32;

/** The open sockets of one gate. */
export type Connections = {
  /** Ends a socket; what was on its way to it has failed. */
  close(session: Session, code: number, reason: string): void;
  /** Records that a socket's peer has gone. */
  gone(session: Session): void;
  /** Whether a socket's authority holds at this moment; closes it with 4001 where it does not. */
  isCurrent(session: Session): boolean;
  /** Whether a frame of this socket is being worked on. */
  isBusy(session: Session): boolean;
  /**
   * Sends a frame, if the authority holds at this moment.
   *
   * @param authority the socket's own unless said otherwise: the copy of a call that may have ended it
   * @returns false when nothing was sent
   */
  send(session: Session, text: string, authority?: AuthorityRef): boolean;
  /** Sends an `event` frame under the socket's next number; clients of the base dialect know none. */
  event(session: Session, name: string, payload: unknown): void;
  /** Sends an event to the sockets that may manage this agent's devices. */
  broadcast(name: string, payload: Record<string, unknown>): void;
  /** Sends `task.updated` to the sockets that may read tasks. */
  announceTask(payload: Record<string, unknown>): void;
  /** Counts a malformed frame; the tenth closes the socket with 1008. */
  malformed(session: Session, problem: { reason: string; detail: string; frameId: string | null }): void;
  /**
   * Runs `work` after the earlier frames of this socket, if its authority still holds then.
   *
   * @param overloaded called instead where 32 frames of this socket wait already
   * @param settled called when the turn is over, whether `work` was run or not
   */
  inTurn(session: Session, overloaded: () => void, work: () => Promise<void>, settled?: () => void): void;
  /** The sockets that take deliveries at this moment. */
  listening(): Session[];
  /** Closes older sockets of the agent's own credential, whose place a newer one has taken. */
  supersede(older: readonly Session[]): void;
  /** Closes what may not stay: authorities that have ended, and readers that take nothing. */
  sweep(nowMs: number): void;
  /** When the first socket ends by time (ms since the epoch); null when none does. */
  nextDueMs(): number | null;
};

export type ConnectionsDeps = {
  sockets: Sockets;
  queue: Pick<Queue, "socketGone" | "inFlight" | "oldestPushMs" | "unansweredSinceMs">;
  commits: GroupCommit;
  /** Why something that began under an authority may not continue at this moment, or null. */
  endReason: (ref: AuthorityRef) => string | null;
  now: () => number;
  log: Log;
};

/** @returns the connections of one gate; those that survived hibernation among them. */
export function createConnections({ sockets, queue, commits, endReason, now, log }: ConnectionsDeps): Connections {
  /** Frames of one socket run in their order; the count bounds what a client may pile up. */
  const turns = new Map<string, { tail: Promise<void>; waiting: number }>();

  const gone = (session: Session): void => {
    sockets.remove(session);
    turns.delete(session.socketId);
    void commits.commit(() => queue.socketGone(session.socketId, now()));
  };

  const close = (session: Session, code: number, reason: string): void => {
    sockets.close(session, code, reason);
    turns.delete(session.socketId);
    log.info("relay.closed", { socketId: session.socketId, code, reason });
    void commits.commit(() => queue.socketGone(session.socketId, now()));
  };

  const isCurrent = (session: Session): boolean => {
    const reason = endReason(session.authority);
    if (reason === null) return true;
    close(session, RELAY_CLOSE.authorityEnded, reason);
    return false;
  };

  const isBusy = (session: Session): boolean => (turns.get(session.socketId)?.waiting ?? 0) > 0;

  const send = (session: Session, text: string, authority = session.authority): boolean => {
    // Not closed here: the answer to the call that ended this authority may be on its way. The sweep closes.
    if (endReason(authority) !== null) return false;
    if (sockets.send(session, text)) return true;
    gone(session);
    return false;
  };

  const event = (session: Session, name: string, payload: unknown): void => {
    if (session.dialect === "base") return;
    session.eventSeq += 1;
    sockets.save(session);
    send(session, eventFrame({ event: name, payload, seq: session.eventSeq }));
  };

  /** When a socket is closed that left an attempt unanswered and has sent no frame since; null for one that shows life. */
  const silentUntilMs = (session: Session): number | null => {
    const sinceMs = queue.unansweredSinceMs(session.socketId);
    return sinceMs === null || session.lastFrameMs > sinceMs ? null : sinceMs + SILENT_MAX_MS;
  };

  /** Whether a reader holds a full window and has acknowledged nothing for the time of an acknowledgement. */
  const takesNothing = (session: Session, inFlight: number, nowMs: number): boolean => {
    // One sender's window is the first that fills. After a waking, the oldest push says since when nothing has come back.
    if (inFlight < SENDER_WINDOW) return false;
    const sinceMs = Math.max(session.lastProgressMs, queue.oldestPushMs(session.socketId) ?? nowMs);
    return sinceMs + ACK_TIMEOUT_MS <= nowMs;
  };

  return {
    close,
    gone,
    isCurrent,
    isBusy,
    send,
    event,

    broadcast(name, payload) {
      for (const session of sockets.all()) if (session.scopes.includes("devices")) event(session, name, payload);
    },

    announceTask(payload) {
      for (const session of sockets.all())
        if (session.scopes.includes("tasks:read")) event(session, "task.updated", payload);
    },

    malformed(session, { reason, detail, frameId }) {
      session.malformed += 1;
      event(session, "error", { code: "MALFORMED_FRAME", reason, detail, frameId });
      if (session.malformed >= MALFORMED_FRAMES_MAX) close(session, RELAY_CLOSE.policy, "too many malformed frames");
    },

    inTurn(session, overloaded, work, settled) {
      const turn = turns.get(session.socketId) ?? { tail: Promise.resolve(), waiting: 0 };
      turns.set(session.socketId, turn);
      if (turn.waiting >= CALLS_PER_SOCKET_MAX) {
        overloaded();
        return;
      }
      turn.waiting += 1;
      turn.tail = turn.tail
        .then(() => (endReason(session.authority) === null ? work() : undefined))
        .catch((error: unknown) =>
          log.error("relay.frame_failed", { socketId: session.socketId, ...errorFields(error) }),
        )
        .then(() => {
          turn.waiting -= 1;
          settled?.();
          // The frame may have ended its own authority: its answer is out, and now the socket closes.
          if (sockets.byId(session.socketId) !== null) isCurrent(session);
        });
    },

    listening: () =>
      sockets
        .all()
        .filter(
          ({ scopes, socket, authority }) =>
            scopes.includes("relay") && socket.readyState === WebSocket.OPEN && endReason(authority) === null,
        ),

    supersede(older) {
      for (const session of older) {
        if (sockets.byId(session.socketId) === null) continue;
        close(session, RELAY_CLOSE.normal, RELAY_CLOSE_REASON.superseded);
      }
    },

    sweep(nowMs) {
      const inFlight = queue.inFlight();
      for (const session of sockets.all()) {
        // A call that runs still answers, or is refused, first; calls under an ended authority end by themselves.
        if (isBusy(session) || !isCurrent(session)) continue;
        const isFull = takesNothing(session, inFlight.get(session.socketId)?.count ?? 0, nowMs);
        if (isFull || (silentUntilMs(session) ?? Infinity) <= nowMs)
          close(session, RELAY_CLOSE.overloaded, "nothing acknowledged");
      }
    },

    nextDueMs() {
      let due = Infinity;
      for (const session of sockets.all()) {
        due = Math.min(due, silentUntilMs(session) ?? Infinity);
        const { expMs } = session.authority;
        if (expMs === null) continue;
        // One whose call is in progress is closed when that ends; looking again at once would only keep the gate busy.
        due = Math.min(due, isBusy(session) ? Math.max(expMs, now() + BUSY_RECHECK_MS) : expMs);
      }
      return due === Infinity ? null : due;
    },
  };
}
