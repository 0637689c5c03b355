/**
 * What the program keeps for hours or a day, kept for seconds, so that it expires within the run, and what it keeps by the
 * thousand, kept by the dozen. What is a setting is set; what is fixed is a constant in the bundle, and is changed there: the
 * code that forgets stays as it is.
 */
import { withConstants } from "../support/program/constants.ts";

/** Nonces: twice the window and a minute, by setting. */
export const SHORT_SETTINGS = {
  SKEW_MAX_SECONDS: "10",
  SKEW_WARN_SECONDS: "5",
  RELAY_QUEUE_TTL_MS: "30000",
  DEAD_LETTER_RETENTION_MS: "60000",
  RELAY_RETRY_INITIAL_MS: "100",
  RELAY_RETRY_MAX_MS: "1000",
};

/** Name of a constant → what it is here. */
const SHORT_CONSTANTS: Record<string, number> = {
  STATUS_RETENTION_MS: 30_000,
  RECEIPT_RETENTION_MS: 30_000,
  REPEAT_KNOWN_MS: 30_000,
  PRUNE_EVERY_MS: 10_000,
  HOUSEKEEPING_AFTER_MS: 10_000,
  // Memories that forget by number and not by time: they are full before anything is compared, where they took half an hour.
  NONCES_PER_GENERATION: 512,
  TOKENS_REMEMBERED: 32,
};

/** @throws Error for a constant that is not there any more: then this run would prove nothing */
export const withShortLives = (bundle: string): string => withConstants(bundle, SHORT_CONSTANTS);
