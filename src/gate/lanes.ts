/** What waits for an agent or is on its way to a socket, as memory mirrors it: a lane a sender, each in the order of its ids. */
import type { LaneEntry } from "./pump.ts";

export type Lane = { entries: LaneEntry[]; bytes: number };

export type Lanes = ReturnType<typeof createLanes>;

export function createLanes() {
  const lanes = new Map<string, Lane>();
  const entries = new Map<string, LaneEntry>();
  let bytes = 0;

  return {
    insert(entry: LaneEntry): void {
      let lane = lanes.get(entry.lane);
      if (lane === undefined) lanes.set(entry.lane, (lane = { entries: [], bytes: 0 }));
      let at = lane.entries.length;
      while (at > 0 && lane.entries[at - 1]!.deliveryId > entry.deliveryId) at -= 1;
      lane.entries.splice(at, 0, entry);
      lane.bytes += entry.bytes;
      entries.set(entry.deliveryId, entry);
      bytes += entry.bytes;
    },

    remove(entry: LaneEntry): void {
      const lane = lanes.get(entry.lane);
      const index = lane?.entries.indexOf(entry) ?? -1;
      if (lane === undefined || index < 0) return;
      lane.entries.splice(index, 1);
      lane.bytes -= entry.bytes;
      if (lane.entries.length === 0) lanes.delete(entry.lane);
      entries.delete(entry.deliveryId);
      bytes -= entry.bytes;
    },

    find: (deliveryId: string): LaneEntry | undefined => entries.get(deliveryId),
    has: (deliveryId: string): boolean => entries.has(deliveryId),
    lane: (name: string): Lane | undefined => lanes.get(name),
    /** Those with something in them. */
    each: (): Iterable<Lane> => lanes.values(),
    some(test: (lane: Lane) => boolean): boolean {
      for (const lane of lanes.values()) if (test(lane)) return true;
      return false;
    },
    entries: (): Iterable<LaneEntry> => entries.values(),
    count: (): number => entries.size,
    bytes: (): number => bytes,
  };
}
