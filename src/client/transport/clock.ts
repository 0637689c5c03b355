/** The time by the server's clock, as far as it is known. */

export type Clock = {
  /** Milliseconds since 1970, corrected. */
  readonly nowMs: () => number;
  /** Takes over the server's time, told in an answer to a request that was sent at `sentAtMs` by the own clock. */
  correct(serverNowMs: number, sentAtMs: number): void;
  /** Milliseconds that the server's clock is ahead of the own. */
  readonly offsetMs: () => number;
};

/** @param now the own clock, in milliseconds since 1970 */
export function createClock(now: () => number): Clock {
  let offsetMs = 0;
  return {
    nowMs: () => now() + offsetMs,
    correct(serverNowMs, sentAtMs) {
      // The server looked at its clock somewhere between sending and now; the middle is off by half the way at most.
      offsetMs = Math.round(serverNowMs - (sentAtMs + now()) / 2);
    },
    offsetMs: () => offsetMs,
  };
}
