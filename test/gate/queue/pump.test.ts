import { describe, expect, test } from "vitest";
import { type QueuedMessage } from "../../../src/gate/protocol/transfer.ts";
import { ACK_TIMEOUT_MS } from "../../../src/gate/queue/queue.ts";
import { queuedMessage, START_MS } from "../../support/gate.ts";
import {
  HEALTHY,
  SOCKET,
  LIMITS,
  socket,
  acknowledge,
  ack,
  alice,
  carol,
  onQueue,
  many,
  ids,
} from "../../support/queue-desk.ts";

describe("pushing", () => {
  test("counts an attempt only for a push to a socket, and remembers both over an eviction", async () => {
    const seen = await onQueue(({ queue, take, anew }) => {
      const [one] = many(1) as [QueuedMessage];
      take(alice, [one]);
      const withoutSocket = queue.pump(() => [], START_MS);
      const before = queue.attempts(one.deliveryId);
      queue.pump(() => SOCKET, START_MS);
      queue.recordAttempts(START_MS + 2_000);
      const woken = anew();
      return {
        withoutSocket,
        before,
        after: woken.attempts(one.deliveryId),
        inFlight: [...woken.inFlight()],
        pushedAgain: woken.pump(() => SOCKET, START_MS),
      };
    });
    expect(seen).toEqual({
      withoutSocket: [],
      before: 0,
      after: 1,
      inFlight: [["s1", { count: 1, bytes: expect.any(Number) as number }]],
      pushedAgain: [],
    });
  });

  test("fails an attempt that was not acknowledged in 30 seconds, and retries within its jitter", async () => {
    const seen = await onQueue(({ queue, take }) => {
      take(alice, many(1));
      queue.pump(() => SOCKET, START_MS);
      const due = queue.nextDueMs(true, START_MS);
      queue.expire(HEALTHY, START_MS + ACK_TIMEOUT_MS - 1);
      const early = queue.inFlight().size;
      queue.expire(HEALTHY, START_MS + ACK_TIMEOUT_MS);
      const retryMs = (queue.nextDueMs(true, START_MS + ACK_TIMEOUT_MS) ?? 0) - START_MS - ACK_TIMEOUT_MS;
      const soon = queue.pump(() => SOCKET, START_MS + ACK_TIMEOUT_MS + 799);
      const later = queue.pump(() => SOCKET, START_MS + ACK_TIMEOUT_MS + 1_200);
      return { due, early, retryMs, soon, later: later.length };
    });
    expect(seen).toMatchObject({ due: START_MS + 30_000, early: 1, soon: [], later: 1 });
    expect(seen.retryMs).toBeGreaterThanOrEqual(800);
    expect(seen.retryMs).toBeLessThanOrEqual(1_200);
  });

  test("fails at once what was on its way to a socket that is gone", async () => {
    const gone = await onQueue(({ queue, take }) => {
      take(alice, many(2));
      queue.pump(() => SOCKET, START_MS);
      queue.socketGone("s1", START_MS);
      return { inFlight: queue.inFlight().size, retried: queue.pump(() => SOCKET, START_MS + 1_200).length };
    });
    expect(gone).toEqual({ inFlight: 0, retried: 2 });
  });

  test("after a crash fails at once what was on its way to sockets that went with it", async () => {
    const retried = await onQueue(({ queue, take, anew }) => {
      take(alice, many(1));
      queue.pump(() => SOCKET, START_MS);
      const woken = anew();
      woken.expire(() => false, START_MS + 10);
      return woken.pump(() => [socket("s2")], START_MS + 1_300).length;
    });
    expect(retried).toBe(1);
  });

  test("keeps each sender's order over retries, and a retry holds back its own sender alone", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const mine = many(3);
      take(alice, mine);
      queue.pump(() => SOCKET, START_MS);
      queue.socketGone("s1", START_MS);
      const late = queuedMessage();
      take(alice, [late]);
      const theirs = many(2);
      take(carol, theirs);
      const meanwhile = ids(queue.pump(() => SOCKET, START_MS + 1));
      const afterwards = ids(queue.pump(() => SOCKET, START_MS + 1_200));
      return {
        meanwhile,
        theirs: theirs.map(({ deliveryId }) => deliveryId),
        afterwards,
        mine: [...mine, late].map(({ deliveryId }) => deliveryId),
      };
    });
    expect(seen.meanwhile).toEqual(seen.theirs);
    expect(seen.afterwards).toEqual(seen.mine);
  });

  test("lets what is behind a message that is to be retried come again after it, without another attempt, and nobody else's", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const [one, two, three] = many(3) as [QueuedMessage, QueuedMessage, QueuedMessage];
      const other = queuedMessage();
      take(alice, [one]);
      queue.pump(() => SOCKET, START_MS);
      take(alice, [two], START_MS + 10_000);
      take(carol, [other], START_MS + 10_000);
      queue.pump(() => SOCKET, START_MS + 10_000);
      queue.expire(HEALTHY, START_MS + 30_000);
      take(alice, [three], START_MS + 31_000);
      const [first, rest] = [
        ids(queue.pump(() => SOCKET, START_MS + 32_000)),
        () => ids(queue.pump(() => SOCKET, START_MS + 33_000)),
      ];
      queue.acknowledge([{ ...ack(one.deliveryId), accepted: true }], START_MS + 33_000);
      const afterwards = rest();
      return {
        first,
        afterwards,
        attempts: [two, three, other].map(({ deliveryId }) => queue.attempts(deliveryId)),
        expected: [one, two, three].map(({ deliveryId }) => deliveryId),
      };
    });
    expect([...seen.first, ...seen.afterwards]).toEqual(seen.expected);
    expect(seen).toMatchObject({ first: { length: 1 }, attempts: [1, 1, 1] });
  });

  test("leaves a socket that does not answer for one that does", async () => {
    const sockets = [socket("stuck"), socket("well")];
    const seen = await onQueue(({ queue, take }) => {
      take(alice, many(1));
      const first = queue.pump(() => sockets, START_MS).map(({ socketId }) => socketId);
      queue.expire(HEALTHY, START_MS + 30_000);
      return { first, second: queue.pump(() => sockets, START_MS + 31_200).map(({ socketId }) => socketId) };
    });
    expect(seen).toEqual({ first: ["stuck"], second: ["well"] });
  });

  test("takes each message to one socket, and a sender's messages to the same one while some are on their way", async () => {
    const sockets = ["s1", "s2", "s3"].map(socket);
    const pushes = await onQueue(({ queue, take }) => {
      take(alice, many(10));
      take(carol, many(10));
      return queue.pump(() => sockets, START_MS);
    });
    expect(new Set(ids(pushes)).size).toBe(20);
    expect(new Set(pushes.map(({ socketId }) => socketId)).size).toBe(2);
  });

  test("dead-letters after 25 attempts", async () => {
    const seen = await onQueue(({ queue, take }) => {
      take(alice, many(1));
      let nowMs = START_MS;
      let attempts = 0;
      for (let round = 0; round < 40; round++) {
        attempts += queue.pump(() => SOCKET, nowMs).length;
        queue.socketGone("s1", nowMs);
        nowMs += 36_001;
      }
      return { attempts, reports: queue.reportsFor(alice), due: queue.nextDueMs(true, nowMs) };
    });
    expect(seen).toMatchObject({
      attempts: 25,
      due: null,
      reports: [{ delivered: false, reason: "attempts exhausted", attempts: 25 }],
    });
  });

  test("ends what waited too long once, whatever else becomes of it", async () => {
    const reports = await onQueue(
      ({ queue, take }) => {
        take(alice, many(1));
        queue.pump(() => SOCKET, START_MS);
        queue.expire(HEALTHY, START_MS + LIMITS.ttlMs);
        return queue.reportsFor(alice);
      },
      { maxAttempts: 1 },
    );
    expect(reports).toMatchObject([{ reason: "attempts exhausted" }]);
  });
});

describe("the alarm", () => {
  test("is due for an expiry without a socket, and for nothing when nothing waits", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const idle = queue.nextDueMs(true, START_MS);
      take(alice, many(1));
      return { idle, offline: queue.nextDueMs(false, START_MS) };
    });
    expect(seen).toEqual({ idle: null, offline: START_MS + LIMITS.ttlMs });
  });

  test("is not due at once for a message that the window holds back", async () => {
    const due = await onQueue(({ queue, take }) => {
      take(alice, many(40));
      queue.pump(() => SOCKET, START_MS);
      return queue.nextDueMs(true, START_MS + 5);
    });
    expect(due).toBe(START_MS + ACK_TIMEOUT_MS);
  });
});

describe("an acknowledgement", () => {
  test("that refuses dead-letters at once, with the recipient's reason", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const [one] = many(1) as [QueuedMessage];
      take(alice, [one]);
      queue.pump(() => SOCKET, START_MS);
      acknowledge(queue, one.deliveryId, false, "not today", START_MS + 5);
      return { reports: queue.reportsFor(alice), dead: queue.deadLetters(null, 10) };
    });
    expect(seen.reports).toMatchObject([{ delivered: false, reason: "not today", attempts: 1 }]);
    expect(seen.dead).toMatchObject([{ reason: "not today", attempts: 1, deadAtMs: START_MS + 5 }]);
  });

  test("that comes after its 30 seconds still counts", async () => {
    const reports = await onQueue(({ queue, take }) => {
      const [one] = many(1) as [QueuedMessage];
      take(alice, [one]);
      queue.pump(() => SOCKET, START_MS);
      queue.expire(HEALTHY, START_MS + ACK_TIMEOUT_MS);
      acknowledge(queue, one.deliveryId, true, null, START_MS + ACK_TIMEOUT_MS + 1);
      return queue.reportsFor(alice);
    });
    expect(reports).toMatchObject([{ delivered: true, reason: null, attempts: 1 }]);
  });

  test("that comes twice, or for something else, changes nothing", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const [one] = many(1) as [QueuedMessage];
      take(alice, [one]);
      for (const accepted of [true, false, true]) acknowledge(queue, one.deliveryId, accepted, null, START_MS);
      acknowledge(queue, "01K0000000000000000000XXXX", true, null, START_MS);
      return queue.reportsFor(alice).length;
    });
    expect(seen).toBe(1);
  });

  test("leaves no body behind", async () => {
    const row = await onQueue(({ queue, take, sql }) => {
      const [one] = many(1, { envelope: '{"fromAgentDid":null,"conversationId":"secret"}' }) as [QueuedMessage];
      take(alice, [one]);
      acknowledge(queue, one.deliveryId, true, null, START_MS);
      return sql.exec("SELECT body, envelope FROM inbound").one();
    });
    expect(row).toEqual({ body: null, envelope: "{}" });
  });
});
