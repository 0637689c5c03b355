/** How long to wait before trying again: doubled at each failure, with jitter, so that what failed together does not come together. */

/** How retries are spaced. */
export type Spacing = {
  /** After the first failure. */
  readonly initialMs: number;
  /** The longest step. */
  readonly maxMs: number;
  /** 0.2: a fifth of the step to both sides. `full`: from a tenth of the step up to the whole of it. */
  readonly jitterRatio: number | "full";
};

/**
 * @param failures how many attempts in a row have failed, from 1
 * @param random a number from 0 up to 1
 * @returns milliseconds
 */
export function backoffMs(failures: number, spacing: Spacing, random: number): number {
  const { initialMs, maxMs, jitterRatio } = spacing;
  const stepMs = Math.min(maxMs, initialMs * 2 ** Math.min(30, Math.max(0, failures - 1)));
  const share = jitterRatio === "full" ? 0.1 + 0.9 * random : 1 + jitterRatio * (2 * random - 1);
  return Math.round(stepMs * share);
}
