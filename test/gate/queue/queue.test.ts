import { describe, expect, test } from "vitest";
import { HELD_BYTES_MAX, type QueuedMessage } from "../../../src/gate/protocol/transfer.ts";
import { createQueue, PROXY_SENDER } from "../../../src/gate/queue/queue.ts";
import { newAgentDid, onStorage, queuedMessage, START_MS } from "../../support/gate.ts";
import {
  HEALTHY,
  ANYTHING,
  SOCKET,
  LIMITS,
  acknowledge,
  alice,
  carol,
  onQueue,
  many,
  ids,
} from "../../support/queue-desk.ts";

describe("receiving", () => {
  test("takes a fifth of the queue from one sender, from the start, and the rest when there is room", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const mine = many(120);
      const first = take(alice, mine);
      const more = take(alice, mine.slice(first));
      const others = take(carol, many(100));
      for (const { deliveryId } of mine.slice(0, 7)) acknowledge(queue, deliveryId, true, null, START_MS);
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
      acknowledge(queue, delivered.deliveryId, true, null, START_MS);
      acknowledge(queue, dead.deliveryId, false, "no", START_MS);
      const again = take(alice, [waiting, delivered, dead]);
      const woken = anew().receive(alice, [waiting, delivered, dead], ANYTHING, START_MS);
      return { again, woken, rows: sql.exec("SELECT COUNT(*) AS n FROM inbound").one() };
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
      const queue = createQueue({ sql, limits: LIMITS, admits: HEALTHY, now: () => START_MS });
      const bad = queuedMessage({ body: null as unknown as string, bytes: null as unknown as number });
      expect(() =>
        storage.transactionSync(() => queue.receive(alice, [queuedMessage(), bad], ANYTHING, START_MS)),
      ).toThrow(/NOT NULL/);
      queue.expire(HEALTHY, START_MS + LIMITS.ttlMs);
      return {
        pushed: queue.pump(() => SOCKET, START_MS),
        pending: queue.pendingReports(),
        due: queue.nextDueMs(true, START_MS),
      };
    });
    expect(seen).toEqual({ pushed: [], pending: [], due: null });
  });
});

describe("reports", () => {
  test("are pending until the sender's gate has them, over an eviction too", async () => {
    const seen = await onQueue(({ queue, take, anew }) => {
      const [one] = many(1) as [QueuedMessage];
      take(alice, [one]);
      acknowledge(queue, one.deliveryId, true, null, START_MS);
      const woken = anew();
      const pending = woken.reportsFor(alice);
      woken.reported(alice, pending, START_MS);
      return { pending, rest: woken.pendingReports(), afterwards: anew().pendingReports() };
    });
    expect(seen).toMatchObject({ pending: [{ delivered: true }], rest: [], afterwards: [] });
  });

  test("of a dead letter that was replayed while its report was in progress: it still waits, and is reported anew", async () => {
    const seen = await onQueue(({ queue, take, anew }) => {
      const [one] = many(1) as [QueuedMessage];
      take(alice, [one]);
      acknowledge(queue, one.deliveryId, false, null, START_MS);
      const underWay = queue.reportsFor(alice);
      queue.replay(one.deliveryId, START_MS + 1);
      queue.reported(alice, underWay, START_MS);
      const woken = anew();
      const pushed = woken.pump(() => SOCKET, START_MS + 1).length;
      acknowledge(woken, one.deliveryId, true, null, START_MS + 2);
      return { pushed, reports: woken.reportsFor(alice) };
    });
    expect(seen).toMatchObject({ pushed: 1, reports: [{ waitsAgain: true }, { delivered: true }] });
  });

  test("are pending for none of the proxy's own messages and for senders that are no agents", async () => {
    const seen = await onQueue(({ queue }) => {
      for (const sender of [PROXY_SENDER, "service_account:x"]) {
        const one = queuedMessage();
        queue.putLocal(sender, one, START_MS);
        acknowledge(queue, one.deliveryId, true, null, START_MS);
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
      acknowledge(queue, one.deliveryId, true, null, START_MS);
      queue.putLocal(PROXY_SENDER, one, START_MS);
      return { pushed: queue.pump(() => SOCKET, START_MS), rows: sql.exec("SELECT COUNT(*) AS n FROM inbound").one() };
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
    // The oldest has failed; what was behind it had not been tried.
    expect(seen.afterwards.slice(1)).toEqual(
      Array.from({ length: 32 }, (_, n) => ({ reason: "trust removed", attempts: n === 0 ? 1 : 0 })),
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
