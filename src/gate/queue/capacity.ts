/** What a queue holds at most, and what one sender may have of it. Contract §6. Decisions alone. */
import { HELD_BYTES_MAX } from "../protocol/transfer.ts";

/** One sender has at most this part of a queue, in messages and in bytes. */
const SHARE_OF_ONE_SENDER = 5;

/** Messages and bytes of their bodies. */
export type Usage = { readonly count: number; readonly bytes: number };

export const NOTHING: Usage = { count: 0, bytes: 0 };

/** @returns whether `more` bytes in one more message would exceed what the whole queue holds. */
export function exceedsQueue(used: Usage, more: number, queueMax: number): boolean {
  return used.count >= queueMax || used.bytes + more > HELD_BYTES_MAX;
}

/** @returns whether one more message of `more` bytes would exceed its sender's share: a fifth, at least one message. */
export function exceedsShare(used: Usage, more: number, queueMax: number): boolean {
  if (used.count === 0) return false;
  return (
    used.count >= Math.floor(queueMax / SHARE_OF_ONE_SENDER) || used.bytes + more > HELD_BYTES_MAX / SHARE_OF_ONE_SENDER
  );
}

/** @returns both added up. */
export function plus(one: Usage, other: Usage): Usage {
  return { count: one.count + other.count, bytes: one.bytes + other.bytes };
}
