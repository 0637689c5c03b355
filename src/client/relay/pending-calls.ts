/** What waits for an answer over the relay socket: messages handed in, and RPC calls. */
import { enqueueFrame, frameHead, reqFrame } from "../../wire/frame-encoder.ts";
import { type EnqueueAckFrame, parseClientFrame, type ResFrame } from "../../wire/frames.ts";
import { InvalidArgumentError, NotAcceptedError, RelayInterruptedError, RpcError } from "../transport/errors.ts";

/** A message handed in over the socket. */
export type OutgoingMessage = {
  /** Absent for all of the group. */
  readonly to?: string | undefined;
  /** JSON text. */
  readonly payloadText: string;
  readonly conversationId?: string | undefined;
  readonly groupId?: string | undefined;
  readonly replyTo?: string | undefined;
};

/** A message that is on disk; `deliveryId` is null where the server does not say it. */
export type EnqueueResult = { readonly deliveryId: string | null };

/** What was sent over the socket, and waits for its answer. */
export type PendingCalls = {
  /** Hands a message in. @throws InvalidArgumentError, NotAcceptedError, RelayInterruptedError */
  enqueue(message: OutgoingMessage, send: (text: string) => void): Promise<EnqueueResult>;
  /** Calls a method. @throws InvalidArgumentError, RpcError, RelayInterruptedError */
  call(method: string, params: unknown, send: (text: string) => void): Promise<unknown>;
  /** An answer to a message. */
  enqueueAck(frame: EnqueueAckFrame): void;
  /** An answer to a call. */
  res(frame: ResFrame): void;
  /** The socket is gone: whatever waits may have had its effect. */
  interrupt(): void;
};

type Waiting<T> = { readonly resolve: (value: T) => void; readonly reject: (error: Error) => void };

/**
 * @param timeoutMs how long to wait for an answer
 * @param nowMs the time, for the frames' heads
 */
export function createPendingCalls(timeoutMs: number, nowMs: () => number): PendingCalls {
  const enqueued = new Map<string, Waiting<EnqueueResult>>();
  const called = new Map<string, Waiting<unknown>>();
  let lastCall = 0;

  const wait = <T>(waiting: Map<string, Waiting<T>>, id: string, send: () => void): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        waiting.delete(id);
        reject(new RelayInterruptedError("TIMEOUT", `no answer within ${timeoutMs} ms; it may have had its effect`));
      }, timeoutMs);
      const settle = (): void => {
        clearTimeout(timer);
        waiting.delete(id);
      };
      waiting.set(id, {
        resolve: (value) => {
          settle();
          resolve(value);
        },
        reject: (error) => {
          settle();
          reject(error);
        },
      });
      send();
    });

  return {
    async enqueue({ to, ...rest }, send) {
      const head = frameHead(nowMs());
      const text = checkedFrame(enqueueFrame(head, { toAgentDid: to, ...rest }));
      return wait(enqueued, head.id, () => send(text));
    },

    async call(method, params, send) {
      lastCall += 1;
      const id = String(lastCall);
      const text = checkedFrame(reqFrame({ id, method, params }));
      return wait(called, id, () => send(text));
    },

    enqueueAck({ ackId, accepted, reason, deliveryId }) {
      const waiting = enqueued.get(ackId);
      if (accepted) waiting?.resolve({ deliveryId: deliveryId ?? null });
      else
        waiting?.reject(
          new NotAcceptedError(reason ?? "REFUSED", `the message was not accepted: ${reason ?? "no reason given"}`),
        );
    },

    res({ id, ok, payload, error }) {
      const waiting = called.get(String(id));
      if (ok) {
        waiting?.resolve(payload);
        return;
      }
      waiting?.reject(
        new RpcError({
          code: error?.code ?? "RPC_FAILED",
          message: error?.message ?? "the call failed",
          number: null,
          data: error?.details ?? null,
          retryable: error?.retryable ?? false,
          retryAfterMs: error?.retryAfterMs ?? null,
        }),
      );
    },

    interrupt() {
      const interrupted = new RelayInterruptedError(
        "RELAY_INTERRUPTED",
        "the relay socket closed before the answer came; it may have had its effect",
      );
      for (const waiting of [...enqueued.values(), ...called.values()]) waiting.reject(interrupted);
    },
  };
}

/** A frame that the server would not take gets no answer, and would look like an outage. */
function checkedFrame(text: string): string {
  const frame = parseClientFrame(text);
  if (frame.ok) return text;
  const { reason, detail } = frame.error;
  if (reason === "too_large") throw new InvalidArgumentError("payload", detail);
  const [member = "", ...problem] = detail.split(": ");
  throw new InvalidArgumentError(member === "toAgentDid" ? "to" : member, problem.join(": "));
}
