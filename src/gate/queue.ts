/**
 * The recipient's side of a delivery: what waits for this agent, what is on its way to a socket, and what could not be
 * delivered. A row a message; the order within one sender is the order of its ids. Memory mirrors the rows that still wait.
 */
import type { AgentDid } from "../wire/did.ts";
import { HELD_BYTES_MAX, type Envelope, type Outcome, type Parcel, retryDelayMs, type RetrySpacing } from "./delivery.ts";
import { chooseSocket, type LaneEntry, nextOfLane, type SocketLoad } from "./pump.ts";

const STATE = { queued: 0, delivered: 1, deadLettered: 2, purged: 3 } as const;

/** Contract §4: no acknowledgement within this time is a failed attempt. */
export const ACK_TIMEOUT_MS = 30_000;
/** What has been reported is kept a while longer, so that a hand-over that comes late is known for a repeat. */
const REPEAT_KNOWN_MS = 600_000;
const PRUNED_AT_ONCE = 2_000;
const DEAD_LETTERS_MAX = 1_000;
const SHARE_OF_ONE_SENDER = 5;
/** The proxy's own messages are few and bounded by what calls them; they have a lane beside the agents'. */
export const PROXY_LANE = "proxy";

export type QueueLimits = {
  queueMax: number;
  ttlMs: number;
  maxAttempts: number;
  retry: RetrySpacing;
  deadLetterRetentionMs: number;
};

export type Push = { socketId: string; deliveryId: string; envelope: Envelope; body: string };

export type DeadLetter = {
  id: string;
  deliveryId: string;
  fromAgentDid: AgentDid | null;
  reason: string;
  attempts: number;
  bytes: number;
  createdAtMs: number;
  deadAtMs: number;
  payload: unknown;
};

type QueueRow = {
  delivery_id: string;
  lane: string;
  state: number;
  bytes: number;
  created_at_ms: number;
  updated_at_ms: number;
  attempts: number;
  due_at_ms: number;
  socket_id: string | null;
  reason: string | null;
  reported: number;
};

const COLUMNS =
  "delivery_id, lane, state, bytes, created_at_ms, updated_at_ms, attempts, due_at_ms, socket_id, reason, reported";

export type Queue = ReturnType<typeof createQueue>;

export function createQueue(sql: SqlStorage, limits: QueueLimits) {
  /** Waiting and pushed messages a sender, in order. */
  const lanes = new Map<string, LaneEntry[]>();
  const unreported = new Map<string, Outcome[]>();
  const entries = new Map<string, LaneEntry>();
  let bytes = 0;

  const insert = (entry: LaneEntry): void => {
    let lane = lanes.get(entry.lane);
    if (lane === undefined) lanes.set(entry.lane, (lane = []));
    let at = lane.length;
    while (at > 0 && lane[at - 1]!.deliveryId > entry.deliveryId) at -= 1;
    lane.splice(at, 0, entry);
    entries.set(entry.deliveryId, entry);
    bytes += entry.bytes;
  };

  const remove = (entry: LaneEntry): void => {
    const lane = lanes.get(entry.lane);
    const index = lane?.indexOf(entry) ?? -1;
    if (lane === undefined || index < 0) return;
    lane.splice(index, 1);
    if (lane.length === 0) lanes.delete(entry.lane);
    entries.delete(entry.deliveryId);
    bytes -= entry.bytes;
  };

  const report = (lane: string, outcome: Outcome): void => {
    const list = unreported.get(lane);
    if (list === undefined) unreported.set(lane, [outcome]);
    else list.push(outcome);
  };

  for (const row of sql.exec<QueueRow>(`SELECT ${COLUMNS} FROM queue WHERE state = 0 OR reported = 0 ORDER BY delivery_id`)) {
    if (row.state === STATE.queued) insert(entryOf(row));
    else {
      const { delivery_id: deliveryId, reason, attempts } = row;
      report(row.lane, { deliveryId, delivered: row.state === STATE.delivered, reason, attempts });
    }
  }


  const end = (entry: LaneEntry, delivered: boolean, reason: string | null, nowMs: number): void => {
    remove(entry);
    const reported = entry.lane.startsWith("did:") ? 0 : 1;
    sql.exec(
      `UPDATE queue SET state = ?, reason = ?, attempts = ?, updated_at_ms = ?, socket_id = NULL, reported = ?${delivered ? ", body = NULL" : ""} WHERE delivery_id = ?`,
      delivered ? STATE.delivered : STATE.deadLettered,
      reason,
      entry.attempts,
      nowMs,
      reported,
      entry.deliveryId,
    );
    if (reported === 0) report(entry.lane, { deliveryId: entry.deliveryId, delivered, reason, attempts: entry.attempts });
    if (!delivered) dropOldestDeadLetters(sql);
  };

  /** One attempt has failed: the message waits, or its attempts are used up. */
  const fail = (entry: LaneEntry, nowMs: number): void => {
    entry.socketId = null;
    if (entry.attempts >= limits.maxAttempts) {
      end(entry, false, "attempts exhausted", nowMs);
      return;
    }
    entry.dueAtMs = nowMs + retryDelayMs(entry.attempts, limits.retry, Math.random());
    sql.exec("UPDATE queue SET socket_id = NULL, due_at_ms = ? WHERE delivery_id = ?", entry.dueAtMs, entry.deliveryId);
  };

  const put = (lane: string, parcel: Parcel, nowMs: number): LaneEntry => {
    sql.exec(
      `INSERT INTO queue (delivery_id, lane, state, bytes, created_at_ms, updated_at_ms, due_at_ms, envelope, body)
       VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?)`,
      parcel.deliveryId,
      lane,
      parcel.bytes,
      parcel.createdAtMs,
      nowMs,
      nowMs,
      parcel.envelope,
      parcel.body,
    );
    const { deliveryId, createdAtMs } = parcel;
    const entry: LaneEntry = { deliveryId, lane, bytes: parcel.bytes, createdAtMs, attempts: 0, dueAtMs: nowMs, socketId: null };
    insert(entry);
    return entry;
  };

  const isKnown = (deliveryId: string): boolean =>
    entries.has(deliveryId) ||
    sql.exec("SELECT 1 FROM queue WHERE delivery_id = ?", deliveryId).toArray().length > 0;

  return {
    /**
     * Takes what there is room for, from the start of a batch, so that the order stays.
     *
     * @param refusal why a message may not be delivered though it was accepted, or null
     */
    takeOver(from: AgentDid, parcels: readonly Parcel[], refusal: (parcel: Parcel) => string | null, nowMs: number): number {
      let taken = 0;
      for (const parcel of parcels) {
        if (!isKnown(parcel.deliveryId)) {
          const expired = parcel.createdAtMs + limits.ttlMs <= nowMs;
          const reason = expired ? "expired" : refusal(parcel);
          const share = Math.max(1, Math.floor(limits.queueMax / SHARE_OF_ONE_SENDER));
          const full = entries.size >= limits.queueMax || bytes + parcel.bytes > HELD_BYTES_MAX || (lanes.get(from)?.length ?? 0) >= share;
          if (reason === null && full) break;
          const entry = put(from, parcel, nowMs);
          if (reason !== null) end(entry, false, reason, nowMs);
        }
        taken += 1;
      }
      return taken;
    },

    /** A message of the proxy's own, or of someone who has no gate. Repeats change nothing. */
    putLocal(lane: string, parcel: Parcel, nowMs: number): void {
      if (!isKnown(parcel.deliveryId)) put(lane, parcel, nowMs);
    },

    /** Chooses what goes to which socket now, and writes the attempts down. The caller sends. */
    pump(sockets: readonly SocketLoad[], nowMs: number): Push[] {
      if (entries.size === 0 || sockets.length === 0) return [];
      const pushes: Push[] = [];
      let progress = true;
      while (progress) {
        progress = false;
        for (const lane of lanes.values()) {
          const entry = nextOfLane(lane, nowMs);
          const socket = entry === null ? null : chooseSocket(lane, sockets);
          if (entry === null || socket === null) continue;
          const row = sql
            .exec<{ envelope: string; body: string }>("SELECT envelope, body FROM queue WHERE delivery_id = ?", entry.deliveryId)
            .one();
          entry.attempts += 1;
          entry.socketId = socket.socketId;
          entry.dueAtMs = nowMs + ACK_TIMEOUT_MS;
          socket.inFlight += 1;
          sql.exec(
            "UPDATE queue SET socket_id = ?, attempts = ?, due_at_ms = ? WHERE delivery_id = ?",
            entry.socketId,
            entry.attempts,
            entry.dueAtMs,
            entry.deliveryId,
          );
          const envelope = JSON.parse(row.envelope) as Envelope;
          pushes.push({ socketId: socket.socketId, deliveryId: entry.deliveryId, envelope, body: row.body });
          progress = true;
        }
      }
      return pushes;
    },

    /** How many messages are on their way to each socket. */
    inFlight(): Map<string, number> {
      const load = new Map<string, number>();
      for (const lane of lanes.values()) {
        for (const { socketId } of lane) if (socketId !== null) load.set(socketId, (load.get(socketId) ?? 0) + 1);
      }
      return load;
    },

    /** The recipient's word on a message: delivered, or refused and dead at once. False for one that no longer waits. */
    acknowledge(deliveryId: string, accepted: boolean, reason: string | null, nowMs: number): boolean {
      const entry = entries.get(deliveryId);
      if (entry === undefined) return false;
      end(entry, accepted, accepted ? null : (reason ?? "refused by the recipient"), nowMs);
      return true;
    },

    /** A socket has gone: what was on its way to it has failed. */
    socketGone(socketId: string, nowMs: number): void {
      for (const lane of [...lanes.values()]) {
        for (const entry of lane.filter((candidate) => candidate.socketId === socketId)) fail(entry, nowMs);
      }
    },

    /** Fails what nobody acknowledged in time, or whose socket is not there any more; ends what waited too long. */
    expire(isOpen: (socketId: string) => boolean, nowMs: number): void {
      for (const lane of [...lanes.values()]) {
        for (const entry of [...lane]) {
          if (entry.socketId !== null && (entry.dueAtMs <= nowMs || !isOpen(entry.socketId))) fail(entry, nowMs);
          if (entry.socketId === null && entry.createdAtMs + limits.ttlMs <= nowMs) end(entry, false, "expired", nowMs);
        }
      }
    },

    /** When something here falls due: a missing acknowledgement, a retry that a socket waits for, an expiry. */
    nextDueMs(hasSocket: boolean): number | null {
      let due = Infinity;
      for (const lane of lanes.values()) {
        for (const entry of lane) {
          due = Math.min(due, entry.socketId === null ? entry.createdAtMs + limits.ttlMs : entry.dueAtMs);
        }
        const head = lane.find((entry) => entry.socketId === null);
        if (hasSocket && head !== undefined) due = Math.min(due, head.dueAtMs);
      }
      return due === Infinity ? null : due;
    },

    /** Dead-letters what a sender has waiting here unpushed. */
    endLane(lane: string, reason: string, nowMs: number): void {
      for (const entry of (lanes.get(lane) ?? []).filter((candidate) => candidate.socketId === null)) {
        end(entry, false, reason, nowMs);
      }
    },

    /** Dead-letters everything that still waits. */
    endAll(reason: string, nowMs: number): void {
      for (const lane of [...lanes.values()]) for (const entry of [...lane]) end(entry, false, reason, nowMs);
    },

    /** Senders whose gates are owed a report. */
    owedReports: (): AgentDid[] => [...unreported.keys()] as AgentDid[],

    /** What is owed to one of them. */
    reportsFor: (sender: AgentDid): Outcome[] => [...(unreported.get(sender) ?? [])],

    /** The sender's gate has them on disk. */
    reported(sender: AgentDid, outcomes: readonly Outcome[]): void {
      const told = new Set(outcomes);
      const rest = (unreported.get(sender) ?? []).filter((outcome) => !told.has(outcome));
      if (rest.length === 0) unreported.delete(sender);
      else unreported.set(sender, rest);
      for (const { deliveryId } of outcomes) sql.exec("UPDATE queue SET reported = 1 WHERE delivery_id = ?", deliveryId);
    },

    attempts: (deliveryId: string): number | null => entries.get(deliveryId)?.attempts ?? null,

    /** What could not be delivered, newest first. @param before an id of an earlier page, or null */
    deadLetters(before: string | null, limit: number): DeadLetter[] {
      return sql
        .exec<QueueRow & { envelope: string; body: string }>(
          `SELECT ${COLUMNS}, envelope, body FROM queue WHERE state = 2 AND (?1 IS NULL OR delivery_id < ?1) ORDER BY delivery_id DESC LIMIT ?2`,
          before,
          limit,
        )
        .toArray()
        .map((row) => ({
          id: row.delivery_id,
          deliveryId: row.delivery_id,
          fromAgentDid: (JSON.parse(row.envelope) as Envelope).fromAgentDid,
          reason: row.reason ?? "",
          attempts: row.attempts,
          bytes: row.bytes,
          createdAtMs: row.created_at_ms,
          deadAtMs: row.updated_at_ms,
          payload: JSON.parse(row.body) as unknown,
        }));
    },

    /** Puts a dead letter back into the queue with its attempts and its time begun anew; false when there is none. */
    replay(deliveryId: string, nowMs: number): boolean {
      const row = sql
        .exec<QueueRow>(`SELECT ${COLUMNS} FROM queue WHERE delivery_id = ? AND state = 2`, deliveryId)
        .toArray()[0];
      if (row === undefined) return false;
      sql.exec(
        "UPDATE queue SET state = 0, attempts = 0, reason = NULL, created_at_ms = ?1, updated_at_ms = ?1, due_at_ms = ?1, reported = 0 WHERE delivery_id = ?2",
        nowMs,
        deliveryId,
      );
      insert({ ...entryOf(row), attempts: 0, createdAtMs: nowMs, dueAtMs: nowMs, socketId: null });
      return true;
    },

    /** Throws a dead letter away; false when there is none. Its sender has its receipt, or gets it. */
    purge(deliveryId: string): boolean {
      return (
        sql.exec(
          "UPDATE queue SET state = ?, body = NULL WHERE delivery_id = ? AND state = 2",
          STATE.purged,
          deliveryId,
        ).rowsWritten > 0
      );
    },

    /** Forgets what has ended and been reported, and dead letters past their time. */
    prune(nowMs: number): void {
      sql.exec(
        `DELETE FROM queue WHERE delivery_id IN (
           SELECT delivery_id FROM queue WHERE reported = 1 AND state <> 2 AND updated_at_ms < ?1 LIMIT ?2)`,
        nowMs - REPEAT_KNOWN_MS,
        PRUNED_AT_ONCE,
      );
      sql.exec(
        "DELETE FROM queue WHERE state = 2 AND reported = 1 AND updated_at_ms < ?",
        nowMs - limits.deadLetterRetentionMs,
      );
    },

    /** When pruning is next worth waking for. */
    nextPruneMs(): number | null {
      const oldest = sql.exec<{ oldest: number | null }>(
        "SELECT MIN(updated_at_ms) AS oldest FROM queue WHERE reported = 1 AND state <> 2",
      ).one().oldest;
      return oldest === null ? null : oldest + REPEAT_KNOWN_MS;
    },
  };
}

function entryOf(row: QueueRow): LaneEntry {
  return {
    deliveryId: row.delivery_id,
    lane: row.lane,
    bytes: row.bytes,
    createdAtMs: row.created_at_ms,
    attempts: row.attempts,
    dueAtMs: row.due_at_ms,
    socketId: row.socket_id,
  };
}

/** Dead letters are bounded too; the oldest make room. */
function dropOldestDeadLetters(sql: SqlStorage): void {
  sql.exec(
    `DELETE FROM queue WHERE delivery_id IN (
       SELECT delivery_id FROM queue WHERE state = 2 AND reported = 1 ORDER BY delivery_id DESC LIMIT -1 OFFSET ?)`,
    DEAD_LETTERS_MAX,
  );
}
