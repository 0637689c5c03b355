/** Works a store off: the first of each key at a time, several keys side by side, and wakes when the next is due. */

/** Keys that are worked on at once. */
const PARALLEL_MAX = 16;
/** After a failure of the store itself, such as a full disk. */
const STORE_RETRY_MS = 5_000;
/** Another process may have changed the store. */
const LOOK_EVERY_MS = 5_000;

/** What is worked off. */
export type WorkOptions<T> = {
  /** What is due, the first of each key that is not busy. */
  readonly due: (nowMs: number, busy: ReadonlySet<string>) => T[];
  readonly nextDueMs: (busy: ReadonlySet<string>) => number | null;
  readonly keyOf: (item: T) => string;
  /** Does one thing, and records in the store what came of it. */
  readonly work: (item: T) => Promise<void>;
  /** Called with what kept the store from being read or written. */
  readonly storeFailed: (error: unknown) => void;
  readonly now: () => number;
};

/** Work that goes on by itself. */
export type Work = {
  /** Looks now. */
  wake(): void;
  /** Begins nothing more; resolves when nothing is in progress. */
  stop(): Promise<void>;
};

/** @returns work that has not begun: the first `wake` begins it */
export function createWork<T>(options: WorkOptions<T>): Work {
  const busy = new Set<string>();
  const inProgress = new Set<Promise<void>>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isStopped = false;

  const sleep = (ms: number): void => {
    clearTimeout(timer);
    if (!isStopped) timer = setTimeout(look, Math.max(0, ms));
  };

  const begin = (item: T): void => {
    const key = options.keyOf(item);
    busy.add(key);
    const running = options
      .work(item)
      .catch((error: unknown) => {
        options.storeFailed(error);
        return new Promise<void>((resolve) => setTimeout(resolve, isStopped ? 0 : STORE_RETRY_MS));
      })
      .finally(() => {
        busy.delete(key);
        inProgress.delete(running);
        look();
      });
    inProgress.add(running);
  };

  function look(): void {
    if (isStopped) return;
    try {
      const room = PARALLEL_MAX - busy.size;
      if (room > 0) for (const item of options.due(options.now(), busy).slice(0, room)) begin(item);
      // With every hand full the next look is when one is free.
      const dueMs = busy.size < PARALLEL_MAX ? options.nextDueMs(busy) : null;
      sleep(Math.min(dueMs === null ? Infinity : dueMs - options.now(), LOOK_EVERY_MS));
    } catch (error) {
      options.storeFailed(error);
      sleep(STORE_RETRY_MS);
    }
  }

  return {
    wake: look,
    async stop() {
      isStopped = true;
      clearTimeout(timer);
      await Promise.allSettled(inProgress);
    },
  };
}
