/** Keeps what a caller can cause at will from filling the log: one line a minute for each thing, with a count of the others. */

/** Asked before an event is logged. */
export type LogLimit = {
  /**
   * @param key what is limited by itself: an event, an address, an agent; no secret
   * @returns how many times since its last line this was left out, for the line that is due now; null where none is due
   */
  due(key: string, nowMs: number): number | null;
};

export const LOG_EVERY_MS = 60_000;
/** Beyond so many keys the one whose line is oldest goes, and is due again at once. */
const KEYS_MAX = 1_000;

/** In memory, one for each isolate: a bound on noise, not a count of what happened, which is what the metrics are for. */
export function createLogLimit(everyMs: number = LOG_EVERY_MS, keysMax: number = KEYS_MAX): LogLimit {
  const lines = new Map<string, { atMs: number; leftOut: number }>();
  return {
    due(key, nowMs) {
      const last = lines.get(key);
      // A clock that was set back does not silence it.
      if (last !== undefined && nowMs >= last.atMs && nowMs - last.atMs < everyMs) {
        last.leftOut += 1;
        return null;
      }
      lines.delete(key);
      lines.set(key, { atMs: nowMs, leftOut: 0 });
      const oldest = lines.keys().next().value;
      if (lines.size > keysMax && oldest !== undefined) lines.delete(oldest);
      return last?.leftOut ?? 0;
    },
  };
}
