/** What comes in over the sockets: each frame is judged, counted, parsed and given to those who answer it. Contract §4. */
import type { AuthorityRef } from "../../authority/reference.ts";
import { frameHead, heartbeatAckFrame } from "../../wire/frame-encoder.ts";
import type { FramePeek } from "../../wire/frame-peek.ts";
import { type ClientFrame, MAX_CLIENT_FRAME_BYTES, parseClientFrame } from "../../wire/frames.ts";
import { ProxyError } from "../../wire/problem.ts";
import { RELAY_CLOSE } from "../../wire/relay-close.ts";
import { isUlid } from "../../wire/ulid.ts";
import type { Queue } from "../queue/queue.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Acknowledgements } from "./acknowledgements.ts";
import type { Connections } from "./connection.ts";
import type { Deliveries } from "./deliveries.ts";
import type { Enqueue } from "./enqueue.ts";
import type { FrameLimits } from "./frame-limits.ts";
import { createLongFrames } from "./long-frames.ts";
import type { Requests } from "./requests.ts";
import type { Session } from "./sockets.ts";

const OVERLOADED_RETRY_MS = 1_000;

export type Inbound = {
  /** Takes one message of a client. What comes after the end of its authority is not read. */
  message(session: Session, message: string | ArrayBuffer): void;
};

export type InboundDeps = {
  limits: FrameLimits;
  connections: Connections;
  deliveries: Pick<Deliveries, "heartbeatAnswered" | "receiptAcknowledged">;
  acknowledgements: Acknowledgements;
  enqueue: Enqueue;
  requests: Requests;
  queue: Pick<Queue, "unansweredSinceMs">;
  commits: Pick<GroupCommit, "wake">;
  endReason: (ref: AuthorityRef) => string | null;
  now: () => number;
};

/** @returns the incoming side of one gate's relay. */
export function createInbound(deps: InboundDeps): Inbound {
  const { limits, connections, deliveries, acknowledgements, enqueue, requests, queue, commits, endReason, now } = deps;
  const longFrames = createLongFrames();

  const tooLong = (session: Session): void => connections.close(session, RELAY_CLOSE.tooLarge, "frame too large");
  const flood = (session: Session): void => connections.close(session, RELAY_CLOSE.overloaded, "too many frames");

  /** Answers a frame that was not parsed, as far as its start said what it is. */
  const refuse = (session: Session, { type, id }: FramePeek, retryAfterMs: number): void => {
    const error = new ProxyError("OVERLOADED", { detail: "Slow down and try again later.", retryAfterMs });
    if (type === "enqueue" && typeof id === "string" && isUlid(id)) enqueue.refuse(session, id, error.code);
    if (type === "req" && id !== null) requests.refuse(session, id, error);
  };

  /** @returns the frame, or null for one that has been refused */
  const parse = (session: Session, text: string, peek: FramePeek): ClientFrame | null => {
    const frame = parseClientFrame(text);
    if (!frame.ok) {
      if (frame.error.reason === "too_large") tooLong(session);
      else connections.malformed(session, frame.error);
      return null;
    }
    if (peek.type === null || frame.value.type === peek.type) return frame.value;
    const detail = "type: stands there twice";
    connections.malformed(session, { reason: "malformed", detail, frameId: String(peek.id ?? "") || null });
    return null;
  };

  /** Does what a frame asks for that has its turn. */
  const run = async (session: Session, frame: ClientFrame): Promise<void> => {
    if (frame.type === "enqueue") await enqueue.run(session, frame);
    else if (frame.type === "req") await requests.run(session, frame);
    else tooLong(session);
  };

  /** Parses a long frame when its turn has come and no other is being parsed. */
  const readLater = (session: Session, text: string, peek: FramePeek): void => {
    const place = longFrames.enter(session.holder, text.length);
    if (place === null) {
      refuse(session, peek, OVERLOADED_RETRY_MS);
      return;
    }
    const overloaded = (): void => {
      place.leave();
      refuse(session, peek, OVERLOADED_RETRY_MS);
    };
    const work = async (): Promise<void> => {
      await place.turn();
      if (endReason(session.authority) !== null) return;
      const frame = parse(session, text, peek);
      if (frame !== null) await run(session, frame);
    };
    connections.inTurn(session, overloaded, work, place.leave);
  };

  const receive = (session: Session, frame: ClientFrame): void => {
    switch (frame.type) {
      case "heartbeat":
        connections.send(session, heartbeatAckFrame(frameHead(now()), frame.id));
        return;
      case "heartbeat_ack":
        deliveries.heartbeatAnswered(session, frame.ackId);
        return;
      case "deliver_ack":
        deliveries.receiptAcknowledged(session, frame.ackId);
        if (session.scopes.includes("relay")) acknowledgements.take(session, frame);
        else connections.event(session, "error", { code: "PROXY_AUTH_FORBIDDEN", frameId: frame.id });
        return;
      case "deliver_working":
        if (session.scopes.includes("relay")) acknowledgements.working(session, frame.ackId);
        else connections.event(session, "error", { code: "PROXY_AUTH_FORBIDDEN", frameId: frame.id });
        return;
      case "enqueue":
      case "req": {
        const peek: FramePeek = { type: frame.type, id: frame.id, method: null };
        connections.inTurn(
          session,
          () => refuse(session, peek, OVERLOADED_RETRY_MS),
          () => run(session, frame),
        );
        return;
      }
    }
  };

  const read = (session: Session, text: string): void => {
    const verdict = limits.judge(session, text);
    switch (verdict.kind) {
      case "read": {
        const frame = parse(session, text, verdict.peek);
        if (frame !== null) receive(session, frame);
        return;
      }
      case "queue":
        readLater(session, text, verdict.peek);
        return;
      case "refuse":
        refuse(session, verdict.peek, verdict.waitMs);
        return;
      case "too-long":
        tooLong(session);
        return;
      case "flood":
        flood(session);
        return;
    }
  };

  return {
    message(session, message) {
      if (endReason(session.authority) !== null) {
        if (!connections.isBusy(session)) connections.isCurrent(session);
        return;
      }
      session.lastFrameMs = now();
      // A socket that left something unanswered and shows life may be given more.
      if (queue.unansweredSinceMs(session.socketId) !== null) commits.wake();
      if (typeof message === "string") {
        if (message.length > MAX_CLIENT_FRAME_BYTES) tooLong(session);
        else read(session, message);
        return;
      }
      if (limits.isBinaryFlood(session)) flood(session);
      else connections.malformed(session, { reason: "binary", detail: "frames are text", frameId: null });
    },
  };
}
