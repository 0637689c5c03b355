/** The time by the server's clock, as far as it is known and believed. */
import { ClockNotTrustedError } from "./errors.ts";

/**
 * How far ahead of the own clock a server may be. What is signed for later than that could be kept and used then, so it
 * takes a person to say that it is the own clock that is wrong.
 */
export const CLOCK_AHEAD_MAX_MS = 600_000;

/** The time to sign with. */
export type Clock = {
  /** Milliseconds since 1970, corrected. */
  readonly nowMs: () => number;
  /**
   * Takes over the server's time.
   *
   * @param serverNowMs as it stands in an answer
   * @param sentAtMs when its request was sent, by the own clock
   * @throws ClockNotTrustedError when that is more than {@link CLOCK_AHEAD_MAX_MS} ahead, and such a clock is not trusted
   */
  correct(serverNowMs: number, sentAtMs: number): void;
  /** Milliseconds that the server's clock is ahead of the own. */
  readonly offsetMs: () => number;
};

/** Which clocks are believed. */
export type ClockOptions = {
  /** The own clock, in milliseconds since 1970. */
  readonly now: () => number;
  /** Believes the server whatever it says. */
  readonly trustServer: boolean;
  /** Called with the new offset in milliseconds whenever the server's time is taken over. */
  readonly onCorrection: (offsetMs: number) => void;
};

/** @returns a clock that begins as the own one */
export function createClock({ now, trustServer, onCorrection }: ClockOptions): Clock {
  let offsetMs = 0;
  return {
    nowMs: () => now() + offsetMs,
    correct(serverNowMs, sentAtMs) {
      const arrivedAtMs = now();
      // The server looked at its clock somewhere between sending and now; the middle is off by half the way at most.
      const nextMs = Math.round(serverNowMs - (sentAtMs + arrivedAtMs) / 2);
      const surelyAheadMs = nextMs - Math.ceil((arrivedAtMs - sentAtMs) / 2);
      if (!trustServer && surelyAheadMs > CLOCK_AHEAD_MAX_MS) throw new ClockNotTrustedError(nextMs);
      offsetMs = nextMs;
      onCorrection(nextMs);
    },
    offsetMs: () => offsetMs,
  };
}
