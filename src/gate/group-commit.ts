/**
 * Many effects, one commit. A Durable Object has no natural group commit: each event that writes pays its own fsync. Effects
 * wait here for the next turn of the event loop and are applied together, synchronously; the output gate then holds every
 * answer until that one commit is on disk.
 */

export type GroupCommit = {
  /**
   * Applies `effect` in the next group, each in a savepoint of its own: one that throws undoes itself alone.
   *
   * @param withinMs how long the effect may wait for company; 0 is the next turn.
   */
  commit<T>(effect: () => T, withinMs?: number): Promise<T>;
  /** Makes sure that a group is committed soon, though it may hold no effect: the hook does the work. */
  wake(withinMs?: number): void;
};

type Job = { effect: () => unknown; settle: (outcome: { value: unknown } | { error: unknown }) => void };

/**
 * @param beforeCommit runs once a group after its effects, in the same commit; told how many they were.
 * @param onBroken a fault in `beforeCommit` leaves memory and disk apart: the object must start anew.
 */
export function createGroupCommit(
  storage: DurableObjectStorage,
  beforeCommit: (effects: number) => void,
  onBroken: (error: unknown) => void,
): GroupCommit {
  let jobs: Job[] = [];
  let timer: ReturnType<typeof setTimeout> | null = null;
  let timerDueMs = Infinity;

  const flush = (): void => {
    timer = null;
    timerDueMs = Infinity;
    const group = jobs;
    jobs = [];
    const outcomes = group.map((job): { value: unknown } | { error: unknown } => {
      try {
        return { value: storage.transactionSync(job.effect) };
      } catch (error) {
        return { error };
      }
    });
    try {
      beforeCommit(group.length);
    } catch (error) {
      for (const job of group) job.settle({ error });
      onBroken(error);
      return;
    }
    for (const [index, job] of group.entries()) job.settle(outcomes[index]!);
  };

  const wake = (withinMs = 0): void => {
    const dueMs = Date.now() + withinMs;
    if (timer !== null && timerDueMs <= dueMs) return;
    if (timer !== null) clearTimeout(timer);
    timerDueMs = dueMs;
    timer = setTimeout(flush, withinMs);
  };

  return {
    wake,
    commit: <T>(effect: () => T, withinMs = 0) =>
      new Promise<T>((resolve, reject) => {
        jobs.push({ effect, settle: (outcome) => ("error" in outcome ? reject(outcome.error) : resolve(outcome.value as T)) });
        wake(withinMs);
      }),
  };
}
