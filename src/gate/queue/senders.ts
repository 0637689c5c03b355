/** What waits for an agent or is on its way to a socket, as memory mirrors it: a lane a sender, each in the order of its ids. */
import type { LaneEntry } from "./dispatch.ts";

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
    /** How many messages are on their way to each socket. */
    inFlight(): Map<string, number> {
      const load = new Map<string, number>();
      for (const { socketId } of entries.values()) {
        if (socketId !== null) load.set(socketId, (load.get(socketId) ?? 0) + 1);
      }
      return load;
    },

    /** When the first acknowledgement of a socket falls due; null when nothing is on its way there. */
    firstDueMs(socketId: string): number | null {
      let due = Infinity;
      for (const entry of entries.values()) if (entry.socketId === socketId) due = Math.min(due, entry.dueAtMs);
      return due === Infinity ? null : due;
    },

    /**
     * When something here falls due: a missing acknowledgement, a retry that a socket waits for, an expiry. What could go
     * by now and has not is held back by something on its way, and goes when that ends.
     */
    nextDueMs(ttlMs: number, hasSocket: boolean, nowMs: number): number | null {
      let due = Infinity;
      for (const lane of lanes.values()) {
        let isFirst = true;
        for (const entry of lane.entries) {
          if (entry.socketId !== null) {
            due = Math.min(due, entry.dueAtMs);
            continue;
          }
          due = Math.min(due, entry.createdAtMs + ttlMs);
          if (isFirst && hasSocket && entry.dueAtMs > nowMs) due = Math.min(due, entry.dueAtMs);
          isFirst = false;
        }
      }
      return due === Infinity ? null : due;
    },

    entries: (): Iterable<LaneEntry> => entries.values(),
    count: (): number => entries.size,
    bytes: (): number => bytes,
  };
}
