/** What happened in a run, as its clients saw it: one line of JSON an event. Times are `performance.now()` of the driver, in milliseconds. */
import { createWriteStream, type WriteStream } from "node:fs";

/** Nothing came back: it may have happened or not. */
export type Outcome = number | "unknown";

export type HistoryEvent =
  /** One attempt at a message; `key` names the message, and the same signed bytes may be tried again under it. `wasKnown`: refused as a replay. */
  | {
      kind: "send";
      begunAtMs: number;
      atMs: number;
      key: string;
      sender: string;
      recipient: string;
      outcome: Outcome;
      deliveryId: string | null;
      wasKnown: boolean;
      /** The credential it was sent under, where that may end. */
      authority?: string;
    }
  /** A message came to its recipient, the first time or again; `isRefused`: and the recipient would not have it. */
  | {
      kind: "deliver";
      atMs: number;
      key: string;
      sender: string;
      recipient: string;
      deliveryId: string;
      isRefused: boolean;
      /** When the recipient began to open the socket that it came over, where that matters. */
      openedAtMs?: number;
    }
  /** What the proxy said became of a message: by a receipt, or asked for it. */
  | { kind: "ended"; atMs: number; deliveryId: string; state: "delivered" | "dead_lettered"; by: "receipt" | "asked" }
  /** A connector has acknowledged a message, and was killed: whether the message is on its disk, or with the program. */
  | { kind: "acknowledged"; atMs: number; deliveryId: string; isKept: boolean }
  /** When the run had no more patience, the proxy said that a message waits: it is there, and has not come. */
  | { kind: "waiting"; atMs: number; deliveryId: string }
  /** Signed bytes that had been accepted before, sent once more. */
  | { kind: "replay"; atMs: number; key: string; outcome: Outcome }
  /** A request that nobody may have accepted: forged, expired, outside its window. */
  | { kind: "forged"; atMs: number; what: string; outcome: Outcome }
  /** A message to all of a group was tried, whatever was answered: the keys of all that it comes to. */
  | { kind: "fanned"; atMs: number; keys: readonly string[] }
  /** An invalidation was answered with success. */
  | { kind: "invalidated"; begunAtMs: number; atMs: number; authority: string }
  /** An end was asked for with which waiting messages may die, whatever is answered. */
  | { kind: "cancelling"; atMs: number; authority: string }
  /** Something was tried under an authority. `boot` counts the starts of the program so far. */
  | { kind: "used"; begunAtMs: number; atMs: number; authority: string; via: string; accepted: boolean; boot: number }
  /** How much an ended authority has left in the store: read when its end was answered, and at the end of the run. */
  | { kind: "effects"; atMs: number; authority: string; moment: "ended" | "last"; count: number }
  | { kind: "boot"; atMs: number; boot: number }
  /** An answer that says that the program is broken, or that took longer than anything may. */
  | { kind: "fault"; atMs: number; what: string; status: number; detail: string }
  | { kind: "hang"; atMs: number; what: string; tookMs: number }
  /** A well-behaved sender was not accepted, where nothing but its neighbours was wrong. */
  | { kind: "refused"; atMs: number; key: string; outcome: Outcome }
  /** Something took longer than it may, or was not answered with success. */
  | { kind: "slow"; atMs: number; what: string; tookMs: number; limitMs: number; detail: string }
  /** A connection that ended without an answer, though nobody had broken anything. */
  | { kind: "cut"; atMs: number; what: string; detail: string }
  /** A recipient's program said what it made of a message; the first word on it. */
  | {
      kind: "verdict";
      atMs: number;
      deliveryId: string;
      sender: string;
      status: "handled" | "failed";
      outcome: Outcome;
    }
  /** What its sender was told of it: in the end, and `early` where it asked before, after which no receipt comes. */
  | { kind: "judged"; atMs: number; deliveryId: string; state: string; by: "receipt" | "asked" | "early" }
  /** A newcomer used an invite; `agentDid` where it was answered with one. */
  | { kind: "enrolled"; atMs: number; inviteId: string; agentDid: string | null; outcome: Outcome }
  /** What stands in the store of an invite at the end: who came by it, and who of them is an agent. */
  | {
      kind: "invite";
      atMs: number;
      inviteId: string;
      uses: number;
      usesLeft: number;
      came: string[];
      registered: string[];
    }
  /** A change to a task that was answered with success, or a deletion that was not answered. */
  | { kind: "task"; atMs: number; op: "create" | "delete" | "delete-unanswered"; taskId: string }
  /** What stands in the store at the end: tasks, and objects of type task that have an owner's tuple, or any. */
  | { kind: "stored"; atMs: number; tasks: string[]; owned: string[]; tupled: string[] };

export type History = {
  readonly events: HistoryEvent[];
  record(event: HistoryEvent): void;
  close(): Promise<void>;
};

/** @param file where the lines go, so that a run which fails can be looked at afterwards */
export function createHistory(file: string): History {
  const out: WriteStream = createWriteStream(file);
  const events: HistoryEvent[] = [];
  return {
    events,
    record(event) {
      events.push(event);
      out.write(`${JSON.stringify(event)}\n`);
    },
    close: () => new Promise((resolve) => out.end(resolve)),
  };
}
