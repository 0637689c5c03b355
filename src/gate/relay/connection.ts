/** What a relay socket says and hears: delivery frames in, pushes, acknowledgements and receipts out. Contract §4. */
import { refusalError } from "../../auth/reasons.ts";
import type { AuthorityRef } from "../../authority/reference.ts";
import type { Reply } from "../../call/reply.ts";
import type { Config } from "../../config.ts";
import { errorFields, type Log } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import {
  deliverFrame,
  enqueueAckFrame,
  eventFrame,
  frameHead,
  heartbeatAckFrame,
  receiptFrame,
  resFrame,
} from "../../wire/frame-encoder.ts";
import { type ClientFrame, type EnqueueFrame, parseClientFrame, type ReqFrame } from "../../wire/frames.ts";
import { isRetryable, ProxyError, proxyErrorFrom } from "../../wire/problem.ts";
import { sha256Base64Url } from "../../wire/proof.ts";
import { MALFORMED_FRAMES_MAX, RELAY_CLOSE, RELAY_CLOSE_REASON } from "../../wire/relay-close.ts";
import type { Receipt } from "../outbox/outbox.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import { BATCH_TICK_MS, type Envelope } from "../protocol/transfer.ts";
import { LANE_WINDOW, type SocketLoad } from "../queue/dispatch.ts";
import { ACK_TIMEOUT_MS, type Push } from "../queue/queue.ts";
import type { GateState } from "../state.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Session } from "./sockets.ts";

/**
 * An acknowledgement that nobody waits for may wait for company: the first of a lull this long, those that
 * follow until the next hand-over comes, whose commit they share.
 */
const ACK_WITHIN_MS = { inALull: 20, following: BATCH_TICK_MS + 150 };
/** No more of them: what is acknowledged makes room for what waits to be pushed. */
const ACKS_AT_ONCE = LANE_WINDOW / 2;
const BUSY_LOOK_MS = 1_000;
/** Frames of one socket that are worked on or wait for their turn. */
export const CALLS_PER_SOCKET_MAX = 32;

export type RelayDeps = {
  self: AgentDid;
  config: Config;
  now: () => number;
  log: Log;
  /** The trust epoch by which `self` may send to a peer; `fresh` asks the store. @throws ProxyError */
  trustEpoch: (to: AgentDid, how?: { fresh: boolean }) => Promise<number>;
  /** Runs one `req` frame of a socket under an authority, which the call may end itself. */
  call: (session: Session, authority: AuthorityRef, frame: ReqFrame) => Promise<Reply>;
};

export type Relay = ReturnType<typeof createRelay>;

export function createRelay(state: GateState, commits: GroupCommit, deps: RelayDeps) {
  const { queue, outbox, sockets } = state;
  /** Frames of one socket run in their order; the count bounds what a client may pile up. */
  const turns = new Map<string, { tail: Promise<void>; waiting: number }>();
  const head = () => frameHead(deps.now());

  const gone = (session: Session): void => {
    sockets.remove(session);
    turns.delete(session.socketId);
    void commits.commit(() => queue.socketGone(session.socketId, deps.now()));
  };

  const close = (session: Session, code: number, reason: string): void => {
    sockets.close(session, code, reason);
    turns.delete(session.socketId);
    deps.log.info("relay.closed", { socketId: session.socketId, code, reason });
    void commits.commit(() => queue.socketGone(session.socketId, deps.now()));
  };

  /** Every frame in either direction is checked at that moment; a session that may not go on is closed here. */
  const isCurrent = (session: Session): boolean => {
    const reason = state.endReason(session.authority);
    if (reason === null) return true;
    close(session, RELAY_CLOSE.authorityEnded, reason);
    return false;
  };

  const send = (session: Session, text: string, authority = session.authority): boolean => {
    // Not closed here: the answer to the call that ended this authority may be on its way. The sweep closes.
    if (state.endReason(authority) !== null) return false;
    if (sockets.send(session, text)) return true;
    gone(session);
    return false;
  };

  const event = (session: Session, name: string, payload: unknown): void => {
    session.eventSeq += 1;
    sockets.save(session);
    send(session, eventFrame({ event: name, payload, seq: session.eventSeq }));
  };

  const malformed = (session: Session, reason: string, detail: string, frameId: string | null): void => {
    session.malformed += 1;
    event(session, "error", { code: "MALFORMED_FRAME", reason, detail, frameId });
    if (session.malformed >= MALFORMED_FRAMES_MAX) close(session, RELAY_CLOSE.policy, "too many malformed frames");
  };

  const inTurn = (session: Session, overloaded: () => void, work: () => Promise<void>): void => {
    const turn = turns.get(session.socketId) ?? { tail: Promise.resolve(), waiting: 0 };
    turns.set(session.socketId, turn);
    if (turn.waiting >= CALLS_PER_SOCKET_MAX) {
      overloaded();
      return;
    }
    turn.waiting += 1;
    turn.tail = turn.tail
      .then(() => (state.endReason(session.authority) === null ? work() : undefined))
      .catch((error: unknown) =>
        deps.log.error("relay.frame_failed", { socketId: session.socketId, ...errorFields(error) }),
      )
      .then(() => {
        turn.waiting -= 1;
        // The frame may have ended its own authority: its answer is out, and now the socket goes.
        if (sockets.byId(session.socketId) !== null) isCurrent(session);
      });
  };

  const rateRefusal = (): ProxyError | null => {
    const waitMs = state.rate.waitMs(deps.now());
    if (waitMs > 0)
      return new ProxyError("OVERLOADED", { detail: "Slow down and try again later.", retryAfterMs: waitMs });
    state.rate.count(deps.now());
    return null;
  };

  const enqueue = async (session: Session, frame: EnqueueFrame): Promise<void> => {
    const refuse = (error: ProxyError): void => {
      send(session, enqueueAckFrame(head(), { ackId: frame.id, accepted: false, reason: error.code }));
    };
    try {
      if (!session.scopes.includes("send")) throw new ProxyError("PROXY_AUTH_FORBIDDEN");
      if (frame.toAgentDid === deps.self) throw new ProxyError("PROXY_HOOK_RECIPIENT_INVALID");
      const limited = rateRefusal();
      if (limited !== null) throw limited;
      let trustEpoch = await deps.trustEpoch(frame.toAgentDid);
      // The pairing may be newer than what is remembered of it.
      if (!state.fences.admits(frame.toAgentDid, trustEpoch))
        trustEpoch = await deps.trustEpoch(frame.toAgentDid, { fresh: true });
      const payload = new TextEncoder().encode(frame.payloadText);
      const bodySha256 = await sha256Base64Url(payload);
      const envelope: Envelope = {
        fromAgentDid: deps.self,
        contentType: "application/json",
        trustEpoch,
        ...(frame.conversationId === undefined ? {} : { conversationId: frame.conversationId }),
        ...(frame.groupId === undefined ? {} : { groupId: frame.groupId }),
        ...(frame.replyTo === undefined ? {} : { replyTo: frame.replyTo }),
      };
      const accepted = await commits.commit(() => {
        if (state.endReason(session.authority) !== null) throw new GateRefusal("gate-agent-revoked");
        if (!state.fences.admits(frame.toAgentDid, trustEpoch)) throw new GateRefusal("gate-peer-fenced");
        return outbox.accept(
          {
            to: frame.toAgentDid,
            bytes: payload.length,
            envelope: JSON.stringify(envelope),
            body: frame.payloadText,
            originFrameId: frame.id,
            idempotency: { key: `frame ${frame.id}`, bodySha256 },
          },
          deps.now(),
        );
      });
      send(session, enqueueAckFrame(head(), { ackId: frame.id, accepted: true, deliveryId: accepted.deliveryId }));
    } catch (thrown) {
      const error = thrown instanceof GateRefusal ? refusalError(thrown.refusal) : proxyErrorFrom(thrown);
      if (error.status >= 500) deps.log.error("relay.enqueue_failed", { code: error.code, reason: error.reason });
      refuse(error);
    }
  };

  const request = async (session: Session, frame: ReqFrame): Promise<void> => {
    const limited = rateRefusal();
    // The call's own copy: one that ends itself moves on, while the socket stays with what it was opened under.
    const authority = { ...session.authority };
    const reply: Reply =
      limited === null
        ? await deps.call(session, authority, frame)
        : { ok: false, code: limited.code, message: limited.message, retryAfterMs: limited.retryAfterMs ?? 1_000 };
    send(session, responseFrame(frame.id, reply), authority);
  };

  /** The sockets that take deliveries at this moment. */
  const listening = (): Session[] =>
    sockets
      .all()
      .filter(
        ({ scopes, socket, authority }) =>
          scopes.includes("relay") && socket.readyState === WebSocket.OPEN && state.endReason(authority) === null,
      );

  /** How much is on its way to each of them. */
  const takers = (): SocketLoad[] => {
    const inFlight = queue.inFlight();
    return listening().map(({ socketId }) => ({ socketId, inFlight: inFlight.get(socketId) ?? 0 }));
  };

  let lastAckCommitMs = 0;
  const acknowledged: { session: Session; ackId: string; accepted: boolean; reason: string | null }[] = [];

  const acknowledge = (session: Session, ackId: string, accepted: boolean, reason: string | undefined): void => {
    session.lastProgressMs = deps.now();
    acknowledged.push({ session, ackId, accepted, reason: reason ?? null });
    const isAwaited = queue.isAwaited(ackId);
    if (acknowledged.length > 1) {
      if (isAwaited || acknowledged.length === ACKS_AT_ONCE) commits.wake();
      return;
    }
    const isLull = deps.now() - lastAckCommitMs > ACK_WITHIN_MS.following;
    void commits.commitChecked(
      () => {
        const batch = acknowledged.splice(0);
        lastAckCommitMs = deps.now();
        // The authority once more: between the frame and this commit it may have ended.
        queue.acknowledgeAll(
          batch.filter((ack) => state.endReason(ack.session.authority) === null),
          deps.now(),
        );
      },
      isAwaited ? 0 : isLull ? ACK_WITHIN_MS.inALull : ACK_WITHIN_MS.following,
    );
  };

  const receive = (session: Session, frame: ClientFrame): void => {
    switch (frame.type) {
      case "heartbeat":
        send(session, heartbeatAckFrame(head(), frame.id));
        return;
      case "heartbeat_ack":
        return;
      case "deliver_ack":
        if (session.scopes.includes("relay")) acknowledge(session, frame.ackId, frame.accepted, frame.reason);
        else event(session, "error", { code: "PROXY_AUTH_FORBIDDEN", frameId: frame.id });
        return;
      case "enqueue":
        inTurn(
          session,
          () => void send(session, enqueueAckFrame(head(), { ackId: frame.id, accepted: false, reason: "OVERLOADED" })),
          () => enqueue(session, frame),
        );
        return;
      case "req":
        inTurn(
          session,
          () => {
            const { code, message } = new ProxyError("OVERLOADED");
            send(session, responseFrame(frame.id, { ok: false, code, message, retryAfterMs: 1_000 }));
          },
          () => request(session, frame),
        );
        return;
    }
  };

  return {
    close,
    gone,
    event,
    isCurrent,

    /** Tells the sockets that may manage this agent's devices. */
    broadcast(name: string, payload: Record<string, unknown>): void {
      for (const session of sockets.all()) if (session.scopes.includes("devices")) event(session, name, payload);
    },

    /** One message from a client. What comes after the end of its authority is not read. */
    message(session: Session, message: string | ArrayBuffer): void {
      if (state.endReason(session.authority) !== null) {
        if ((turns.get(session.socketId)?.waiting ?? 0) === 0) isCurrent(session);
        return;
      }
      if (typeof message !== "string") {
        malformed(session, "binary", "frames are text", null);
        return;
      }
      const frame = parseClientFrame(message);
      if (frame.ok) receive(session, frame.value);
      else if (frame.error.reason === "too_large") close(session, RELAY_CLOSE.tooLarge, "frame too large");
      else malformed(session, frame.error.reason, frame.error.detail, frame.error.frameId);
    },

    /** Chooses and sends what is due; its writes are part of the caller's commit, and the output gate holds the frames until then. */
    push(nowMs: number): void {
      for (const push of queue.pump(takers, nowMs)) {
        const session = sockets.byId(push.socketId);
        if (session !== null) send(session, deliverText(deps.self, push, nowMs));
      }
    },

    /** Tells the sender what became of its messages, on whichever of its sockets takes deliveries. */
    tell(receipts: readonly Receipt[]): void {
      const open = receipts.length === 0 ? [] : listening();
      for (const receipt of receipts) {
        const text = receiptFrame(head(), {
          // A message that came by HTTP has no frame of its own: the frame that delivered it has the delivery's id.
          originalFrameId: receipt.originFrameId ?? receipt.deliveryId,
          deliveryId: receipt.deliveryId,
          toAgentDid: receipt.toAgentDid,
          status: receipt.delivered ? "delivered_to_webhook" : "dead_lettered",
          ...(receipt.reason === null ? {} : { reason: receipt.reason }),
        });
        // One that has just gone leaves it to the next.
        while (open[0] !== undefined && !send(open[0], text)) open.shift();
        if (open.length === 0) return;
        if (!receipt.delivered) outbox.receiptTold(receipt.deliveryId);
      }
    },

    /** Closes what may not stay: authorities that ended by time, and readers whose window is full and who acknowledge nothing. */
    sweep(nowMs: number): void {
      const inFlight = queue.inFlight();
      for (const session of sockets.all()) {
        // A call that runs still answers, or is refused, first; calls under an ended authority end by themselves.
        if ((turns.get(session.socketId)?.waiting ?? 0) > 0 || !isCurrent(session)) continue;
        // One sender's window is the first that fills. After a waking, the oldest push says since when nothing has come back.
        const full = (inFlight.get(session.socketId) ?? 0) >= LANE_WINDOW;
        const sinceMs = Math.max(session.lastProgressMs, queue.oldestPushMs(session.socketId) ?? nowMs);
        if (full && sinceMs + ACK_TIMEOUT_MS <= nowMs) close(session, RELAY_CLOSE.overloaded, "nothing acknowledged");
      }
    },

    /** When the first session ends by time. */
    nextDueMs(): number | null {
      let due = Infinity;
      for (const session of sockets.all()) {
        const { expMs } = session.authority;
        if (expMs === null) continue;
        // One whose call is under way is closed when that ends; looking again at once would only keep the gate busy.
        const isBusy = (turns.get(session.socketId)?.waiting ?? 0) > 0;
        due = Math.min(due, isBusy ? Math.max(expMs, deps.now() + BUSY_LOOK_MS) : expMs);
      }
      return due === Infinity ? null : due;
    },

    /** A newer socket of the agent's own credential has taken their place. */
    supersede(older: readonly Session[]): void {
      for (const session of older)
        if (sockets.byId(session.socketId) !== null) close(session, RELAY_CLOSE.normal, RELAY_CLOSE_REASON.superseded);
    },
  };
}

function deliverText(self: AgentDid, push: Push, nowMs: number): string {
  const { trustEpoch: _trustEpoch, isAwaited: _isAwaited, ...members } = push.envelope;
  // The frame's id is the delivery's: an acknowledgement that arrives after the gate has slept finds its row by it.
  const head = { ...frameHead(nowMs), id: push.deliveryId as ReturnType<typeof frameHead>["id"] };
  return deliverFrame(head, { deliveryId: push.deliveryId, toAgentDid: self, ...members, payloadText: push.body });
}

function responseFrame(id: string | number, reply: Reply): string {
  if (reply.ok) return resFrame({ id, ok: true, payload: reply.result });
  const { code, message, retryAfterMs, data } = reply;
  return resFrame({
    id,
    ok: false,
    error: {
      code: reply.unknownMethod === true ? "METHOD_NOT_FOUND" : code,
      message,
      ...(data === undefined ? {} : { details: data }),
      retryable: isRetryable(code),
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    },
  });
}
