/**
 * What the program keeps for hours or a day, kept for seconds, so that it expires within the run. What is a setting is set;
 * what is fixed by the contract is a constant in the bundle, and is changed there: the code that forgets stays as it is.
 */

/** Nonces: twice the window and a minute, by setting. */
export const SHORT_SETTINGS = {
  SKEW_MAX_SECONDS: "10",
  SKEW_WARN_SECONDS: "5",
  RELAY_QUEUE_TTL_MS: "30000",
  DEAD_LETTER_RETENTION_MS: "60000",
  RELAY_RETRY_INITIAL_MS: "100",
  RELAY_RETRY_MAX_MS: "1000",
};

/** Name of a constant → milliseconds; each stands in the gate's code as `NAME = <number>`. */
const SHORT_CONSTANTS: Record<string, number> = {
  STATUS_KEPT_MS: 30_000,
  RECEIPTS_KEPT_MS: 30_000,
  REPEAT_KNOWN_MS: 30_000,
  PRUNE_EVERY_MS: 10_000,
  HOUSEKEEPING_AFTER_MS: 10_000,
};

/** @throws Error for a constant that is not there any more: then this run would prove nothing */
export function withShortLives(bundle: string): string {
  let edited = bundle;
  for (const [name, ms] of Object.entries(SHORT_CONSTANTS)) {
    // A bundler may number names that occur in several files.
    const declaration = new RegExp(`\\b(${name}\\d*) = [0-9_e* ]+;`, "g");
    if (!declaration.test(edited)) throw new Error(`the bundle has no constant ${name}`);
    edited = edited.replace(declaration, `$1 = ${ms};`);
  }
  return edited;
}
