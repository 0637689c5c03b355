/** Which message goes next and to which socket. Decisions alone: no storage, no clock, no sockets. */

/** A message that waits, or is on its way to a socket. Lanes are in order of `deliveryId`. */
export type LaneEntry = {
  deliveryId: string;
  /** The sender's DID, or the name of a lane without a gate behind it. */
  lane: string;
  bytes: number;
  createdAtMs: number;
  attempts: number;
  /** Waiting: not before. Pushed: no acknowledgement by then is a failed attempt. */
  dueAtMs: number;
  /** The socket it was pushed to; null while it waits. */
  socketId: string | null;
  /** Somebody waits for the end of it; known once it has been pushed. */
  isAwaited: boolean;
};

export type SocketLoad = { socketId: string; inFlight: number };

/** @property missed attempts that it has left unanswered since it last answered one */
export type RatedSocket = SocketLoad & { missed: number };

/** Messages of one sender on their way at once. */
export const LANE_WINDOW = 32;
/** Messages on their way to one socket at once. */
export const SOCKET_WINDOW = 128;

/**
 * The next message of one sender: the first that waits, if it is due. One that waits for its retry holds back those behind
 * it, and waits in turn for those behind it that are still on their way, so that the order stays; other senders go on.
 */
export function nextOfLane(lane: readonly LaneEntry[], nowMs: number): LaneEntry | null {
  let pushed = 0;
  let first: LaneEntry | null = null;
  for (const entry of lane) {
    if (entry.socketId === null) first ??= entry;
    else if (first !== null) return null;
    else pushed += 1;
  }
  return first === null || first.dueAtMs > nowMs || pushed >= LANE_WINDOW ? null : first;
}

/**
 * The socket for the next message of a lane: while some of the lane are on their way, the same one, since order holds
 * within one connection alone; else the one that answers best, and of those the least loaded. Null when there is no room.
 */
export function chooseSocket(lane: readonly LaneEntry[], sockets: readonly RatedSocket[]): RatedSocket | null {
  const current = lane.find((entry) => entry.socketId !== null)?.socketId;
  if (current !== undefined) {
    const socket = sockets.find(({ socketId }) => socketId === current);
    return socket === undefined || socket.inFlight >= SOCKET_WINDOW ? null : socket;
  }
  let chosen: RatedSocket | null = null;
  for (const socket of sockets) {
    if (socket.inFlight < SOCKET_WINDOW && (chosen === null || isBetter(socket, chosen))) chosen = socket;
  }
  return chosen;
}

function isBetter(one: RatedSocket, other: RatedSocket): boolean {
  return one.missed === other.missed ? one.inFlight < other.inFlight : one.missed < other.missed;
}
