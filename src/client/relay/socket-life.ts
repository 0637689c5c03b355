/** The life of one relay socket: it opens in time, shows signs of life, and ends once. */
import { frameHead, heartbeatAckFrame, heartbeatFrame } from "../../wire/frame-encoder.ts";
import { parseServerFrame, type ServerFrame } from "../../wire/frames.ts";
import { RELAY_CLOSE, RELAY_SUBPROTOCOL_V1 } from "../../wire/relay-close.ts";
import { UnexpectedAnswerError } from "../transport/errors.ts";
import type { Origin } from "./inbox.ts";
import { type Socket, SOCKET_OPEN } from "./socket.ts";

/** A timer of the platform. */
export type Timer = ReturnType<typeof setTimeout>;

/** Times in milliseconds. */
export type SocketTimes = {
  /** How long it may take to open. */
  readonly timeoutMs: number;
  readonly heartbeatMs: number;
  /** Without any frame for this long after a heartbeat it counts as dead. */
  readonly livenessMs: number;
  readonly nowMs: () => number;
};

/** What is called with what happens to a socket. */
export type SocketListener = {
  readonly onOpen: () => void;
  /** Anything that came in. */
  readonly onMessage: () => void;
  /** A frame, other than heartbeats. */
  readonly onFrame: (frame: ServerFrame, from: Origin) => void;
  /** A heartbeat of the server: `answer` sends its acknowledgement, which confirms the receipts before it. */
  readonly onHeartbeatAsked: (answer: () => void) => void;
  /** A text message that is no frame. */
  readonly onNoFrame: (error: UnexpectedAnswerError) => void;
  /** Called before each heartbeat. */
  readonly onHeartbeat: () => void;
  /** Called once; 1006 where it closed without a close frame or was given up. */
  readonly onClose: (close: { readonly code: number; readonly reason: string; readonly hasOpened: boolean }) => void;
};

/** Sends a text over the socket while it is open, and drops it otherwise. */
export type Reply = (text: string) => void;

/**
 * Watches over a socket until it ends.
 *
 * @param socket one that has just been made
 * @returns what sends over it
 */
export function watchSocket(socket: Socket, times: SocketTimes, listener: SocketListener): Reply {
  const { nowMs } = times;
  const timers: { open?: Timer; heartbeat?: Timer; liveness?: Timer } = {};
  let isOver = false;
  let hasOpened = false;
  let lastFrameMs = nowMs();

  const reply: Reply = (text) => {
    if (socket.readyState === SOCKET_OPEN) socket.send(text);
  };
  const over = (code: number, reason: string): void => {
    if (isOver) return;
    isOver = true;
    for (const timer of Object.values(timers)) clearTimeout(timer);
    listener.onClose({ code, reason, hasOpened });
  };
  // A dead peer answers no close frame: do not wait for one.
  const giveUp = (why: string): void => {
    socket.close(RELAY_CLOSE.normal, why);
    over(1006, why);
  };
  const beat = (): void => {
    listener.onHeartbeat();
    const sentMs = nowMs();
    reply(heartbeatFrame(frameHead(sentMs)));
    clearTimeout(timers.liveness);
    timers.liveness = setTimeout(() => {
      if (lastFrameMs < sentMs) giveUp("no sign of life");
    }, times.livenessMs);
    timers.heartbeat = setTimeout(beat, times.heartbeatMs);
  };
  const opened = (): void => {
    if (isOver) return;
    hasOpened = true;
    clearTimeout(timers.open);
    listener.onOpen();
    // Shows that the way is open in both directions; and workerd lets a socket on which nothing ever came in linger for ten
    // seconds after the server has closed it, so that the client would learn that late why.
    reply(heartbeatFrame(frameHead(nowMs())));
    timers.heartbeat = setTimeout(beat, times.heartbeatMs);
  };
  const received = (text: string): void => {
    lastFrameMs = nowMs();
    listener.onMessage();
    const frame = parseServerFrame(text);
    if (!frame.ok) listener.onNoFrame(new UnexpectedAnswerError(`a frame that is none: ${frame.error.detail}`, null));
    else if (frame.value.type === "heartbeat") {
      const { id } = frame.value;
      listener.onHeartbeatAsked(() => reply(heartbeatAckFrame(frameHead(nowMs()), id)));
    } else listener.onFrame(frame.value, { reply, isV1: socket.protocol === RELAY_SUBPROTOCOL_V1 });
  };

  timers.open = setTimeout(() => giveUp("did not open in time"), times.timeoutMs);
  socket.addEventListener("open", opened);
  socket.addEventListener("message", ({ data }) => {
    if (!isOver && typeof data === "string") received(data);
  });
  socket.addEventListener("close", ({ code, reason }) => over(code ?? 1006, reason ?? ""));
  // A close event follows where the platform keeps to the standard; where it does not, this is the end.
  socket.addEventListener("error", () => {
    if (socket.readyState !== SOCKET_OPEN) over(1006, "");
  });
  return reply;
}
