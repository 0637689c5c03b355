import { describe, expect, test } from "vitest";
import { type QueuedMessage } from "../../../src/gate/protocol/transfer.ts";
import { type AgentDid } from "../../../src/wire/did.ts";
import { queuedMessage, START_MS } from "../../support/gate.ts";
import {
  HEALTHY,
  SOCKET,
  LIMITS,
  acknowledge,
  alice,
  carol,
  onQueue,
  many,
  outcomeOf,
} from "../../support/queue-desk.ts";

describe("a dead letter that is replayed", () => {
  test("is pending for its sender as waiting again until that gate knows, over an eviction", async () => {
    const seen = await onQueue(({ queue, take, anew }) => {
      const one = queuedMessage();
      take(alice, [one]);
      acknowledge(queue, one.deliveryId, false, "not today", START_MS);
      queue.reported(alice, queue.reportsFor(alice), START_MS);
      queue.replay(one.deliveryId, START_MS + 1);
      const woken = anew();
      const pending = woken.reportsFor(alice);
      woken.reported(alice, pending, START_MS);
      return { id: one.deliveryId, pending, after: anew().pendingReports() };
    });
    expect(seen.pending).toMatchObject([{ deliveryId: seen.id, waitsAgain: true, atMs: START_MS + 1 }]);
    expect(seen.after).toEqual([]);
  });
});

describe("dead letters", () => {
  test("are listed newest first in pages, replayed with their time and attempts begun anew, and purged", async () => {
    const seen = await onQueue(({ queue, take }) => {
      const queuedMessages = many(5);
      take(alice, queuedMessages);
      queue.pump(() => SOCKET, START_MS);
      for (const { deliveryId } of queuedMessages) acknowledge(queue, deliveryId, false, "no", START_MS);
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
      for (const { deliveryId } of large) acknowledge(queue, deliveryId, false, null, START_MS);
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

  test("are a thousand at most: the sender that has most of them gives way with its oldest", async () => {
    const seen = await onQueue(
      ({ queue, take, sql }) => {
        const few = many(5);
        const flood = many(1_010);
        const kill = (sender: AgentDid, messages: QueuedMessage[]) => {
          for (const { deliveryId, ...message } of messages) {
            take(sender, [{ deliveryId, ...message }]);
            acknowledge(queue, deliveryId, false, null, START_MS);
          }
        };
        kill(carol, few);
        kill(alice, flood);
        const dead = sql.exec<{ id: string; sender: string }>(
          "SELECT delivery_id AS id, sender FROM inbound WHERE state = 2 ORDER BY delivery_id",
        );
        const rows = dead.toArray();
        return {
          n: rows.length,
          carols: rows.filter(({ sender }) => sender === carol).length,
          oldest: rows.find(({ sender }) => sender === alice)?.id,
          expected: flood[15]?.deliveryId,
          reports: queue.reportsFor(alice).length,
        };
      },
      { queueMax: 10_000 },
    );
    expect(seen).toMatchObject({ n: 1_000, carols: 5, oldest: seen.expected });
    // What has given way is reported all the same.
    expect(seen.reports).toBe(500);
  });

  test("are 64 MiB at most", async () => {
    const counts = await onQueue(({ queue, take, sql }) => {
      const bytes = 1_048_576;
      for (let n = 0; n < 64; n += 8) {
        for (const sender of [carol, alice]) {
          const some = many(sender === carol ? 1 : 8, { bytes });
          take(sender, some);
          for (const { deliveryId } of some) acknowledge(queue, deliveryId, false, null, START_MS);
        }
      }
      return sql
        .exec<{ sender: string; n: number }>(
          "SELECT sender, COUNT(*) AS n FROM inbound WHERE state = 2 GROUP BY sender",
        )
        .toArray();
    });
    expect(counts).toHaveLength(2);
    expect(counts).toEqual(
      expect.arrayContaining([
        { sender: alice, n: 56 },
        { sender: carol, n: 8 },
      ]),
    );
  });

  test("that are replayed need room in the queue as every message does, or stay dead", async () => {
    const seen = await onQueue(
      ({ queue, take }) => {
        const dead = many(3);
        take(alice, dead.slice(0, 2));
        for (const { deliveryId } of dead.slice(0, 2)) acknowledge(queue, deliveryId, false, null, START_MS);
        take(alice, many(2));
        const replay = () => queue.replay(dead[0]?.deliveryId ?? "", START_MS);
        const verdicts = [outcomeOf(replay)];
        queue.endSender(alice, "away", START_MS);
        verdicts.push(outcomeOf(replay));
        return { verdicts, letters: queue.deadLetters(null, 10).length };
      },
      { queueMax: 10 },
    );
    expect(seen).toEqual({ verdicts: ["PROXY_RELAY_QUEUE_FULL", true], letters: 3 });
  });

  test("are forgotten after their time, delivered ones once they are reported, and nothing that is pending", async () => {
    const seen = await onQueue(({ queue, take, sql }) => {
      const [delivered, dead, pending] = many(3) as [QueuedMessage, QueuedMessage, QueuedMessage];
      const count = () => sql.exec<{ n: number }>("SELECT COUNT(*) AS n FROM inbound").one().n;
      take(alice, [delivered, dead]);
      acknowledge(queue, delivered.deliveryId, true, null, START_MS);
      acknowledge(queue, dead.deliveryId, false, null, START_MS);
      queue.reported(alice, queue.reportsFor(alice), START_MS);
      take(alice, [pending]);
      acknowledge(queue, pending.deliveryId, true, null, START_MS);
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
    expect(seen).toEqual({ due: [week, week, week, week], counts: [2, 2, 2, 1], end: null });
  });
});
