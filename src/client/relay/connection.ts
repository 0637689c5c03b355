/**
 * The relay connection: stays open, comes back by itself, and stops when its credential is over.
 *
 * @example
 * ```ts
 * const relay = agent.connect({
 *   onMessage: (message) => console.log(message.fromAgentDid, message.payload),
 *   onState: (state) => console.log(state),
 * });
 * await relay.enqueue({ to: peerDid, payload: { text: "hello" } });
 * relay.close();
 * console.log((await relay.ended).why); // closed
 * ```
 */
import { frameHead, heartbeatAckFrame, heartbeatFrame } from "../../wire/frame-encoder.ts";
import { parseServerFrame, type ReceiptFrame, type ServerFrame } from "../../wire/frames.ts";
import { RELAY_CLOSE, TICKET_SUBPROTOCOL_PREFIX } from "../../wire/relay-close.ts";
import { backoffMs } from "../../resilience/backoff.ts";
import {
  RelayInterruptedError,
  RelayStoppedError,
  UnexpectedAnswerError,
  UnreachableError,
} from "../transport/errors.ts";
import { payloadTextOf } from "../transport/payload.ts";
import { createPendingCalls, type EnqueueResult } from "./pending-calls.ts";
import { afterClose, afterTicketError, type Next, type RelayEnd } from "./close-reason.ts";
import { createInbox, type OnMessage } from "./inbox.ts";
import { platformSocket, type Socket, SOCKET_OPEN, type SocketConstructor } from "./socket.ts";

export type { RelayEnd } from "./close-reason.ts";
export type { EnqueueResult } from "./pending-calls.ts";
export type { IncomingMessage, OnMessage } from "./inbox.ts";

/** `waiting`: between two attempts. `stopped` is final. */
export type RelayState = "connecting" | "open" | "waiting" | "stopped";

/** What became of a message that this client had sent. */
export type Receipt = Pick<ReceiptFrame, "originalFrameId" | "deliveryId" | "toAgentDid" | "status" | "reason">;

export type RelayHandlers = {
  readonly onMessage: OnMessage;
  readonly onReceipt?: ((receipt: Receipt) => void) | undefined;
  readonly onEvent?:
    | ((event: { readonly event: string; readonly payload: unknown; readonly seq: number }) => void)
    | undefined;
  readonly onState?: ((state: RelayState) => void) | undefined;
  /** Told what does not end the connection: a handler that failed, a frame that is none, a failed attempt. */
  readonly onError?: ((error: unknown) => void) | undefined;
};

export type RelayOptions = {
  /** Instead of the platform's own. */
  readonly WebSocket?: SocketConstructor | undefined;
  /** 30,000 by default. */
  readonly heartbeatMs?: number | undefined;
  /** Without any frame for this long after a heartbeat the socket counts as dead; 10,000 by default. */
  readonly livenessMs?: number | undefined;
  /** Wait before the first new attempt, doubled with each; 500 by default. */
  readonly backoffInitialMs?: number | undefined;
  /** 30,000 by default. */
  readonly backoffMaxMs?: number | undefined;
  /** How long one attempt to connect, an `enqueue` or a `call` may wait; 30,000 by default. */
  readonly timeoutMs?: number | undefined;
  /** From 0 up to 1, instead of `Math.random`. */
  readonly random?: (() => number) | undefined;
};

export type RelayConnection = {
  state(): RelayState;
  /** Resolves when the socket is open (again); rejects when the connection has stopped. */
  opened(): Promise<void>;
  /**
   * Hands in a message; resolves when it is on disk. Waits for the socket to open.
   * @throws NotAcceptedError, RelayInterruptedError, RelayStoppedError
   */
  enqueue(message: {
    readonly to: string;
    readonly payload?: unknown;
    readonly payloadText?: string | undefined;
    readonly conversationId?: string | undefined;
    readonly groupId?: string | undefined;
    readonly replyTo?: string | undefined;
  }): Promise<EnqueueResult>;
  /** Calls a method over the socket. @throws RpcError, RelayInterruptedError, RelayStoppedError */
  call(method: string, params?: Readonly<Record<string, unknown>>): Promise<unknown>;
  /** Closes for good. */
  close(): void;
  /** Resolves when the connection has ended for good, and says why. */
  readonly ended: Promise<RelayEnd>;
};

export type RelaySetup = RelayOptions & {
  readonly handlers: RelayHandlers;
  readonly baseUrl: URL;
  readonly nowMs: () => number;
  /** A fresh ticket for each attempt. */
  readonly ticket: () => Promise<string>;
  /** Done before each heartbeat, e.g. renewing the credential. */
  readonly maintenance?: (() => Promise<void>) | undefined;
  /** Whether the credential in hand outlives one that has just expired. */
  readonly mayReturnAfterExpiry?: (() => boolean) | undefined;
};

type Timer = ReturnType<typeof setTimeout>;
/** A browser tells a page no more than that: not the status, and not that it was refused. */
const NOT_OPENED = "the relay socket did not open; a page's is refused while RELAY_ALLOWED_ORIGINS lacks its origin";

type Opening = { readonly resolve: () => void; readonly reject: (error: Error) => void };

export function connectRelay(setup: RelaySetup): RelayConnection {
  const { handlers, nowMs } = setup;
  const WebSocketImpl = setup.WebSocket ?? platformSocket();
  const timeoutMs = setup.timeoutMs ?? 30_000;
  const heartbeatMs = setup.heartbeatMs ?? 30_000;
  const livenessMs = setup.livenessMs ?? 10_000;
  const random = setup.random ?? Math.random;
  const backoff = { initialMs: setup.backoffInitialMs ?? 500, maxMs: setup.backoffMaxMs ?? 30_000 };
  const onError = (error: unknown): void => handlers.onError?.(error);

  const inbox = createInbox(handlers.onMessage, onError, nowMs);
  const pending = createPendingCalls(timeoutMs, nowMs);
  const { promise: ended, resolve: resolveEnded } = Promise.withResolvers<RelayEnd>();
  const openings = new Set<Opening>();

  let state: RelayState = "connecting";
  let end: RelayEnd | null = null;
  let socket: Socket | null = null;
  let attempt = 0;
  let retryTimer: Timer | undefined;

  const enter = (next: RelayState): void => {
    if (state === next) return;
    state = next;
    handlers.onState?.(next);
  };

  const stop = (reason: RelayEnd): void => {
    if (end !== null) return;
    end = reason;
    stopTimer(retryTimer);
    const open = socket;
    socket = null;
    pending.interrupt();
    open?.close(RELAY_CLOSE.normal);
    for (const opening of openings) opening.reject(new RelayStoppedError(stoppedMessage(reason)));
    openings.clear();
    enter("stopped");
    resolveEnded(reason);
  };

  const go = (next: Next): void => {
    if (end !== null) return;
    if (next.do === "stop") {
      stop(next.end);
      return;
    }
    enter("waiting");
    const waitMs = Math.max(next.atLeastMs, backoffMs(attempt, random(), backoff));
    attempt += 1;
    retryTimer = setTimeout(() => void connect(), waitMs);
  };

  const connect = async (): Promise<void> => {
    enter("connecting");
    let ticket: string;
    try {
      ticket = await setup.ticket();
    } catch (error) {
      const next = afterTicketError(error);
      if (next.do === "return") onError(error);
      go(next);
      return;
    }
    // The ticket took its time, and the connection may have been closed meanwhile.
    if (end !== null) return;
    try {
      run(new WebSocketImpl(relayUrl(setup.baseUrl), [TICKET_SUBPROTOCOL_PREFIX + ticket]));
    } catch (error) {
      onError(error);
      go({ do: "return", atLeastMs: 0 });
    }
  };

  const run = (own: Socket): void => {
    socket = own;
    let isOver = false;
    let hasOpened = false;
    let lastFrameMs = nowMs();
    let livenessTimer: Timer | undefined;
    let heartbeatTimer: Timer | undefined;

    const over = (close: { code: number; reason: string }): void => {
      if (isOver) return;
      isOver = true;
      for (const timer of [openTimer, livenessTimer, heartbeatTimer]) stopTimer(timer);
      if (socket !== own) return;
      socket = null;
      pending.interrupt();
      if (!hasOpened) onError(new UnreachableError("UNREACHABLE", NOT_OPENED));
      go(afterClose(close, setup.mayReturnAfterExpiry?.() ?? false));
    };
    // A dead peer answers no close frame: do not wait for one.
    const giveUp = (why: string): void => {
      own.close(RELAY_CLOSE.normal, why);
      over({ code: 1006, reason: why });
    };
    const reply = (text: string): void => {
      if (own.readyState === SOCKET_OPEN) own.send(text);
    };
    const beat = (): void => {
      heartbeatTimer = setTimeout(() => {
        setup.maintenance?.().catch(onError);
        const sentMs = nowMs();
        reply(heartbeatFrame(frameHead(sentMs)));
        stopTimer(livenessTimer);
        livenessTimer = setTimeout(() => {
          if (lastFrameMs < sentMs) giveUp("no sign of life");
        }, livenessMs);
        beat();
      }, heartbeatMs);
    };
    const openTimer = setTimeout(() => giveUp("did not open in time"), timeoutMs);

    own.addEventListener("open", () => {
      if (socket !== own) return;
      hasOpened = true;
      clearTimeout(openTimer);
      enter("open");
      for (const opening of openings) opening.resolve();
      openings.clear();
      // Shows that the way is open in both directions; and workerd lets a socket on which nothing ever came in linger for
      // ten seconds after the server has closed it, so that the client would learn that late why.
      reply(heartbeatFrame(frameHead(nowMs())));
      beat();
    });
    own.addEventListener("message", ({ data }) => {
      if (socket !== own || typeof data !== "string") return;
      lastFrameMs = nowMs();
      attempt = 0;
      const frame = parseServerFrame(data);
      if (frame.ok) dispatch(frame.value, reply);
      else onError(new UnexpectedAnswerError(`a frame that is none: ${frame.error.detail}`, null));
    });
    own.addEventListener("close", ({ code, reason }) => over({ code: code ?? 1006, reason: reason ?? "" }));
    // A close event follows where the platform keeps to the standard; where it does not, this is the end.
    own.addEventListener("error", () => {
      if (own.readyState !== SOCKET_OPEN) over({ code: 1006, reason: "" });
    });
  };

  const dispatch = (frame: ServerFrame, reply: (text: string) => void): void => {
    switch (frame.type) {
      case "deliver":
        inbox.take(frame, reply);
        return;
      case "enqueue_ack":
        pending.enqueueAck(frame);
        return;
      case "res":
        pending.res(frame);
        return;
      case "receipt":
        handlers.onReceipt?.(frame);
        return;
      case "event":
        handlers.onEvent?.(frame);
        return;
      case "heartbeat":
        reply(heartbeatAckFrame(frameHead(nowMs()), frame.id));
        return;
      case "heartbeat_ack":
        return;
    }
  };

  const opened = (): Promise<void> => {
    if (end !== null) return Promise.reject(new RelayStoppedError(stoppedMessage(end)));
    if (state === "open") return Promise.resolve();
    return new Promise((resolve, reject) => openings.add({ resolve, reject }));
  };

  const whenOpen = async <T>(act: (send: (text: string) => void) => Promise<T>): Promise<T> => {
    let timer: Timer | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(
        () => reject(new RelayInterruptedError("TIMEOUT", `the relay did not open within ${timeoutMs} ms`)),
        timeoutMs,
      );
    });
    try {
      await Promise.race([opened(), late]);
    } finally {
      stopTimer(timer);
    }
    const own = socket;
    if (own === null)
      throw new RelayInterruptedError("RELAY_INTERRUPTED", "the relay socket closed before anything was sent");
    return act((text) => own.send(text));
  };

  void connect();

  return {
    ended,
    state: () => state,
    opened,
    enqueue: ({ payload, payloadText, ...rest }) => {
      const text = payloadTextOf({ payload, payloadText });
      return whenOpen((send) => pending.enqueue({ ...rest, payloadText: text }, send));
    },
    call: (method, params = {}) => whenOpen((send) => pending.call(method, params, send)),
    close: () => stop({ why: "closed", detail: "closed by this side", closeCode: null, error: null }),
  };
}

function relayUrl(baseUrl: URL): string {
  const url = new URL(`${baseUrl.href.replace(/\/$/, "")}/relay/connect`);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

function stoppedMessage(reason: RelayEnd): string {
  return `the relay connection has ended (${reason.why}): ${reason.detail}`;
}

function stopTimer(timer: Timer | undefined): void {
  if (timer !== undefined) clearTimeout(timer);
}
