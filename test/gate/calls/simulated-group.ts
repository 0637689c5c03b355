/**
 * The one group of a simulated world, as D1 has it: whether the agent is in it, and its epoch. Each stay is a credential of its own in
 * the history, which an end of `group` ends.
 */
import { newGroupId } from "../../../src/wire/group-id.ts";
import type { Event } from "./revocation-checker.ts";

export const GROUP = newGroupId(0);

export function createSimulatedGroup(history: Event[]) {
  let epoch = 0;
  /** Since which epoch, and until which, the agent was in it. */
  const stays: { from: number; until: number }[] = [];
  const isIn = (): boolean => stays.at(-1)?.until === Infinity;
  return {
    epoch: () => epoch,
    isIn,
    /** The agent comes; without effect where it is there. @param askedAt the place in the history at which that was asked for */
    join(askedAt: number): void {
      if (isIn()) return;
      epoch += 1;
      stays.push({ from: epoch, until: Infinity });
      history.push({ kind: "issued", credential: `stay ${stays.length}`, targets: ["group"], askedAt });
    },
    /** The agent goes, or has gone before. @returns below which epoch it is out */
    leave(): number {
      const stay = stays.at(-1);
      if (stay !== undefined && stay.until === Infinity) stay.until = epoch += 1;
      return stay?.until ?? epoch;
    },
    /** The newest epoch of a list that has the agent on it, as somebody may remember it. */
    lastSeen: () => Math.min(epoch, (stays.at(-1)?.until ?? Infinity) - 1),
    /** The stay that a list of this epoch shows. */
    stayAt(at: number): string {
      const index = stays.findIndex(({ from, until }) => from <= at && at < until);
      return index === -1 ? `nobody at epoch ${at}` : `stay ${index + 1}`;
    },
  };
}
