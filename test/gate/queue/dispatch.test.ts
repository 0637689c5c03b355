import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import {
  chooseSocket,
  SENDER_WINDOW,
  type QueueEntry,
  nextOfSender,
  type SocketLoad,
  SOCKET_BYTES_WINDOW,
  SOCKET_WINDOW,
} from "../../../src/gate/queue/dispatch.ts";

const entry = (n: number, over: Partial<QueueEntry> = {}): QueueEntry => ({
  deliveryId: String(n).padStart(4, "0"),
  sender: "did:a",
  bytes: 1,
  createdAtMs: 0,
  takenAtMs: 0,
  heldMs: 0,
  attempts: 0,
  dueAtMs: 0,
  socketId: null,
  holder: null,
  isAwaited: false,
  ...over,
});
const pushed = (n: number, socketId: string): QueueEntry => entry(n, { socketId, attempts: 1, dueAtMs: 30_000 });
const socket = (socketId: string, inFlight = 0, missed = 0, over: Partial<SocketLoad> = {}): SocketLoad => ({
  socketId,
  holder: "agent",
  inFlight,
  inFlightBytes: inFlight,
  missed,
  isSilent: false,
  ...over,
});

describe("the next message of one sender", () => {
  test.each<[string, QueueEntry[], string | null]>([
    ["none of an empty queue", [], null],
    ["the first that waits", [entry(1), entry(2)], "0001"],
    ["the one behind those on their way", [pushed(1, "s"), entry(2), entry(3)], "0002"],
    ["none while the first waits for its retry", [entry(1, { dueAtMs: 101, attempts: 1 }), entry(2)], null],
    ["the retry when it is due", [entry(1, { dueAtMs: 100, attempts: 1 }), entry(2)], "0001"],
    ["none before those that overtook it have ended", [entry(1, { attempts: 1 }), pushed(2, "s")], null],
    [
      "none when the window is full",
      [...Array.from({ length: SENDER_WINDOW }, (_, n) => pushed(n, "s")), entry(99)],
      null,
    ],
    [
      "the last of the window",
      [...Array.from({ length: SENDER_WINDOW - 1 }, (_, n) => pushed(n, "s")), entry(99)],
      "0099",
    ],
  ])("is %s", (_, sender, expected) => {
    expect(nextOfSender(sender, 100)?.deliveryId ?? null).toBe(expected);
  });
});

describe("the socket for a message", () => {
  test.each<[string, QueueEntry[], SocketLoad[], string | null]>([
    ["none where none is open", [entry(1)], [], null],
    ["the least loaded", [entry(1)], [socket("a", 2), socket("b", 1), socket("c", 3)], "b"],
    ["the one that the sender is on", [pushed(1, "a"), entry(2)], [socket("a", 9), socket("b")], "a"],
    [
      "none while the one that the sender is on is full",
      [pushed(1, "a"), entry(2)],
      [socket("a", SOCKET_WINDOW), socket("b")],
      null,
    ],
    ["none while the one that the sender is on is gone", [pushed(1, "gone"), entry(2)], [socket("b")], null],
    ["none where all are full", [entry(1)], [socket("a", SOCKET_WINDOW)], null],
    ["rather a busy one than one that does not answer", [entry(1)], [socket("dead", 0, 1), socket("b", 50)], "b"],
    ["one that does not answer where there is no other", [entry(1)], [socket("slow", 0, 3)], "slow"],
    ["one that shows no life, for one message", [entry(1)], [socket("dead", 0, 3, { isSilent: true })], "dead"],
    ["none that shows no life, for another", [entry(1)], [socket("dead", 1, 3, { isSilent: true })], null],
    ["one at a time of a sender where one did not answer", [pushed(1, "slow"), entry(2)], [socket("slow", 1, 1)], null],
    [
      "none with no room in bytes",
      [entry(1, { bytes: 2 })],
      [socket("full", 1, 0, { inFlightBytes: SOCKET_BYTES_WINDOW - 1 })],
      null,
    ],
    [
      "one that holds nothing, however large the message",
      [entry(1, { bytes: 2 * SOCKET_BYTES_WINDOW })],
      [socket("a")],
      "a",
    ],
  ])("is %s", (_, sender, sockets, expected) => {
    expect(chooseSocket(sender, sockets, sender[sender.length - 1]?.bytes ?? 0)?.socketId ?? null).toBe(expected);
  });
});

/** What can happen to a queue, as fast-check draws it. */
type Event =
  | { kind: "arrive"; sender: number }
  | { kind: "pump" }
  | { kind: "acknowledge"; nth: number }
  | { kind: "time out"; nth: number }
  | { kind: "close"; socket: number }
  | { kind: "pass" };

const event = fc.oneof<fc.Arbitrary<Event>[]>(
  fc.record({ kind: fc.constant("arrive" as const), sender: fc.nat({ max: 3 }) }),
  fc.record({ kind: fc.constant("pump" as const) }),
  fc.record({ kind: fc.constant("acknowledge" as const), nth: fc.nat({ max: 50 }) }),
  fc.record({ kind: fc.constant("time out" as const), nth: fc.nat({ max: 50 }) }),
  fc.record({ kind: fc.constant("close" as const), socket: fc.nat({ max: 2 }) }),
  fc.record({ kind: fc.constant("pass" as const) }),
);

/** A queue in memory alone, driven by the two decisions as the gate drives them. */
class Model {
  nowMs = 0;
  serial = 0;
  senders = new Map<string, QueueEntry[]>();
  missed = new Map<string, number>();
  /** Where those before and behind it were when each went. */
  pushes: { deliveryId: string; socketId: string; ahead: (string | null)[]; behind: (string | null)[] }[] = [];

  all(): QueueEntry[] {
    return [...this.senders.values()].flat();
  }

  pump(sockets: string[]): QueueEntry[] {
    const loads = sockets.map((id) =>
      socket(id, this.all().filter(({ socketId }) => socketId === id).length, this.missed.get(id)),
    );
    const went: QueueEntry[] = [];
    for (let progress = true; progress;) {
      progress = false;
      for (const sender of this.senders.values()) {
        const next = nextOfSender(sender, this.nowMs);
        const load = next === null ? null : chooseSocket(sender, loads, next.bytes);
        if (next === null || load === null) continue;
        const at = sender.indexOf(next);
        const whereabouts = sender.map(({ socketId }) => socketId);
        const { deliveryId } = next;
        this.pushes.push({
          deliveryId,
          socketId: load.socketId,
          ahead: whereabouts.slice(0, at),
          behind: whereabouts.slice(at + 1),
        });
        next.socketId = load.socketId;
        next.attempts += 1;
        next.dueAtMs = this.nowMs + 30_000;
        load.inFlight += 1;
        went.push(next);
        progress = true;
      }
    }
    return went;
  }

  /** What is behind a message that is to be retried comes again after it. */
  fail(one: QueueEntry): void {
    const sender = this.senders.get(one.sender) ?? [];
    for (const later of sender.slice(sender.indexOf(one))) {
      later.socketId = null;
      later.dueAtMs = this.nowMs;
    }
    one.dueAtMs = this.nowMs + 1_000;
  }

  end(one: QueueEntry): void {
    const sender = this.senders.get(one.sender) ?? [];
    sender.splice(sender.indexOf(one), 1);
  }

  apply(happened: Event): void {
    const onTheirWay = this.all().filter(({ socketId }) => socketId !== null);
    switch (happened.kind) {
      case "arrive": {
        const sender = `did:${happened.sender}`;
        this.senders.set(sender, [
          ...(this.senders.get(sender) ?? []),
          entry((this.serial += 1), { sender, dueAtMs: this.nowMs }),
        ]);
        return;
      }
      case "pump":
        this.pump(["s0", "s1", "s2"]);
        return;
      case "acknowledge": {
        const one = onTheirWay[happened.nth];
        if (one !== undefined) this.end(one);
        return;
      }
      case "time out": {
        const one = onTheirWay[happened.nth];
        if (one === undefined) return;
        this.missed.set(one.socketId ?? "", (this.missed.get(one.socketId ?? "") ?? 0) + 1);
        this.fail(one);
        return;
      }
      case "close":
        for (const one of onTheirWay) if (one.socketId === `s${happened.socket}`) this.fail(one);
        return;
      case "pass":
        this.nowMs += 400;
    }
  }
}

describe("whatever happens to the sockets", () => {
  property.prop([fc.array(event, { maxLength: 120 })])(
    "a message goes only when all of its sender before it are on their way on the same socket, and none behind it is",
    (events) => {
      const model = new Model();
      for (const each of events) {
        model.apply(each);
        for (const { deliveryId, socketId, ahead, behind } of model.pushes.splice(0)) {
          expect(ahead, deliveryId).toEqual(ahead.map(() => socketId));
          expect(behind, deliveryId).toEqual(behind.map(() => null));
        }
      }
    },
  );

  property.prop([fc.array(event, { maxLength: 120 })])(
    "no sender starves: with time and an open socket that answers, everything is delivered, each sender's in order",
    (events) => {
      const model = new Model();
      for (const each of events) model.apply(each);
      for (const one of model.all()) if (one.socketId !== null) model.fail(one);
      const delivered = new Map<string, string[]>();
      const left = model.all().length;
      for (let round = 0; round <= left; round++) {
        model.nowMs += 30_000;
        for (const one of model.pump(["s0"])) {
          delivered.set(one.sender, [...(delivered.get(one.sender) ?? []), one.deliveryId]);
          model.end(one);
        }
      }
      expect(model.all()).toEqual([]);
      for (const ids of delivered.values()) expect(ids).toEqual(ids.toSorted());
    },
  );

  property.prop([fc.nat({ max: 40 }), fc.nat({ max: 40 })])(
    "a sender whose message waits for its retry holds back no other",
    (mine, others) => {
      const model = new Model();
      for (let n = 0; n <= mine; n++) model.apply({ kind: "arrive", sender: 0 });
      for (let n = 0; n <= others; n++) model.apply({ kind: "arrive", sender: 1 });
      const [first] = model.senders.get("did:0") ?? [];
      if (first === undefined) throw new Error("nothing waits");
      first.dueAtMs = 1_000_000;
      const went = model.pump(["s0"]);
      expect(went.filter(({ sender }) => sender === "did:0")).toEqual([]);
      expect(went).toHaveLength(Math.min(others + 1, SENDER_WINDOW));
    },
  );
});
