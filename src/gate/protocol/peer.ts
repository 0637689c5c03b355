/** Another agent's gate, as the transfer of messages and the reporting of their outcomes see it. */
import { DeadlineExceeded } from "../../resilience/deadline.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { DeliveryOutcome, QueuedMessage, TransferResult } from "./transfer.ts";

/** What one gate may ask of another about messages between their agents. */
export type PeerGate = {
  /** Takes messages of `from`, in order from the start; on disk before the answer. */
  receive(from: AgentDid, messages: QueuedMessage[]): Promise<TransferResult>;
  /** Records how messages of its own agent ended; on disk before the answer. */
  settle(outcomes: DeliveryOutcome[]): Promise<void>;
};

/** A gate that does not answer within this time is asked again; it recognises repeats. */
export const PEER_TIMEOUT_MS = 10_000;

/** How long a gate that has failed is left alone: 1 s at first, 30 s at most, ±20 %. */
export const PEER_RETRY = { initialMs: 1_000, maxMs: 30_000, jitterRatio: 0.2 };

/** Calls of other gates, each with a deadline. */
export type PeerCalls = {
  /** @throws Error when no answer comes within 10 s (15 at most), or what the call throws */
  ask<T>(call: () => Promise<T>): Promise<T>;
};

const LOOK_EVERY_MS = PEER_TIMEOUT_MS / 2;

/**
 * Deadlines by one timer for all calls in progress: two timers a call were a twentieth of what a message costs.
 *
 * @returns no calls
 */
export function createPeerCalls(): PeerCalls {
  /** How to give a call up, and how often the timer has found it in progress. */
  const calls = new Set<{ giveUp: (error: Error) => void; looks: number }>();
  let timer: ReturnType<typeof setInterval> | null = null;

  const look = (): void => {
    for (const call of calls) {
      call.looks += 1;
      if (call.looks > PEER_TIMEOUT_MS / LOOK_EVERY_MS) call.giveUp(new DeadlineExceeded(PEER_TIMEOUT_MS));
    }
  };

  return {
    ask: (call) =>
      new Promise((resolve, reject) => {
        const tracked = { giveUp: (error: Error) => over(() => reject(error)), looks: 0 };
        const over = (then: () => void): void => {
          if (!calls.delete(tracked)) return;
          if (calls.size === 0 && timer !== null) {
            clearInterval(timer);
            timer = null;
          }
          then();
        };
        calls.add(tracked);
        timer ??= setInterval(look, LOOK_EVERY_MS);
        begun(call).then(
          (answer) => over(() => resolve(answer)),
          (error: unknown) => over(() => reject(error)),
        );
      }),
  };
}

/** One that throws at once fails like one that throws later. */
async function begun<T>(call: () => Promise<T>): Promise<T> {
  return call();
}
