/** What local programs send by the connector: at once, or from the outbox on disk as soon as the server can be reached. */
import { type Accepted, type AgentClient, InvalidArgumentError, ProblemError } from "../client/index.ts";
import { backoffMs } from "../resilience/backoff.ts";
import type { Complaints } from "./complaints.ts";

import type { OutboxStore, OutgoingMessage } from "./store/outbox.ts";
import { createWork, type Work } from "./work.ts";

const RETRY = { initialMs: 1_000, maxMs: 60_000, jitterRatio: 0.2 } as const;
const RETRY_MAX_MS = 3_600_000;
const PRUNE_EVERY_MS = 600_000;

/** What sends. */
export type Outgoing = {
  /**
   * Sends a message.
   *
   * @returns what the server said, or that it waits on this disk
   * @throws ProblemError, UnreachableError without an outbox; InvalidArgumentError; OutgoingRefusal
   */
  send(
    message: OutgoingMessage,
  ): Promise<Accepted | { readonly key: string; readonly state: "waiting" | "sent" | "failed" }>;
  stop(): Promise<void>;
};

/** Why the outbox does not take a message. */
export class OutgoingRefusal extends Error {
  override readonly name = "OutgoingRefusal";
  readonly reason: "full" | "other";

  constructor(reason: "full" | "other") {
    super(reason === "full" ? "the outbox is full" : "this key has been used for another message");
    this.reason = reason;
  }
}

/** What sending works with. */
export type OutgoingOptions = {
  readonly client: Pick<AgentClient, "send">;
  /** Null: a send is answered when the server has it. */
  readonly outbox: OutboxStore | null;
  readonly complaints: Complaints;
  readonly now: () => number;
};

/** @returns what sends for one agent; what its outbox holds goes first */
export function createOutgoing({ client, outbox, complaints, now }: OutgoingOptions): Outgoing {
  const handIn = ({ key, ...message }: OutgoingMessage): Promise<Accepted> =>
    client.send({ ...message, idempotencyKey: key });
  if (outbox === null) return { send: handIn, stop: () => Promise.resolve() };
  const work = workOf(outbox, handIn, complaints, now);
  work.wake();
  const pruning = setInterval(() => outbox.prune(now()), PRUNE_EVERY_MS);
  pruning.unref();
  return {
    send(message) {
      const kept = outbox.put(message, now());
      if (kept === "full" || kept === "other") return Promise.reject(new OutgoingRefusal(kept));
      work.wake();
      return Promise.resolve({ key: message.key, state: outbox.get(message.key)?.state ?? "waiting" });
    },
    async stop() {
      clearInterval(pruning);
      await work.stop();
    },
  };
}

type Waiting = { message: OutgoingMessage; attempts: number };

function workOf(
  outbox: OutboxStore,
  handIn: (message: OutgoingMessage) => Promise<Accepted>,
  complaints: Complaints,
  now: () => number,
): Work {
  return createWork<Waiting>({
    due: outbox.due,
    nextDueMs: outbox.nextDueMs,
    keyOf: ({ message }) => message.to,
    now,
    async work({ message, attempts }) {
      try {
        const { deliveryId } = await handIn(message);
        outbox.sent(message.key, deliveryId, now());
        complaints.over("outbox");
      } catch (error) {
        const text = error instanceof Error ? error.message : String(error);
        // Said with a code that will not change: the message is at fault, or whom it is for.
        if (isPermanent(error) || error instanceof InvalidArgumentError) {
          outbox.failed(message.key, error instanceof ProblemError ? error.code : text, now());
          complaints.about("outbox", `a message was refused: ${text}`);
          return;
        }
        complaints.about("outbox", text);
        const wanted = error instanceof ProblemError ? error.retryAfterMs : null;
        const waitMs = wanted ?? backoffMs(attempts + 1, RETRY, Math.random());
        outbox.postponed(message.key, text, now() + Math.min(waitMs, RETRY_MAX_MS), now());
      }
    },
    storeFailed(error) {
      complaints.about("outbox", `cannot be used: ${error instanceof Error ? error.message : String(error)}`);
    },
  });
}

/** @returns whether a send can never succeed as it is */
function isPermanent(error: unknown): boolean {
  return (
    error instanceof ProblemError &&
    error.status >= 400 &&
    error.status < 500 &&
    ![401, 408, 425, 429].includes(error.status)
  );
}
