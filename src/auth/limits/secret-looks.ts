/**
 * How often a secret without a proof may cost a read of the database or a hop to a gate. A secret that was right a moment ago
 * is never refused for what others of its address guess; a new one from an address that guesses is looked at once a second.
 */
import type { Lockout } from "./lockout.ts";

export type SecretLooks = {
  /**
   * Asked before each look.
   *
   * @param secretHash base64url of the SHA-256 of the whole secret
   * @returns 0, and the look is counted; otherwise how long to wait, in milliseconds
   */
  waitMs(secretHash: string, address: string | null, nowMs: number): number;
  /** Records that the secret was right. */
  wasRight(secretHash: string, nowMs: number): void;
};

const WINDOW_MS = 60_000;
/** A locked address may have so many unknown secrets looked at in a minute. */
const LOOKS_WHILE_LOCKED = 60;
const RIGHT_FOR_MS = 600_000;
const ENTRIES_MAX = 8_192;

type Count = { sinceMs: number; count: number };

/**
 * @param perSecret looks at one secret in a minute; 0 for no limit. Twice what its gate lets through, so that calls for which the
 *        gate keeps a reserve reach it
 */
export function createSecretLooks(lockout: Lockout, perSecret: number): SecretLooks {
  const looks = new Map<string, Count>();
  const rightUntilMs = new Map<string, number>();

  /** Counts one more of this minute, or says how much of the minute is left. */
  function countOrWait(name: string, limit: number, nowMs: number): number {
    const known = looks.get(name);
    const isCurrent = known !== undefined && nowMs >= known.sinceMs && nowMs - known.sinceMs < WINDOW_MS;
    const count = isCurrent ? known : { sinceMs: nowMs, count: 0 };
    if (count.count >= limit) return Math.max(1, count.sinceMs + WINDOW_MS - nowMs);
    count.count += 1;
    keep(looks, name, count);
    return 0;
  }

  return {
    waitMs(secretHash, address, nowMs) {
      const isKnown = (rightUntilMs.get(secretHash) ?? 0) > nowMs;
      if (!isKnown && lockout.lockedMs(address, nowMs) > 0) {
        const waitMs = countOrWait(`address ${address}`, LOOKS_WHILE_LOCKED, nowMs);
        if (waitMs > 0) return waitMs;
      }
      return perSecret === 0 ? 0 : countOrWait(`secret ${secretHash}`, perSecret, nowMs);
    },
    wasRight: (secretHash, nowMs) => keep(rightUntilMs, secretHash, nowMs + RIGHT_FOR_MS),
  };
}

function keep<T>(entries: Map<string, T>, name: string, value: T): void {
  entries.delete(name);
  entries.set(name, value);
  const oldest = entries.keys().next().value;
  if (entries.size > ENTRIES_MAX && oldest !== undefined) entries.delete(oldest);
}
