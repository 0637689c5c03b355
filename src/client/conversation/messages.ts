/** Incoming messages as a sequence: `for await (const message of agent.messages())`. */
import type { RelayConnection } from "../relay/connection.ts";
import { abortable } from "../transport/abort.ts";
import { NotNow, RelayStoppedError } from "../transport/errors.ts";

/** A message of a sequence. */
export type InSequence<M> = M & {
  /** Acknowledges it now, and not when the next one is asked for: before a `break`. */
  acknowledge(): void;
};

type Held<M> = { readonly message: M; readonly done: () => void; readonly leave: (why: Error) => void };

/** Why a sequence is over; null where its end is none of an error. */
type End = { readonly error: Error | null };

/**
 * The messages of one connection, one at a time. A message is acknowledged when the next one is asked for; when the loop is
 * left in the middle (`break`, an error in its body) it is delivered again.
 *
 * @param open opens the connection; called once, when the first message is asked for
 * @param signal ends the sequence, whose wait then rejects with the signal's reason
 * @returns messages until the connection is closed from this side
 * @throws RelayStoppedError when the connection has ended for another reason
 */
export function messageSequence<M>(
  open: (onMessage: (message: M) => Promise<void>) => RelayConnection,
  signal: AbortSignal | undefined,
): AsyncIterableIterator<InSequence<M>> {
  const queue: Held<M>[] = [];
  let wake: (() => void) | undefined;
  let inHand: Held<M> | null = null;
  let relay: RelayConnection | null = null;
  let end: End | null = null;

  const begin = (): RelayConnection => {
    const opened = open(
      (message) =>
        new Promise((resolve, reject) => {
          queue.push({ message, done: resolve, leave: reject });
          wake?.();
        }),
    );
    void opened.ended.then(({ why, detail }) => {
      end ??= { error: why === "closed" ? null : new RelayStoppedError(`the relay has ended (${why}): ${detail}`) };
      wake?.();
    });
    return opened;
  };

  /** What is not acknowledged comes again. */
  const leave = async (): Promise<void> => {
    end ??= { error: null };
    const why = new NotNow("nobody asks for messages any more", 0);
    for (const held of [...(inHand === null ? [] : [inHand]), ...queue.splice(0)]) held.leave(why);
    inHand = null;
    // What has been answered is on its way when this turn ends; the socket closes after it.
    await new Promise<void>((resolve) => setTimeout(resolve, 0));
    relay?.close();
  };

  return {
    async next() {
      inHand?.done();
      inHand = null;
      relay ??= begin();
      for (;;) {
        const held = queue.shift();
        if (held !== undefined) {
          inHand = held;
          return { done: false, value: withMethod(held.message, "acknowledge", held.done) };
        }
        if (end?.error !== undefined && end.error !== null) throw end.error;
        if (end !== null) return { done: true, value: undefined };
        const woken = new Promise<void>((resolve) => {
          wake = resolve;
        });
        try {
          await abortable(woken, signal);
        } catch (error) {
          await leave();
          throw error;
        }
      }
    },
    async return() {
      await leave();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/**
 * Adds a method that is not among a message's data: who copies a message, or writes it out, has no use for it.
 *
 * @returns the same object
 */
export function withMethod<M, N extends string, F>(message: M, name: N, method: F): M & { readonly [K in N]: F } {
  return Object.defineProperty(message, name, { value: method }) as M & { readonly [K in N]: F };
}
