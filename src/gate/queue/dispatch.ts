/** Which message goes next and to which socket. Decisions alone: no storage, no clock, no sockets. */

/** A message that waits, or is on its way to a socket. Sender queues are in order of `deliveryId`. */
export type QueueEntry = {
  readonly deliveryId: string;
  /** The sender's DID, or the name of a sender without a gate behind it. */
  readonly sender: string;
  /** Of its body. */
  readonly bytes: number;
  readonly createdAtMs: number;
  /** When it came into this queue. */
  readonly takenAtMs: number;
  /** Time in which it was not its own turn, and which does not count as waiting. */
  heldMs: number;
  attempts: number;
  /** Waiting: not before. Pushed: the attempt fails then; `Infinity` while an earlier one of its sender is on its way. */
  dueAtMs: number;
  /** The socket that it is on its way to; null while it waits. */
  socketId: string | null;
  /** Whose socket it was last pushed to: only that holder may acknowledge it. */
  holder: string | null;
  /** A request waits for the end of it; known once it has been pushed. */
  isAwaited: boolean;
};

/** A socket that takes deliveries. */
export type RelaySocket = {
  readonly socketId: string;
  /** The credential behind it, the same for each of its sockets. */
  readonly holder: string;
  /** When the last frame came from it; 0 for none since the gate woke. */
  readonly lastFrameMs: number;
};

const PULL_PREFIX = "pull:";

/** What a holder fetches over HTTP stands as one socket of its own beside those that are open. */
export function pullSocket(holder: string, nowMs: number): RelaySocket {
  return { socketId: PULL_PREFIX + holder, holder, lastFrameMs: nowMs };
}

/** @returns whether a socket is none, but stands for what a holder fetches */
export function isPullSocket(socketId: string): boolean {
  return socketId.startsWith(PULL_PREFIX);
}

/** A socket and what is on its way to it. */
export type SocketLoad = {
  readonly socketId: string;
  readonly holder: string;
  inFlight: number;
  inFlightBytes: number;
  /** Attempts that it has left unanswered since it last answered one. */
  readonly missed: number;
  /** It left an attempt unanswered and has sent no frame since: it is tried with one message in all. */
  readonly isSilent: boolean;
};

/** Messages of one sender on their way at once. */
export const SENDER_WINDOW = 32;
/** Messages on their way to one socket at once, */
export const SOCKET_WINDOW = 128;
/** and bytes of their bodies; one message goes always. */
export const SOCKET_BYTES_WINDOW = 8 * 1_048_576;
/** Bytes of bodies on their way to all sockets of a gate together; one message goes always. */
export const GATE_BYTES_WINDOW = 32 * 1_048_576;
/** Bytes of bodies that are read and sent in one turn; one message goes always, and the rest in the next. */
export const PUMP_BYTES_MAX = 4 * 1_048_576;

/**
 * The next message of one sender: the first that waits, if it is due. One that waits for its retry holds back those behind
 * it; other senders go on.
 *
 * @param entries one sender's queue
 * @returns null when none may go now
 */
export function nextOfSender(entries: readonly QueueEntry[], nowMs: number): QueueEntry | null {
  let pushed = 0;
  let first: QueueEntry | null = null;
  for (const entry of entries) {
    if (entry.socketId === null) first ??= entry;
    // One that came back before those behind it, as a replayed dead letter does, waits until these have ended.
    else if (first !== null) return null;
    else pushed += 1;
  }
  return first === null || first.dueAtMs > nowMs || pushed >= SENDER_WINDOW ? null : first;
}

/**
 * The socket for the next message of a sender: while some of it are on their way, the same one, since order holds within one
 * connection alone; else the one that answers best, and of those the least loaded. One that has left an attempt unanswered is
 * tried with one message of a sender at a time, and one that shows no life with one in all.
 *
 * @param entries the sender's queue
 * @param bytes of the message's body
 * @returns null when there is no room
 */
export function chooseSocket(
  entries: readonly QueueEntry[],
  sockets: readonly SocketLoad[],
  bytes: number,
): SocketLoad | null {
  const current = entries.find((entry) => entry.socketId !== null)?.socketId;
  if (current !== undefined) {
    const socket = sockets.find(({ socketId }) => socketId === current);
    return socket === undefined || socket.missed > 0 || !hasRoom(socket, bytes) ? null : socket;
  }
  let chosen: SocketLoad | null = null;
  for (const socket of sockets) {
    if (hasRoom(socket, bytes) && (chosen === null || isBetter(socket, chosen))) chosen = socket;
  }
  return chosen;
}

function hasRoom({ isSilent, inFlight, inFlightBytes }: SocketLoad, bytes: number): boolean {
  if (inFlight >= (isSilent ? 1 : SOCKET_WINDOW)) return false;
  return inFlight === 0 || inFlightBytes + bytes <= SOCKET_BYTES_WINDOW;
}

function isBetter(one: SocketLoad, other: SocketLoad): boolean {
  return one.missed === other.missed ? one.inFlight < other.inFlight : one.missed < other.missed;
}
