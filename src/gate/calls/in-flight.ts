/** Calls in flight, and waiting for those whose authority has ended. */

/** A revocation answers within this time, or says that it could not. Contract §5. */
export const DRAIN_TIMEOUT_MS = 5_000;

export type Calls = {
  /** Runs a call; it is in flight until it has settled. `ended` says whether its authority is over. */
  run<T>(ended: () => boolean, call: () => Promise<T>): Promise<T>;
  /** Calls in flight whose authority is over. */
  endedCount(): number;
  /** Waits until none of them is left; false when that takes too long. `except` is the caller's own call. */
  drain(): Promise<boolean>;
};

/** @returns the calls in flight of one gate, none at first */
export function createCalls(): Calls {
  const running = new Map<Promise<unknown>, () => boolean>();
  const endedCalls = (): Promise<unknown>[] => [...running].filter(([, ended]) => ended()).map(([call]) => call);

  return {
    async run(ended, call) {
      const settled = call();
      const tracked = settled.then(
        () => undefined,
        () => undefined,
      );
      running.set(tracked, ended);
      try {
        return await settled;
      } finally {
        running.delete(tracked);
      }
    },
    endedCount: () => endedCalls().length,
    async drain() {
      const calls = endedCalls();
      if (calls.length === 0) return true;
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = new Promise<false>((resolve) => {
        timer = setTimeout(() => resolve(false), DRAIN_TIMEOUT_MS);
      });
      const drained = Promise.allSettled(calls).then(() => true as const);
      try {
        return await Promise.race([drained, late]);
      } finally {
        clearTimeout(timer);
      }
    },
  };
}
