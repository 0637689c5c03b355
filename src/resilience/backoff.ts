/** How long to wait before coming back: exponential, with full jitter, so that a thousand clients do not come at once. */

export type BackoffOptions = { readonly initialMs: number; readonly maxMs: number };

/**
 * @param attempt 0 for the first attempt after a success
 * @param random from 0 up to 1
 * @returns milliseconds, from a tenth of the step up to the whole step
 */
export function backoffMs(attempt: number, random: number, options: BackoffOptions): number {
  const stepMs = Math.min(options.maxMs, options.initialMs * 2 ** Math.min(attempt, 30));
  return Math.round(stepMs * (0.1 + 0.9 * random));
}

/** How retries are spaced. */
export type RetrySpacing = { initialMs: number; maxMs: number; jitterRatio: number };

/**
 * Doubling from the initial delay up to the longest, with jitter to both sides.
 *
 * @param failures how many attempts have failed so far, from 1
 * @param random a number from 0 up to 1
 */
export function retryDelayMs(failures: number, spacing: RetrySpacing, random: number): number {
  const plain = Math.min(spacing.maxMs, spacing.initialMs * 2 ** Math.min(30, Math.max(0, failures - 1)));
  return Math.round(plain * (1 + spacing.jitterRatio * (2 * random - 1)));
}
