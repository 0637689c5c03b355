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
import { backoffMs } from "../../resilience/backoff.ts";
import type { ServerFrame } from "../../wire/frames.ts";
import { RELAY_CLOSE, RELAY_SUBPROTOCOL_V1, TICKET_SUBPROTOCOL_PREFIX } from "../../wire/relay-close.ts";
import { abortable } from "../transport/abort.ts";
import { payloadTextOf } from "../transport/arguments.ts";
import { RelayInterruptedError, RelayStoppedError, UnreachableError } from "../transport/errors.ts";
import { urlOf } from "../transport/http-call.ts";
import { afterClose, afterTicketError, type Next, type RelayEnd } from "./close-reason.ts";
import { createInbox, type OnMessage, type Origin } from "./inbox.ts";
import { createOpenings, inTime } from "./openings.ts";
import { createPendingCalls, type EnqueueResult, type PendingCalls } from "./pending-calls.ts";
import { createReceipts, type OnReceipt } from "./receipts.ts";
import { platformSocket, type Socket, type SocketConstructor } from "./socket.ts";
import { type Reply, type SocketListener, type Timer, watchSocket } from "./socket-life.ts";

export type { RelayEnd } from "./close-reason.ts";
export type { EnqueueResult } from "./pending-calls.ts";
export type { IncomingMessage, OnMessage } from "./inbox.ts";
export type { OnReceipt, Receipt } from "./receipts.ts";

/** `waiting`: between two attempts. `stopped` is final. */
export type RelayState = "connecting" | "open" | "waiting" | "stopped";

/** What is called with what comes in. */
export type RelayHandlers = {
  readonly onMessage: OnMessage;
  /** The receipt of a dead letter comes at least once, and again until this has resolved for it. */
  readonly onReceipt?: OnReceipt | undefined;
  readonly onEvent?:
    | ((event: { readonly event: string; readonly payload: unknown; readonly seq: number }) => void)
    | undefined;
  readonly onState?: ((state: RelayState) => void) | undefined;
  /**
   * Called with what does not end the connection: the error of a handler, a frame that is none, a failed attempt. By default
   * that is an error on the console.
   */
  readonly onError?: ((error: unknown) => void) | undefined;
};

/** Times in milliseconds; what is left out has a default. */
export type RelayOptions = {
  /** Instead of the platform's own. */
  readonly WebSocket?: SocketConstructor | undefined;
  /** Closes the connection permanently, as `close` does. */
  readonly signal?: AbortSignal | undefined;
  /** 30,000 by default. */
  readonly heartbeatMs?: number | undefined;
  /** Without any frame for this long after a heartbeat the socket counts as dead; 10,000 by default. */
  readonly livenessMs?: number | undefined;
  /** How often the server is informed that a message is still in work; 5,000 by default. */
  readonly workingMs?: number | undefined;
  /** Wait before the first new attempt, doubled with each; 500 by default. */
  readonly backoffInitialMs?: number | undefined;
  /** 30,000 by default. */
  readonly backoffMaxMs?: number | undefined;
  /** How long one attempt to connect, an `enqueue` or a `call` may wait; 30,000 by default. */
  readonly timeoutMs?: number | undefined;
  /** From 0 up to 1, instead of `Math.random`. */
  readonly random?: (() => number) | undefined;
};

/** For whatever waits: gives the wait up, with the signal's reason. What was sent may have its effect all the same. */
export type Wait = { readonly signal?: AbortSignal | undefined };

/** A relay connection, which comes back by itself until it has stopped. */
export type RelayConnection = {
  state(): RelayState;
  /** Resolves when the socket is open (again); rejects when the connection has stopped. */
  opened(options?: Wait): Promise<void>;
  /**
   * Hands in a message; resolves when it is on disk. Waits for the socket to open.
   * @throws NotAcceptedError, RelayInterruptedError, RelayStoppedError
   */
  enqueue(
    message: Wait & {
      /** Absent for all of the group. */
      readonly to?: string | undefined;
      readonly payload?: unknown;
      readonly payloadText?: string | undefined;
      readonly conversationId?: string | undefined;
      readonly groupId?: string | undefined;
      readonly replyTo?: string | undefined;
    },
  ): Promise<EnqueueResult>;
  /** Calls a method over the socket. @throws RpcError, RelayInterruptedError, RelayStoppedError */
  call(method: string, params?: Readonly<Record<string, unknown>>, options?: Wait): Promise<unknown>;
  /** Closes permanently. */
  close(): void;
  /** Resolves when the connection has ended permanently, and says why. */
  readonly ended: Promise<RelayEnd>;
};

/** Everything that a connection is made with. */
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

/** A browser says no more than that: not the status, and not that it was refused. */
const NOT_OPENED = "the relay socket did not open; a page's is refused while RELAY_ALLOWED_ORIGINS lacks its origin";

const DEFAULTS = {
  timeoutMs: 30_000,
  heartbeatMs: 30_000,
  livenessMs: 10_000,
  workingMs: 5_000,
  backoffInitialMs: 500,
  backoffMaxMs: 30_000,
} as const;

/**
 * Opens the relay, and opens it again whenever it closes, until its credential is over or this side closes it.
 *
 * @throws TypeError when the platform has no WebSocket
 */
export function connectRelay(setup: RelaySetup): RelayConnection {
  const { handlers, nowMs } = setup;
  const WebSocketImpl = setup.WebSocket ?? platformSocket();
  const options = withDefaults(setup);
  const random = setup.random ?? Math.random;
  const backoff = { initialMs: options.backoffInitialMs, maxMs: options.backoffMaxMs, jitterRatio: "full" } as const;
  const onError = handlers.onError ?? reportOnConsole;

  const inbox = createInbox({ onMessage: handlers.onMessage, onError, nowMs, workingMs: options.workingMs });
  const pending = createPendingCalls(options.timeoutMs, nowMs);
  const openings = createOpenings();
  let resolveEnded: ((end: RelayEnd) => void) | undefined;
  const ended = new Promise<RelayEnd>((resolve) => {
    resolveEnded = resolve;
  });

  let state: RelayState = "connecting";
  let end: RelayEnd | null = null;
  let current: { readonly socket: Socket; readonly reply: Reply } | null = null;
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
    clearTimeout(retryTimer);
    const open = current;
    current = null;
    pending.interrupt();
    open?.socket.close(RELAY_CLOSE.normal);
    openings.stopped(stoppedError(reason));
    enter("stopped");
    setup.signal?.removeEventListener("abort", close);
    resolveEnded?.(reason);
  };

  const go = (next: Next): void => {
    if (end !== null) return;
    if (next.do === "stop") {
      stop(next.end);
      return;
    }
    enter("waiting");
    const waitMs = Math.max(next.atLeastMs, backoffMs(attempt + 1, backoff, random()));
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
      run(new WebSocketImpl(relayUrl(setup.baseUrl), [TICKET_SUBPROTOCOL_PREFIX + ticket, RELAY_SUBPROTOCOL_V1]));
    } catch (error) {
      onError(error);
      go({ do: "return", atLeastMs: 0 });
    }
  };

  const run = (socket: Socket): void => {
    const isCurrent = (): boolean => current?.socket === socket;
    const receipts = createReceipts(handlers.onReceipt, onError);
    const listener: SocketListener = {
      onOpen() {
        if (!isCurrent()) return;
        enter("open");
        openings.opened();
      },
      onMessage() {
        if (isCurrent()) attempt = 0;
      },
      onFrame(frame, from) {
        if (!isCurrent()) return;
        if (frame.type === "receipt") receipts.take(frame);
        else dispatch(frame, from);
      },
      onHeartbeatAsked: receipts.whenHandled,
      onNoFrame: onError,
      onHeartbeat: () => void setup.maintenance?.().catch(onError),
      onClose({ code, reason, hasOpened }) {
        if (!isCurrent()) return;
        current = null;
        pending.interrupt();
        if (!hasOpened) onError(new UnreachableError("UNREACHABLE", NOT_OPENED));
        go(afterClose({ code, reason }, setup.mayReturnAfterExpiry?.() ?? false));
      },
    };
    current = { socket, reply: watchSocket(socket, { ...options, nowMs }, listener) };
  };

  const dispatch = (frame: ServerFrame, from: Origin): void => {
    if (frame.type === "deliver") inbox.take(frame, from);
    else if (frame.type === "event") handlers.onEvent?.(frame);
    else settlePending(pending, frame);
  };

  const whenOpen = async <T>(act: (send: Reply) => Promise<T>): Promise<T> => {
    if (end !== null) throw stoppedError(end);
    if (state !== "open") await inTime(openings.wait(), options.timeoutMs);
    if (current === null)
      throw new RelayInterruptedError("RELAY_INTERRUPTED", "the relay socket closed before anything was sent");
    return act(current.reply);
  };

  const close = (): void => stop({ why: "closed", detail: "closed by this side", closeCode: null, error: null });
  setup.signal?.addEventListener("abort", close, { once: true });
  if (setup.signal?.aborted === true) close();
  else void connect();

  return {
    ended,
    state: () => state,
    async opened({ signal } = {}) {
      if (end !== null) throw stoppedError(end);
      if (state !== "open") await abortable(openings.wait(), signal);
    },
    async enqueue({ payload, payloadText, signal, ...rest }) {
      signal?.throwIfAborted();
      const text = payloadTextOf({ payload, payloadText });
      return abortable(
        whenOpen((send) => pending.enqueue({ ...rest, payloadText: text }, send)),
        signal,
      );
    },
    async call(method, params = {}, { signal } = {}) {
      signal?.throwIfAborted();
      return abortable(
        whenOpen((send) => pending.call(method, params, send)),
        signal,
      );
    },
    close,
  };
}

/** Answers to what this side has sent. */
function settlePending(pending: PendingCalls, frame: ServerFrame): void {
  if (frame.type === "enqueue_ack") pending.enqueueAck(frame);
  else if (frame.type === "res") pending.res(frame);
}

/** A member that is undefined means the default. */
function withDefaults(options: RelayOptions): Readonly<Record<keyof typeof DEFAULTS, number>> {
  const { timeoutMs, heartbeatMs, livenessMs, workingMs, backoffInitialMs, backoffMaxMs } = options;
  return {
    timeoutMs: timeoutMs ?? DEFAULTS.timeoutMs,
    heartbeatMs: heartbeatMs ?? DEFAULTS.heartbeatMs,
    livenessMs: livenessMs ?? DEFAULTS.livenessMs,
    workingMs: workingMs ?? DEFAULTS.workingMs,
    backoffInitialMs: backoffInitialMs ?? DEFAULTS.backoffInitialMs,
    backoffMaxMs: backoffMaxMs ?? DEFAULTS.backoffMaxMs,
  };
}

function relayUrl(baseUrl: URL): string {
  const url = urlOf(baseUrl, "/relay/connect");
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

function stoppedError(reason: RelayEnd): RelayStoppedError {
  return new RelayStoppedError(`the relay connection has ended (${reason.why}): ${reason.detail}`);
}

function reportOnConsole(error: unknown): void {
  console.error("sallyport: on the relay:", error);
}
