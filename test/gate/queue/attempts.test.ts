import { describe, expect, test } from "vitest";
import { type QueuedMessage } from "../../../src/gate/protocol/transfer.ts";
import { RECORDED_AFTER_MS, WORKING_MAX_MS } from "../../../src/gate/queue/attempts.ts";
import { GATE_BYTES_WINDOW, PUMP_BYTES_MAX, SOCKET_BYTES_WINDOW } from "../../../src/gate/queue/dispatch.ts";
import { ACK_TIMEOUT_MS } from "../../../src/gate/queue/queue.ts";
import { newAgentDid, START_MS } from "../../support/gate.ts";
import { HEALTHY, SOCKET, LIMITS, socket, ack, alice, carol, onQueue, many, ids } from "../../support/queue-desk.ts";

describe("a socket that reads nothing", () => {
  const silent = [{ socketId: "s1", holder: "agent", lastFrameMs: START_MS - 1 }];

  test("is tried with one message in all until it shows life, and then with one of each sender", async () => {
    const seen = await onQueue(({ queue, take }) => {
      take(alice, many(27));
      take(carol, many(1));
      const pushes: number[] = [];
      for (let round = 0; round < 20; round++) {
        const nowMs = START_MS + round * 40_000;
        pushes.push(queue.pump(() => silent, nowMs).length);
        queue.expire(HEALTHY, nowMs + ACK_TIMEOUT_MS);
      }
      const alive = [{ ...silent[0]!, lastFrameMs: START_MS + 900_000 }];
      return {
        pushes,
        since: queue.unansweredSinceMs("s1"),
        alive: queue.pump(() => alive, START_MS + 900_000).length,
      };
    });
    expect(seen).toEqual({ pushes: [28, ...Array.from({ length: 19 }, () => 1)], since: START_MS + 760_000, alive: 2 });
  });

  test("is known for it when the gate wakes", async () => {
    const seen = await onQueue(({ queue, take, anew }) => {
      take(alice, many(3));
      queue.pump(() => silent, START_MS);
      queue.expire(HEALTHY, START_MS + ACK_TIMEOUT_MS);
      const woken = anew();
      return { pushes: woken.pump(() => silent, START_MS + 40_000).length, since: woken.unansweredSinceMs("s1") };
    });
    expect(seen.pushes).toBe(1);
    expect(seen.since).toBeGreaterThan(START_MS);
  });

  test("that answers again has its whole window again", async () => {
    const pushes = await onQueue(({ queue, take }) => {
      const some = many(5);
      take(alice, some);
      queue.pump(() => SOCKET, START_MS);
      queue.expire(HEALTHY, START_MS + ACK_TIMEOUT_MS);
      const probe = queue.pump(() => SOCKET, START_MS + 32_000);
      queue.acknowledge([ack(some[0]?.deliveryId ?? "")], START_MS + 32_000);
      return [probe.length, queue.pump(() => SOCKET, START_MS + 32_000).length];
    });
    expect(pushes).toEqual([1, 4]);
  });
});

describe("what is on its way in bytes", () => {
  const bytes = 1_048_576;

  test("is 8 MiB to a socket, and one message however large", async () => {
    const pushed = await onQueue(({ queue, take }) => {
      take(alice, many(12, { bytes }));
      let sent = 0;
      for (let turn = 0; turn < 20; turn++) sent += queue.pump(() => SOCKET, START_MS).length;
      return sent;
    });
    expect(pushed).toBe(SOCKET_BYTES_WINDOW / bytes);
  });

  test("is 32 MiB to all sockets together, and some MiB a turn, after which another follows", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const sockets = ["a", "b", "c", "d", "e", "f"].map(socket);
      for (let sender = 0; sender < 6; sender++) take(newAgentDid(), many(8, { bytes }));
      const turns: number[] = [];
      for (let turn = 0; turn < 20; turn++) {
        turns.push(queue.pump(() => sockets, START_MS).length);
        if (turn === 0) expect(queue.nextWorkMs()).toBe(0);
      }
      return { most: Math.max(...turns), all: turns.reduce((sum, n) => sum + n, 0), next: queue.nextRecordMs() };
    });
    expect(seen.most * bytes).toBe(PUMP_BYTES_MAX);
    expect(seen.all * bytes).toBe(GATE_BYTES_WINDOW);
    expect(seen.next).toBe(START_MS + RECORDED_AFTER_MS);
  });
});

describe("an acknowledgement's holder", () => {
  test("is the one that the message was pushed to, over this or a later socket, and no other", async () => {
    const states = await onQueue(({ queue, take }) => {
      const [one, two] = many(2) as [QueuedMessage, QueuedMessage];
      take(alice, [one, two]);
      queue.pump(() => [{ ...socket("s1"), holder: "device:a" }], START_MS);
      const say = (deliveryId: string, holder: string, socketId: string) => {
        queue.acknowledge([{ ...ack(deliveryId), holder, socketId }], START_MS);
        return queue.attempts(deliveryId) === null ? "over" : "waits";
      };
      const seen = [say(one.deliveryId, "device:b", "s2"), say(one.deliveryId, "agent", "s3")];
      queue.socketGone("s1", START_MS);
      return [...seen, say(one.deliveryId, "device:b", "s2"), say(one.deliveryId, "device:a", "s4")];
    });
    expect(states).toEqual(["waits", "waits", "waits", "over"]);
  });

  test("is known when the gate has slept", async () => {
    const attempts = await onQueue(({ queue, take, anew }) => {
      const [one] = many(1) as [QueuedMessage];
      take(alice, [one]);
      queue.pump(() => [{ ...socket("s1"), holder: "device:a" }], START_MS);
      queue.recordAttempts(START_MS + RECORDED_AFTER_MS);
      const woken = anew();
      const seen: (number | null)[] = [];
      for (const holder of ["device:b", "device:a"]) {
        woken.acknowledge([{ ...ack(one.deliveryId), holder }], START_MS + 2_000);
        seen.push(woken.attempts(one.deliveryId));
      }
      return seen;
    });
    expect(attempts).toEqual([1, null]);
  });

  test("alone can say that a message is worked on, or put it off", async () => {
    const due = await onQueue(({ queue, take }) => {
      const [one] = many(1) as [QueuedMessage];
      take(alice, [one]);
      queue.pump(() => SOCKET, START_MS);
      queue.working(one.deliveryId, "device:b", START_MS + 20_000);
      queue.acknowledge(
        [{ ...ack(one.deliveryId), accepted: false, retryAfterMs: 5, holder: "device:b" }],
        START_MS + 20_000,
      );
      return queue.nextDueMs(true, START_MS + 20_000);
    });
    expect(due).toBe(START_MS + ACK_TIMEOUT_MS);
  });
});

describe("a recipient that works slowly", () => {
  test("handles ten messages of 45 seconds each, and none of them fails while it says so", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const some = many(10);
      take(alice, some);
      let pushes = queue.pump(() => SOCKET, START_MS).length;
      let nowMs = START_MS;
      for (const { deliveryId } of some) {
        for (let second = 5; second <= 45; second += 5) {
          queue.working(deliveryId, "agent", nowMs + second * 1_000);
          queue.expire(HEALTHY, nowMs + second * 1_000);
        }
        nowMs += 45_000;
        queue.acknowledge([ack(deliveryId)], nowMs);
        pushes += queue.pump(() => SOCKET, nowMs).length;
      }
      return { pushes, reports: queue.reportsFor(alice).map(({ delivered, attempts }) => ({ delivered, attempts })) };
    });
    expect(seen).toEqual({ pushes: 10, reports: Array.from({ length: 10 }, () => ({ delivered: true, attempts: 1 })) });
  });

  test("has 30 seconds for each message from when it is its sender's oldest", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const some = many(10);
      take(alice, some);
      queue.pump(() => SOCKET, START_MS);
      let nowMs = START_MS;
      for (const { deliveryId } of some) {
        nowMs += 29_000;
        queue.expire(HEALTHY, nowMs);
        queue.acknowledge([ack(deliveryId)], nowMs);
      }
      return queue.reportsFor(alice).map(({ delivered, attempts }) => delivered && attempts === 1);
    });
    expect(seen).toEqual(Array.from({ length: 10 }, () => true));
  });

  test("may say so for an hour", async () => {
    const seen = await onQueue(
      ({ queue, take }) => {
        const [one] = many(1) as [QueuedMessage];
        take(alice, [one]);
        queue.pump(() => SOCKET, START_MS);
        let failedAtMs = 0;
        for (let ms = 0; ms <= WORKING_MAX_MS + 60_000 && failedAtMs === 0; ms += 20_000) {
          queue.working(one.deliveryId, "agent", START_MS + ms);
          queue.expire(HEALTHY, START_MS + ms);
          if (queue.inFlight().size === 0) failedAtMs = ms;
        }
        return failedAtMs;
      },
      { ttlMs: 100 * WORKING_MAX_MS },
    );
    expect(seen).toBe(WORKING_MAX_MS);
  });

  test("lets nothing age that it has not come to, pushed or not, over a sleep of the gate", async () => {
    const seen = await onQueue(({ queue, take, anew }) => {
      const some = many(40);
      take(alice, some);
      queue.pump(() => SOCKET, START_MS);
      const [first] = some;
      for (let ms = 0; ms < LIMITS.ttlMs; ms += 20_000) queue.working(first?.deliveryId ?? "", "agent", START_MS + ms);
      const afterMs = START_MS + LIMITS.ttlMs;
      queue.recordAttempts(afterMs);
      queue.socketGone("s1", afterMs);
      queue.pump(() => [], afterMs);
      const woken = anew();
      woken.expire(HEALTHY, afterMs);
      const left = [...woken.reportsFor(alice)].length;
      woken.expire(HEALTHY, afterMs + LIMITS.ttlMs + 1);
      return { expiredAtOnce: left, expiredLater: woken.reportsFor(alice).length };
    });
    expect(seen).toEqual({ expiredAtOnce: 0, expiredLater: 40 });
  });
});

describe("a message that the recipient puts off", () => {
  test("comes again after that time, and what its sender has behind it after it", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const [one, two] = many(2) as [QueuedMessage, QueuedMessage];
      take(alice, [one, two]);
      queue.pump(() => SOCKET, START_MS);
      queue.acknowledge([{ ...ack(one.deliveryId), accepted: false, retryAfterMs: 60_000 }], START_MS);
      const early = queue.pump(() => SOCKET, START_MS + 59_999).length;
      return {
        early,
        again: ids(queue.pump(() => SOCKET, START_MS + 60_000)),
        expected: [one.deliveryId, two.deliveryId],
      };
    });
    expect(seen).toEqual({ early: 0, again: seen.expected, expected: seen.expected });
  });

  test("uses its attempts up like every other", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const [one] = many(1) as [QueuedMessage];
      take(alice, [one]);
      let pushes = 0;
      for (let round = 0; round < 30; round++) {
        pushes += queue.pump(() => SOCKET, START_MS).length;
        queue.acknowledge([{ ...ack(one.deliveryId), accepted: false, retryAfterMs: 0 }], START_MS);
      }
      return { pushes, reports: queue.reportsFor(alice) };
    });
    expect(seen).toMatchObject({
      pushes: 25,
      reports: [{ delivered: false, reason: "attempts exhausted", attempts: 25 }],
    });
  });

  test("is over all the same when the copy that was behind it is acknowledged", async () => {
    const left = await onQueue(({ queue, take }) => {
      const [one, two] = many(2) as [QueuedMessage, QueuedMessage];
      take(alice, [one, two]);
      queue.pump(() => SOCKET, START_MS);
      queue.acknowledge(
        [{ ...ack(one.deliveryId), accepted: false, retryAfterMs: 60_000 }, ack(two.deliveryId)],
        START_MS,
      );
      return [one, two].map(({ deliveryId }) => queue.attempts(deliveryId));
    });
    expect(left).toEqual([1, null]);
  });
});
