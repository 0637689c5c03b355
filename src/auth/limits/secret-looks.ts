/**
 * How often a secret without a proof may cost a read of the database or a hop to a gate. A secret that was right a moment ago
 * is never refused for what others of its address guess; a new one from an address that guesses is looked at once a second.
 */
import type { Lockout } from "./lockout.ts";
import { createRateWindow } from "./rate-window.ts";

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

/** A locked address may have so many unknown secrets looked at in a minute. */
const LOOKS_WHILE_LOCKED = 60;
const RIGHT_FOR_MS = 600_000;
const RIGHT_MAX = 8_192;

/**
 * @param perSecret looks at one secret in a minute; 0 for no limit. Twice what its gate lets through, so that calls for which the
 *        gate keeps a reserve reach it
 */
export function createSecretLooks(lockout: Lockout, perSecret: number): SecretLooks {
  const ofSecret = createRateWindow(perSecret);
  const ofLockedAddress = createRateWindow(LOOKS_WHILE_LOCKED);
  const rightUntilMs = new Map<string, number>();

  return {
    waitMs(secretHash, address, nowMs) {
      const isKnown = (rightUntilMs.get(secretHash) ?? 0) > nowMs;
      if (!isKnown && lockout.lockedMs(address, nowMs) > 0) {
        const waitMs = ofLockedAddress.waitMs(address ?? "unknown", nowMs);
        if (waitMs > 0) return waitMs;
      }
      return ofSecret.waitMs(secretHash, nowMs);
    },
    wasRight(secretHash, nowMs) {
      rightUntilMs.delete(secretHash);
      rightUntilMs.set(secretHash, nowMs + RIGHT_FOR_MS);
      const oldest = rightUntilMs.keys().next().value;
      if (rightUntilMs.size > RIGHT_MAX && oldest !== undefined) rightUntilMs.delete(oldest);
    },
  };
}
