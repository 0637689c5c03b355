/**
 * Long frames that wait to be parsed. A MiB of JSON can cost a tenth of a second, and a burst of them must not keep the gate from
 * ending the authority that sends them: they are parsed one at a time, with other events in between, and few are held.
 */
import { AGENT_HOLDER, type Holder } from "../../authority/holder.ts";

/** Characters of long frames that a gate holds, parsed or not, until they are answered; one holder beside the agent, half. */
export const LONG_FRAMES_HELD_MAX = 32 * 1_048_576;

/** The place of one frame. */
export type Place = {
  /** Resolves in a turn of the event loop in which no other long frame is parsed. */
  turn(): Promise<void>;
  /** Gives the place back; once. */
  leave(): void;
};

export type LongFrames = {
  /** @returns a place for a frame of so many characters, or null while too much is held */
  enter(holder: Holder, length: number): Place | null;
};

/** @returns the long frames of one gate. */
export function createLongFrames(): LongFrames {
  const held = new Map<Holder, number>();
  let total = 0;
  let last = Promise.resolve();

  const add = (holder: Holder, length: number): void => {
    const own = (held.get(holder) ?? 0) + length;
    total += length;
    if (own === 0) held.delete(holder);
    else held.set(holder, own);
  };

  return {
    enter(holder, length) {
      const most = holder === AGENT_HOLDER ? LONG_FRAMES_HELD_MAX : LONG_FRAMES_HELD_MAX / 2;
      const own = held.get(holder) ?? 0;
      if (total > 0 && (total + length > LONG_FRAMES_HELD_MAX || own + length > most)) return null;
      add(holder, length);
      return {
        turn() {
          last = last.then(() => new Promise((resolve) => setTimeout(resolve, 0)));
          return last;
        },
        leave: () => add(holder, -length),
      };
    },
  };
}
