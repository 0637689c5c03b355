/** A recipient's queue on real storage, whose clock and sockets are the test's. */
import type { QueuedMessage } from "../../src/gate/protocol/transfer.ts";
import { createQueue, type Push, type Queue, type QueueLimits } from "../../src/gate/queue/queue.ts";
import type { AgentDid } from "../../src/wire/did.ts";
import { ProxyError } from "../../src/wire/problem.ts";
import { newAgentDid, onStorage, queuedMessage, START_MS } from "./gate.ts";

export const LIMITS: QueueLimits = {
  queueMax: 500,
  ttlMs: 3_600_000,
  maxAttempts: 25,
  retry: { initialMs: 1_000, maxMs: 30_000, jitterRatio: 0.2 },
  deadLetterRetentionMs: 7 * 86_400_000,
};
export const HEALTHY = () => true;
export const ANYTHING = { isShut: false, refusal: () => null };
/** A socket that shows life. */
export const socket = (socketId: string) => ({ socketId, holder: "agent", lastFrameMs: Infinity });
/** What the holder of that socket says of a message. */
export const ack = (deliveryId: string) => ({
  deliveryId,
  holder: "agent",
  socketId: "s1",
  accepted: true,
  reason: null,
});
/** Pushes what can be pushed, and acknowledges one. */
export const acknowledge = (
  queue: Queue,
  deliveryId: string,
  accepted: boolean,
  reason: string | null,
  nowMs: number,
) => {
  queue.pump(() => SOCKET, nowMs);
  queue.acknowledge([{ deliveryId, holder: "agent", socketId: "s1", accepted, reason }], nowMs);
};
export const SOCKET = [socket("s1")];
export const alice = newAgentDid();
export const carol = newAgentDid();

export type Desk = {
  queue: Queue;
  sql: SqlStorage;
  /** The same storage, read anew, as after an eviction. */
  anew: () => Queue;
  fence: (sender: AgentDid, epoch: number) => void;
  take: (from: AgentDid, queuedMessages: QueuedMessage[], nowMs?: number) => number;
};

export function onQueue<T>(work: (desk: Desk) => T, over: Partial<QueueLimits> = {}): Promise<T> {
  return onStorage((sql) => {
    const fences = new Map<string, number>();
    const admits = (sender: AgentDid, { trustEpoch = Infinity }: { trustEpoch?: number }): boolean =>
      trustEpoch >= (fences.get(sender) ?? 0);
    const open = () => createQueue({ sql, limits: { ...LIMITS, ...over }, admits, now: () => START_MS });
    const queue = open();
    return work({
      queue,
      sql,
      anew: open,
      fence: (sender, epoch) => void fences.set(sender, epoch),
      take: (from, queuedMessages, nowMs = START_MS) => queue.receive(from, queuedMessages, ANYTHING, nowMs),
    });
  });
}

export const many = (n: number, over: Partial<QueuedMessage> = {}): QueuedMessage[] =>
  Array.from({ length: n }, () => queuedMessage(over));
export const ids = (pushes: Push[]): string[] => pushes.map(({ deliveryId }) => deliveryId);

/** What came of it: its value, or the code it was refused with. */
export function outcomeOf(work: () => unknown): unknown {
  try {
    return work();
  } catch (error) {
    if (error instanceof ProxyError) return error.code;
    throw error;
  }
}
