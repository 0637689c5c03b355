/**
 * Many effects, one commit. A Durable Object has no natural group commit: each event that writes pays its own fsync. An effect
 * that comes while idle is applied at once; those that follow closely wait for the next turn of the event loop and are applied
 * together, synchronously. The output gate then holds every answer until that one commit is on disk.
 */
import { ProxyError } from "../../wire/problem.ts";
import { GateRefusal } from "../protocol/refusal.ts";

/** What follows a commit within this time is batched; what comes later finds the gate idle. */
const LULL_MS = 5;

export type GroupCommit = {
  /**
   * Applies `effect` in the next group, each in a savepoint of its own: one that refuses undoes itself alone. One that fails
   * otherwise may have changed memory, which nothing undoes: the object starts anew, and nothing of the group has happened.
   *
   * @param withinMs how long the effect may wait for others; 0 is the next turn at the latest.
   */
  commit<T>(effect: () => T, withinMs?: number): Promise<T>;
  /** The same for an effect that refuses before it writes, and so needs no savepoint, which costs more than the write. */
  commitChecked<T>(effect: () => T, withinMs?: number): Promise<T>;
  /** Makes sure that a group is committed soon, though it may hold no effect: the hook does the work. */
  wake(withinMs?: number): void;
  /** Sets what runs once a group after its effects, in the same commit, with how many were not refused; set once, before the first group. */
  beforeCommit(hook: (effects: number) => void): void;
};

type Outcome = { value: unknown } | { error: unknown };
type Job = { isChecked: boolean; effect: () => unknown; settle: (outcome: Outcome) => void };

/**
 * @param onBroken a fault in an effect or in the hook leaves memory and disk apart: the object must start anew.
 * @returns the commits of one object, without a hook so far
 */
export function createGroupCommit(
  storage: DurableObjectStorage,
  onBroken: (error: unknown) => void,
  now: () => number = Date.now,
): GroupCommit {
  let beforeCommit: ((effects: number) => void) | null = null;
  let jobs: Job[] = [];
  let timer: ReturnType<typeof setTimeout> | null = null;
  let timerDueMs = Infinity;
  let isFlushing = false;
  let flushedAtMs = -Infinity;
  /** Whether the last group with anything in it was one effect alone: where there were several, more are to be expected. */
  let wasAlone = true;

  const flush = (): void => {
    const group = jobs;
    jobs = [];
    const outcomes: Outcome[] = [];
    isFlushing = true;
    flushedAtMs = now();
    if (group.length > 0) wasAlone = group.length === 1;
    try {
      for (const job of group) outcomes.push(outcomeOf(job, storage));
      // What was refused has written nothing, and is nothing to be woken for.
      beforeCommit?.(outcomes.filter((outcome) => "value" in outcome).length);
    } catch (error) {
      for (const job of group) job.settle({ error });
      onBroken(error);
      return;
    } finally {
      isFlushing = false;
    }
    for (const [index, job] of group.entries()) job.settle(outcomes[index]!);
  };

  const onTimer = (): void => {
    timer = null;
    timerDueMs = Infinity;
    flush();
  };

  const wake = (withinMs = 0): void => {
    const dueMs = now() + withinMs;
    if (timer !== null && timerDueMs <= dueMs) return;
    if (timer !== null) clearTimeout(timer);
    timerDueMs = dueMs;
    timer = setTimeout(onTimer, withinMs);
  };

  const add = <T>(isChecked: boolean, effect: () => T, withinMs: number): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      const settle: Job["settle"] = (outcome) =>
        "error" in outcome ? reject(outcome.error) : resolve(outcome.value as T);
      jobs.push({ isChecked, effect, settle });
      const nowMs = now();
      const isAlone = !isFlushing && wasAlone && timerDueMs > nowMs && nowMs - flushedAtMs >= LULL_MS;
      if (withinMs === 0 && isAlone) flush();
      else wake(withinMs);
    });

  return {
    wake,
    beforeCommit(hook) {
      beforeCommit = hook;
    },
    commit: <T>(effect: () => T, withinMs = 0) => add(false, effect, withinMs),
    commitChecked: <T>(effect: () => T, withinMs = 0) => add(true, effect, withinMs),
  };
}

/** @throws what an effect failed with, unless it refused: memory, and the disk if it was checked, may be half way. */
function outcomeOf({ isChecked, effect }: Job, storage: DurableObjectStorage): Outcome {
  try {
    return { value: isChecked ? effect() : storage.transactionSync(effect) };
  } catch (error) {
    if (!(error instanceof GateRefusal || error instanceof ProxyError)) throw error;
    return { error };
  }
}
