/** Where warnings of this folder go. The project's log fits. */
export type WarnLog = {
  warn(event: string, fields: Record<string, string | number | boolean | null | undefined>): void;
};

/**
 * Says that a dependency is being answered for by an older copy, with its age, at most once a minute, so that an outage
 * is seen without a line for every request.
 */
export type StaleWarning = {
  warn(log: WarnLog, ageMs: number, nowMs: number): void;
};

const WARN_EVERY_MS = 60_000;

/** @returns what warns of stale values, a line a minute with a count. @param dependency as the log names it */
export function createStaleWarning(dependency: string): StaleWarning {
  let warnedAtMs = Number.NEGATIVE_INFINITY;
  let suppressed = 0;
  return {
    warn(log, ageMs, nowMs) {
      if (nowMs - warnedAtMs < WARN_EVERY_MS) {
        suppressed += 1;
        return;
      }
      log.warn("dependency.served_stale", { dependency, ageMs, sinceLastWarning: suppressed });
      warnedAtMs = nowMs;
      suppressed = 0;
    },
  };
}
