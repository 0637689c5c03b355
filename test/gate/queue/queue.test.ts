import { describe, expect, test } from "vitest";
import { HELD_BYTES_MAX, type QueuedMessage } from "../../../src/gate/protocol/transfer.ts";
import {
  ACK_TIMEOUT_MS,
  createQueue,
  PROXY_SENDER,
  type Push,
  type Queue,
  type QueueLimits,
} from "../../../src/gate/queue/queue.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import { newAgentDid, onStorage, queuedMessage, START_MS } from "../../support/gate.ts";

const LIMITS: QueueLimits = {
  queueMax: 500,
  ttlMs: 3_600_000,
  maxAttempts: 25,
  retry: { initialMs: 1_000, maxMs: 30_000, jitterRatio: 0.2 },
  deadLetterRetentionMs: 7 * 86_400_000,
};
const HEALTHY = () => true;
const ANYTHING = { isShut: false, refusal: () => null };
const SOCKET = [{ socketId: "s1", inFlight: 0 }];
const alice = newAgentDid();
const carol = newAgentDid();

type Desk = {
  queue: Queue;
  sql: SqlStorage;
  /** The same storage, read anew, as after an eviction. */
  anew: () => Queue;
  fence: (sender: AgentDid, epoch: number) => void;
  take: (from: AgentDid, queuedMessages: QueuedMessage[], nowMs?: number) => number;
};

function onQueue<T>(work: (desk: Desk) => T, over: Partial<QueueLimits> = {}): Promise<T> {
  return onStorage((sql) => {
    const fences = new Map<string, number>();
    const admits = (sender: AgentDid, epoch: number): boolean => epoch >= (fences.get(sender) ?? 0);
    const open = () => createQueue({ sql, limits: { ...LIMITS, ...over }, admits });
    const queue = open();
    return work({
      queue,
      sql,
      anew: open,
      fence: (sender, epoch) => void fences.set(sender, epoch),
      take: (from, queuedMessages, nowMs = START_MS) => queue.receive(from, queuedMessages, ANYTHING, nowMs),
    });
  });
}

const many = (n: number, over: Partial<QueuedMessage> = {}): QueuedMessage[] =>
  Array.from({ length: n }, () => queuedMessage(over));
const ids = (pushes: Push[]): string[] => pushes.map(({ deliveryId }) => deliveryId);

describe("a dead letter that is replayed", () => {
  test("is owed to its sender as waiting again until that gate knows, over an eviction", async () => {
    const seen = await onQueue(({ queue, take, anew }) => {
      const one = queuedMessage();
      take(alice, [one]);
      queue.acknowledge(one.deliveryId, false, "not today", START_MS);
      queue.reported(alice, queue.reportsFor(alice));
      queue.replay(one.deliveryId, START_MS + 1);
      const woken = anew();
      const owed = woken.reportsFor(alice);
      woken.reported(alice, owed);
      return { id: one.deliveryId, owed, after: anew().pendingReports() };
    });
    expect(seen.owed).toMatchObject([{ deliveryId: seen.id, waitsAgain: true, atMs: START_MS + 1 }]);
    expect(seen.after).toEqual([]);
  });
});

describe("taking over", () => {
  test("takes a fifth of the queue from one sender, from the start, and the rest when there is room", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const mine = many(120);
      const first = take(alice, mine);
      const more = take(alice, mine.slice(first));
      const others = take(carol, many(100));
      for (const { deliveryId } of mine.slice(0, 7)) queue.acknowledge(deliveryId, true, null, START_MS);
      return { first, more, others, afterRoom: take(alice, mine.slice(first)) };
    });
    expect(seen).toEqual({ first: 100, more: 0, others: 100, afterRoom: 7 });
  });

  test("takes no more than the queue holds in all", async () => {
    const taken = await onQueue(({ take }) => Array.from({ length: 6 }, () => take(newAgentDid(), many(100))));
    expect(taken).toEqual([100, 100, 100, 100, 100, 0]);
  });

  test("takes a fifth of the bytes from one sender and 64 MiB in all", async () => {
    const bytes = 1_048_576;
    const seen = await onQueue(({ take }) => [
      ...Array.from({ length: 6 }, () => take(newAgentDid(), many(20, { bytes }))),
      take(alice, many(1, { bytes: 10 })),
    ]);
    expect(HELD_BYTES_MAX).toBe(64 * bytes);
    expect(seen).toEqual([12, 12, 12, 12, 12, 4, 0]);
  });

  test("takes one message at least, however small the queue", async () => {
    expect(await onQueue(({ take }) => [take(alice, many(3)), take(carol, many(1))], { queueMax: 3 })).toEqual([1, 1]);
  });

  test("knows what it has had: waiting, delivered or dead, before an eviction or after it", async () => {
    const seen = await onQueue(({ queue, take, anew, sql }) => {
      const [waiting, delivered, dead] = many(3) as [QueuedMessage, QueuedMessage, QueuedMessage];
      take(alice, [waiting, delivered, dead]);
      queue.acknowledge(delivered.deliveryId, true, null, START_MS);
      queue.acknowledge(dead.deliveryId, false, "no", START_MS);
      const again = take(alice, [waiting, delivered, dead]);
      const woken = anew().receive(alice, [waiting, delivered, dead], ANYTHING, START_MS);
      return { again, woken, rows: sql.exec("SELECT COUNT(*) AS n FROM queue").one() };
    });
    expect(seen).toEqual({ again: 3, woken: 3, rows: { n: 3 } });
  });

  test("ends at once what is too old or refused, and reports it", async () => {
    const seen = await onQueue(({ queue }) => {
      const [old, refused, good] = [
        queuedMessage({ createdAtMs: START_MS - LIMITS.ttlMs }),
        queuedMessage(),
        queuedMessage(),
      ];
      const taken = queue.receive(
        alice,
        [old, refused, good],
        { ...ANYTHING, refusal: ({ deliveryId }) => (deliveryId === refused.deliveryId ? "trust removed" : null) },
        START_MS,
      );
      const { fromAgentDid: _, ...rest } = queue.deadLetters(null, 10)[0] ?? { fromAgentDid: null };
      return {
        taken,
        reports: queue.reportsFor(alice).map(({ deliveryId: _id, ...outcome }) => outcome),
        newest: rest,
        pushed: ids(queue.pump(() => SOCKET, START_MS)),
        good: good.deliveryId,
      };
    });
    expect(seen.taken).toBe(3);
    expect(seen.reports).toEqual([
      { delivered: false, reason: "expired", attempts: 0, atMs: START_MS },
      { delivered: false, reason: "trust removed", attempts: 0, atMs: START_MS },
    ]);
    expect(seen.newest).toMatchObject({ reason: "trust removed", attempts: 0 });
    expect(seen.pushed).toEqual([seen.good]);
  });

  test("takes nothing but what is dead while the door is shut", async () => {
    const seen = await onQueue(({ queue }) => {
      const [old, good] = [queuedMessage({ createdAtMs: START_MS - LIMITS.ttlMs }), queuedMessage()];
      const shut = { ...ANYTHING, isShut: true };
      const taken = queue.receive(alice, [old, good], shut, START_MS);
      return {
        taken,
        pushed: ids(queue.pump(() => SOCKET, START_MS)),
        again: queue.receive(alice, [good], ANYTHING, 1),
      };
    });
    expect(seen).toEqual({ taken: 1, pushed: [], again: 1 });
  });

  test("that fails half way leaves memory as it was: nothing is reported dead that is not here", async () => {
    const seen = await onStorage((sql, storage) => {
      const queue = createQueue({ sql, limits: LIMITS, admits: HEALTHY });
      const bad = queuedMessage({ body: null as unknown as string, bytes: null as unknown as number });
      expect(() =>
        storage.transactionSync(() => queue.receive(alice, [queuedMessage(), bad], ANYTHING, START_MS)),
      ).toThrow(/NOT NULL/);
      queue.expire(HEALTHY, START_MS + LIMITS.ttlMs);
      return {
        pushed: queue.pump(() => SOCKET, START_MS),
        owed: queue.pendingReports(),
        due: queue.nextDueMs(true, START_MS),
      };
    });
    expect(seen).toEqual({ pushed: [], owed: [], due: null });
  });
});

describe("pushing", () => {
  test("counts an attempt only for a push to a socket, and remembers both over an eviction", async () => {
    const seen = await onQueue(({ queue, take, anew }) => {
      const [one] = many(1) as [QueuedMessage];
      take(alice, [one]);
      const withoutSocket = queue.pump(() => [], START_MS);
      const before = queue.attempts(one.deliveryId);
      queue.pump(() => SOCKET, START_MS);
      const woken = anew();
      return {
        withoutSocket,
        before,
        after: woken.attempts(one.deliveryId),
        inFlight: [...woken.inFlight()],
        pushedAgain: woken.pump(() => SOCKET, START_MS),
      };
    });
    expect(seen).toEqual({ withoutSocket: [], before: 0, after: 1, inFlight: [["s1", 1]], pushedAgain: [] });
  });

  test("fails an attempt that nobody acknowledged in 30 seconds, and retries within its jitter", async () => {
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
      return woken.pump(() => [{ socketId: "s2", inFlight: 0 }], START_MS + 1_300).length;
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

  test("pushes nothing behind a message that has timed out while others of its sender are still on their way", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const [one, two, three] = many(3) as [QueuedMessage, QueuedMessage, QueuedMessage];
      take(alice, [one]);
      queue.pump(() => SOCKET, START_MS);
      take(alice, [two], START_MS + 10_000);
      queue.pump(() => SOCKET, START_MS + 10_000);
      queue.expire(HEALTHY, START_MS + 30_000);
      take(alice, [three], START_MS + 31_000);
      const whileTwoIsOut = queue.pump(() => SOCKET, START_MS + 32_000);
      queue.acknowledge(two.deliveryId, true, null, START_MS + 33_000);
      const afterwards = ids(queue.pump(() => SOCKET, START_MS + 33_000));
      return { whileTwoIsOut, afterwards, expected: [one.deliveryId, three.deliveryId] };
    });
    expect(seen.whileTwoIsOut).toEqual([]);
    expect(seen.afterwards).toEqual(seen.expected);
  });

  test("leaves a socket that does not answer for one that does", async () => {
    const sockets = [
      { socketId: "stuck", inFlight: 0 },
      { socketId: "well", inFlight: 5 },
    ];
    const seen = await onQueue(({ queue, take }) => {
      take(alice, many(1));
      const first = queue.pump(() => sockets, START_MS).map(({ socketId }) => socketId);
      queue.expire(HEALTHY, START_MS + 30_000);
      return { first, second: queue.pump(() => sockets, START_MS + 31_200).map(({ socketId }) => socketId) };
    });
    expect(seen).toEqual({ first: ["stuck"], second: ["well"] });
  });

  test("takes each message to one socket, and a sender's messages to the same one while some are on their way", async () => {
    const sockets = ["s1", "s2", "s3"].map((socketId) => ({ socketId, inFlight: 0 }));
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
      queue.acknowledge(one.deliveryId, false, "not today", START_MS + 5);
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
      queue.acknowledge(one.deliveryId, true, null, START_MS + ACK_TIMEOUT_MS + 1);
      return queue.reportsFor(alice);
    });
    expect(reports).toMatchObject([{ delivered: true, reason: null, attempts: 1 }]);
  });

  test("that comes twice, or for something else, changes nothing", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const [one] = many(1) as [QueuedMessage];
      take(alice, [one]);
      const answers = [true, false, true].map((accepted) =>
        queue.acknowledge(one.deliveryId, accepted, null, START_MS),
      );
      return {
        answers,
        unknown: queue.acknowledge("01K0000000000000000000XXXX", true, null, START_MS),
        reports: queue.reportsFor(alice).length,
      };
    });
    expect(seen).toEqual({ answers: [true, false, false], unknown: false, reports: 1 });
  });

  test("leaves no body behind", async () => {
    const row = await onQueue(({ queue, take, sql }) => {
      const [one] = many(1, { envelope: '{"fromAgentDid":null,"conversationId":"secret"}' }) as [QueuedMessage];
      take(alice, [one]);
      queue.acknowledge(one.deliveryId, true, null, START_MS);
      return sql.exec("SELECT body, envelope FROM queue").one();
    });
    expect(row).toEqual({ body: null, envelope: "{}" });
  });
});

describe("reports", () => {
  test("are owed until the sender's gate has them, over an eviction too", async () => {
    const seen = await onQueue(({ queue, take, anew }) => {
      const [one] = many(1) as [QueuedMessage];
      take(alice, [one]);
      queue.acknowledge(one.deliveryId, true, null, START_MS);
      const woken = anew();
      const owed = woken.reportsFor(alice);
      woken.reported(alice, owed);
      return { owed, rest: woken.pendingReports(), afterwards: anew().pendingReports() };
    });
    expect(seen).toMatchObject({ owed: [{ delivered: true }], rest: [], afterwards: [] });
  });

  test("of a dead letter that was replayed while its report was under way: it still waits, and is reported anew", async () => {
    const seen = await onQueue(({ queue, take, anew }) => {
      const [one] = many(1) as [QueuedMessage];
      take(alice, [one]);
      queue.acknowledge(one.deliveryId, false, null, START_MS);
      const underWay = queue.reportsFor(alice);
      queue.replay(one.deliveryId, START_MS + 1);
      queue.reported(alice, underWay);
      const woken = anew();
      const pushed = woken.pump(() => SOCKET, START_MS + 1).length;
      woken.acknowledge(one.deliveryId, true, null, START_MS + 2);
      return { pushed, reports: woken.reportsFor(alice) };
    });
    expect(seen).toMatchObject({ pushed: 1, reports: [{ waitsAgain: true }, { delivered: true }] });
  });

  test("are owed to nobody for the proxy's own messages and for senders that are no agents", async () => {
    const seen = await onQueue(({ queue }) => {
      for (const lane of [PROXY_SENDER, "service_account:x"]) {
        const one = queuedMessage();
        queue.putLocal(lane, one, START_MS);
        queue.acknowledge(one.deliveryId, true, null, START_MS);
      }
      return queue.pendingReports();
    });
    expect(seen).toEqual([]);
  });
});

describe("the proxy's own messages", () => {
  test("are queued once per id", async () => {
    const seen = await onQueue(({ queue, sql }) => {
      const one = queuedMessage();
      queue.putLocal(PROXY_SENDER, one, START_MS);
      queue.putLocal(PROXY_SENDER, one, START_MS);
      queue.pump(() => SOCKET, START_MS);
      queue.acknowledge(one.deliveryId, true, null, START_MS);
      queue.putLocal(PROXY_SENDER, one, START_MS);
      return { pushed: queue.pump(() => SOCKET, START_MS), rows: sql.exec("SELECT COUNT(*) AS n FROM queue").one() };
    });
    expect(seen).toEqual({ pushed: [], rows: { n: 1 } });
  });

  test("come through a queue that others have filled, and are bounded themselves", async () => {
    await onQueue(({ queue, take }) => {
      for (let sender = 0; sender < 5; sender++) take(newAgentDid(), many(100));
      expect(() => queue.putLocal("service_account:x", queuedMessage(), START_MS)).toThrow(
        expect.objectContaining({ code: "PROXY_RELAY_QUEUE_FULL" }),
      );
      for (let n = 0; n < 100; n++) queue.putLocal(PROXY_SENDER, queuedMessage(), START_MS);
      expect(() => queue.putLocal(PROXY_SENDER, queuedMessage(), START_MS)).toThrow(
        expect.objectContaining({ code: "PROXY_RELAY_QUEUE_FULL" }),
      );
    });
  });
});

describe("a fence", () => {
  test("ends what a peer has waiting, and what was on its way when it comes back unacknowledged", async () => {
    const seen = await onQueue(
      ({ queue, take, fence }) => {
        const judged = { envelope: JSON.stringify({ fromAgentDid: alice, trustEpoch: 1 }) };
        take(alice, many(33, judged));
        take(carol, many(1));
        queue.pump(() => SOCKET, START_MS);
        fence(alice, 2);
        queue.endSender(alice, "trust removed", START_MS);
        const ended = queue.reportsFor(alice).length;
        queue.socketGone("s1", START_MS);
        const retried = queue.pump(() => SOCKET, START_MS + 2_000).length;
        return {
          ended,
          retried,
          afterwards: queue.reportsFor(alice).map(({ reason, attempts }) => ({ reason, attempts })),
        };
      },
      { queueMax: 500 },
    );
    expect(seen.ended).toBe(1);
    expect(seen.retried).toBe(1);
    expect(seen.afterwards).toHaveLength(33);
    expect(seen.afterwards.slice(1)).toEqual(
      Array.from({ length: 32 }, () => ({ reason: "trust removed", attempts: 1 })),
    );
  });

  test("does not hold back what the recipient itself asks for again", async () => {
    const pushed = await onQueue(({ queue, take, fence }) => {
      const [one] = many(1, { envelope: JSON.stringify({ fromAgentDid: alice, trustEpoch: 1 }) }) as [QueuedMessage];
      take(alice, [one]);
      fence(alice, 2);
      queue.endSender(alice, "trust removed", START_MS);
      queue.replay(one.deliveryId, START_MS);
      return queue.pump(() => SOCKET, START_MS).map(({ envelope }) => envelope);
    });
    expect(pushed).toEqual([{ fromAgentDid: alice }]);
  });
});

describe("dead letters", () => {
  test("are listed newest first in pages, replayed with their time and attempts begun anew, and purged", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const queuedMessages = many(5);
      take(alice, queuedMessages);
      queue.pump(() => SOCKET, START_MS);
      for (const { deliveryId } of queuedMessages) queue.acknowledge(deliveryId, false, "no", START_MS);
      const [first, second, third] = queuedMessages.map(({ deliveryId }) => deliveryId) as [string, string, string];
      const page = queue.deadLetters(null, 2).map(({ id }) => id);
      const next = queue.deadLetters(page.at(-1) ?? null, 10).map(({ id }) => id);
      const laterMs = START_MS + LIMITS.ttlMs + 1;
      const replayed = [queue.replay(first, laterMs), queue.replay(first, laterMs)];
      const purged = [queue.purge(second), queue.purge(second)];
      queue.expire(HEALTHY, laterMs);
      return {
        page,
        next,
        replayed,
        purged,
        attempts: queue.attempts(first),
        left: queue.deadLetters(null, 10).length,
        third,
        ids: queuedMessages.map(({ deliveryId }) => deliveryId),
      };
    });
    expect(seen.page).toEqual([seen.ids[4], seen.ids[3]]);
    expect(seen.next).toEqual([seen.ids[2], seen.ids[1], seen.ids[0]]);
    expect(seen).toMatchObject({ replayed: [true, false], purged: [true, false], attempts: 0, left: 3 });
  });

  test("come in pages of some MiB, and one however large", async () => {
    const lengths = await onQueue(({ queue, take }) => {
      const body = JSON.stringify("x".repeat(1_000_000));
      const large = many(10, { body, bytes: body.length });
      take(alice, large);
      for (const { deliveryId } of large) queue.acknowledge(deliveryId, false, null, START_MS);
      return [queue.deadLetters(null, 100).length, queue.deadLetters(large[1]?.deliveryId ?? null, 100).length];
    });
    expect(lengths).toEqual([4, 1]);
  });

  test("show the payload's own text, however deep it nests", async () => {
    const bodies = ['{"a":[[["]]]{{{"]]],"a": 1e400 }', "[".repeat(200_000) + "]".repeat(200_000)];
    const seen = await onQueue(({ queue, take }) => {
      take(
        alice,
        bodies.map((body) => queuedMessage({ body, bytes: body.length })),
      );
      queue.endAll("recipient revoked", START_MS);
      return queue.deadLetters(null, 10).map(({ payload }) => payload.json);
    });
    expect(seen.toSorted()).toEqual(bodies.toSorted());
  });

  test("are a thousand at most; the oldest whose senders know make room", async () => {
    const seen = await onQueue(
      ({ queue, take, sql }) => {
        const queuedMessages = many(1_010);
        take(alice, queuedMessages);
        for (const [n, { deliveryId }] of queuedMessages.entries()) {
          queue.acknowledge(deliveryId, false, null, START_MS);
          if (n === 499) queue.reported(alice, queue.reportsFor(alice));
        }
        const { n } = sql.exec<{ n: number }>("SELECT COUNT(*) AS n FROM queue WHERE state = 2").one();
        return {
          n,
          oldest: sql.exec<{ id: string }>("SELECT MIN(delivery_id) AS id FROM queue").one().id,
          expected: queuedMessages[10]?.deliveryId,
        };
      },
      { queueMax: 10_000 },
    );
    expect(seen.n).toBe(1_000);
    expect(seen.oldest).toBe(seen.expected);
  });

  test("are forgotten after their time, delivered rows after ten minutes, and nothing that is owed", async () => {
    const seen = await onQueue(({ queue, take, sql }) => {
      const [delivered, dead, owed] = many(3) as [QueuedMessage, QueuedMessage, QueuedMessage];
      const count = () => sql.exec<{ n: number }>("SELECT COUNT(*) AS n FROM queue").one().n;
      take(alice, [delivered, dead]);
      queue.acknowledge(delivered.deliveryId, true, null, START_MS);
      queue.acknowledge(dead.deliveryId, false, null, START_MS);
      queue.reported(alice, queue.reportsFor(alice));
      take(alice, [owed]);
      queue.acknowledge(owed.deliveryId, true, null, START_MS);
      const due: (number | null)[] = [];
      const counts: number[] = [];
      for (const afterMs of [599_999, 600_000, LIMITS.deadLetterRetentionMs - 1, LIMITS.deadLetterRetentionMs]) {
        due.push((queue.nextPruneMs() ?? 0) - START_MS);
        queue.prune(START_MS + afterMs);
        counts.push(count());
      }
      return { due, counts, end: queue.nextPruneMs() };
    });
    const week = LIMITS.deadLetterRetentionMs;
    expect(seen).toEqual({ due: [600_000, 600_000, week, week], counts: [3, 2, 2, 1], end: null });
  });
});
