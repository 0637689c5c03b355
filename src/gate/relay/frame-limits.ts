/**
 * What a frame may cost before it is parsed: each counts against the rate of its holder, whatever its type, and only those that
 * carry a message or a call may be long. Contract §4.
 */
import type { Holder } from "../../authority/holder.ts";
import { endsAuthority } from "../../rpc/permissions.ts";
import { type FramePeek, peekFrame } from "../../wire/frame-peek.ts";
import { isLongerThan } from "../../wire/frames.ts";
import type { Rate } from "../admission/rate-limit.ts";
import type { Session } from "./sockets.ts";

/** Bytes of a frame that is neither `enqueue` nor `req`. */
export const PLAIN_FRAME_BYTES_MAX = 4_096;
/** Longer ones are parsed one at a time, so that an end of their authority comes in between. */
export const QUEUED_FRAME_CHARACTERS = 16_384;
/** Frames of one holder that are refused by its rate in a minute; what comes then closes its socket. */
export const REFUSALS_MAX = 1_000;
const WINDOW_MS = 60_000;
/** A client may say so often that it is at work on what is in its hands. */
export const WORKING_EVERY_MS = 5_000;

const LONG_TYPES: readonly (string | null)[] = ["enqueue", "req", null];

/** What becomes of a frame. Where its start does not say what it is, `type` is null and the parsed frame decides. */
export type FrameVerdict =
  /** Parsed at once. */
  | { kind: "read"; peek: FramePeek }
  /** Parsed when its turn comes. */
  | { kind: "queue"; peek: FramePeek }
  /** Over the rate: answered by what its start says, and not parsed. */
  | { kind: "refuse"; peek: FramePeek; waitMs: number }
  /** Closes the socket with 1009. */
  | { kind: "too-long" }
  /** Far over the rate: closes the socket with 1013. */
  | { kind: "flood" };

export type FrameLimits = {
  /** Judges a frame of text and counts it. Looks at 4 KiB of it at most. */
  judge(session: Session, text: string): FrameVerdict;
  /** Counts a frame that is no text. @returns whether it is far over the rate */
  isBinaryFlood(session: Session): boolean;
  /** A message has been pushed to a holder: one acknowledgement of it costs nothing. */
  pushed(holder: Holder): void;
};

export type FrameLimitsDeps = {
  rate: Rate;
  /** How many messages are on their way to the sockets of a holder. */
  inHands: (holder: Holder) => number;
  /** The holders of the sockets that are open already, as after a waking. */
  holders: readonly Holder[];
  now: () => number;
};

type CountedWindow = { sinceMs: number; count: number };

/** @returns the limits of one gate's frames */
export function createFrameLimits({ rate, inHands, holders, now }: FrameLimitsDeps): FrameLimits {
  /** Acknowledgements that cost nothing, by holder; after a waking, as many as are on their way. */
  const acksLeft = new Map<Holder, number>(holders.map((holder) => [holder, inHands(holder)]));
  const working = new Map<Holder, CountedWindow>();
  const refusals = new Map<Holder, CountedWindow>();

  /** Counts one in a window of its own. @returns how many there are with it */
  const countIn = (windows: Map<Holder, CountedWindow>, holder: Holder, windowMs: number): number => {
    const nowMs = now();
    const known = windows.get(holder);
    if (known !== undefined && nowMs >= known.sinceMs && nowMs - known.sinceMs < windowMs) return (known.count += 1);
    windows.set(holder, { sinceMs: nowMs, count: 1 });
    return 1;
  };

  /** Whether a frame is the answer to what this gate has sent, and so has been counted as that. */
  const isFree = (holder: Holder, type: string | null): boolean => {
    if (type === "deliver_ack") {
      const left = acksLeft.get(holder) ?? 0;
      if (left > 0) acksLeft.set(holder, left - 1);
      return left > 0;
    }
    return type === "deliver_working" && countIn(working, holder, WORKING_EVERY_MS) <= inHands(holder);
  };

  /** Counts one frame. @returns milliseconds to wait when it is one too many, or 0 */
  const count = (holder: Holder, peek: FramePeek | null): number => {
    const counted = { holder, endsAuthority: peek?.type === "req" && endsAuthority(peek.method ?? "") };
    const waitMs = rate.waitMs(counted, now());
    if (waitMs === 0) rate.count(counted, now());
    return waitMs;
  };

  const isFlood = (holder: Holder): boolean => countIn(refusals, holder, WINDOW_MS) > REFUSALS_MAX;

  return {
    judge({ holder }, text) {
      const peek = peekFrame(text);
      const isLong = isLongerThan(text, PLAIN_FRAME_BYTES_MAX);
      if (!isLong && isFree(holder, peek.type)) return { kind: "read", peek };
      const waitMs = count(holder, peek);
      if (waitMs > 0) return isFlood(holder) ? { kind: "flood" } : { kind: "refuse", peek, waitMs };
      if (isLong && !LONG_TYPES.includes(peek.type)) return { kind: "too-long" };
      const isQueued = text.length > QUEUED_FRAME_CHARACTERS || (isLong && peek.type === null);
      return { kind: isQueued ? "queue" : "read", peek };
    },

    isBinaryFlood: ({ holder }) => count(holder, null) > 0 && isFlood(holder),

    pushed(holder) {
      acksLeft.set(holder, (acksLeft.get(holder) ?? 0) + 1);
    },
  };
}
