/** How the pauses between attempts grow. */
export type Backoff = { initialMs: number; maxMs: number };

/**
 * The pause before attempt `attempt + 1` after `attempt` failures, with full jitter: anywhere between nothing and the
 * doubled ceiling, so that clients which failed together do not come back together.
 *
 * @param attempt failures so far, from 1
 * @param random in [0, 1)
 * @returns whole milliseconds
 */
export function fullJitterDelayMs(attempt: number, backoff: Backoff, random: number): number {
  return Math.floor(random * (ceilingMs(attempt, backoff) + 1));
}

function ceilingMs(attempt: number, { initialMs, maxMs }: Backoff): number {
  // Beyond 2^30 the product says nothing new, and an infinite one would be no number.
  const doublings = Math.min(Math.max(0, attempt - 1), 30);
  return Math.min(maxMs, initialMs * 2 ** doublings);
}

/**
 * Reads `Retry-After` (RFC 9110 §10.2.3): whole seconds or an HTTP date.
 *
 * @returns milliseconds from `nowMs`, never negative; undefined when absent or not understood
 */
export function parseRetryAfterMs(header: string | null, nowMs: number): number | undefined {
  if (header === null) return undefined;
  const text = header.trim();
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1_000;
  if (!/^[A-Z][a-z]{2,8},? /.test(text)) return undefined;
  const atMs = Date.parse(text);
  return Number.isNaN(atMs) ? undefined : Math.max(0, atMs - nowMs);
}
