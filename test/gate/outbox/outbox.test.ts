import { describe, expect, test } from "vitest";
import { createDeliveryIds } from "../../../src/gate/outbox/delivery-id.ts";
import { createOutbox, type Draft, type Outbox } from "../../../src/gate/outbox/outbox.ts";
import { GateRefusal } from "../../../src/gate/protocol/refusal.ts";
import {
  BATCH_TICK_MS,
  HELD_BYTES_MAX,
  TRANSFER_BYTES_MAX,
  TRANSFER_BATCH_MAX,
} from "../../../src/gate/protocol/transfer.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import { newAgentDid, onStorage, START_MS } from "../../support/gate.ts";

const DAY_MS = 86_400_000;
const bob = newAgentDid();
const carol = newAgentDid();

type Desk = {
  outbox: Outbox;
  sql: SqlStorage;
  anew: () => Outbox;
  accept: (over?: Partial<Draft>, nowMs?: number) => string;
};

function onOutbox<T>(work: (desk: Desk) => T, outboxMax = 500): Promise<T> {
  return onStorage((sql) => {
    const open = () => {
      const { last } = sql.exec<{ last: string | null }>("SELECT MAX(delivery_id) AS last FROM outbox").one();
      return createOutbox(sql, { outboxMax }, createDeliveryIds(last));
    };
    const outbox = open();
    const accept = (over: Partial<Draft> = {}, nowMs = START_MS): string =>
      outbox.accept(draft(over), nowMs).deliveryId;
    return work({ outbox, sql, anew: open, accept });
  });
}

const draft = (over: Partial<Draft> = {}): Draft => ({ to: bob, bytes: 2, envelope: "{}", body: "{}", ...over });

/** What a refusal says, or "accepted". */
function verdict(work: () => unknown): string {
  try {
    work();
    return "accepted";
  } catch (error) {
    if (error instanceof GateRefusal) return error.refusal.reason;
    throw error;
  }
}

/** Hands a batch over as the exchange does; the recipient takes what it is told to. */
function handOver(outbox: Outbox, to: AgentDid, taken: number | "all", nowMs: number): number {
  const batch = outbox.nextBatch(to);
  outbox.recordHandedOver(outbox.handedOver(to, batch.length, taken === "all" ? batch.length : taken, nowMs), nowMs);
  return batch.length;
}

const delivered = (deliveryId: string) => ({ deliveryId, delivered: true, reason: null, attempts: 1, atMs: START_MS });
const dead = (deliveryId: string) => ({ deliveryId, delivered: false, reason: "expired", attempts: 0, atMs: START_MS });

describe("an outbox", () => {
  test("holds 500 messages and refuses the next until one is taken over", async () => {
    const seen = await onOutbox(({ outbox, accept, anew }) => {
      for (let n = 0; n < 500; n++) accept({ to: n % 2 === 0 ? bob : carol });
      const full = [verdict(() => accept()), verdict(() => anew().accept(draft(), START_MS))];
      handOver(outbox, bob, 1, START_MS);
      return { full, room: verdict(() => accept()), again: verdict(() => accept()) };
    });
    expect(seen).toEqual({
      full: ["gate-outbox-full", "gate-outbox-full"],
      room: "accepted",
      again: "gate-outbox-full",
    });
  });

  test("holds 64 MiB", async () => {
    const seen = await onOutbox(({ accept, anew }) => {
      for (let n = 0; n < 64; n++) accept({ bytes: 1_048_576 });
      return [verdict(() => accept({ bytes: 1 })), verdict(() => anew().accept(draft({ bytes: 1 }), START_MS))];
    });
    expect(HELD_BYTES_MAX).toBe(64 * 1_048_576);
    expect(seen).toEqual(["gate-outbox-full", "gate-outbox-full"]);
  });

  test("counts what waits for one recipient, taken over or not, until it has ended", async () => {
    const depths = await onOutbox(({ outbox, accept, anew }) => {
      const depth = (box = outbox) => box.accept(draft(), START_MS).queueDepth;
      const first = accept();
      accept({ to: carol });
      const before = depth();
      handOver(outbox, bob, "all", START_MS);
      const handedOver = depth();
      outbox.settle([delivered(first)], START_MS);
      return [before, handedOver, depth(), depth(anew())];
    });
    expect(depths).toEqual([2, 3, 3, 4]);
  });
});

const key = (bodySha256: string, over: Partial<Draft> = {}) => ({ idempotency: { key: "k", bodySha256 }, ...over });

describe("an idempotency key", () => {
  test("gives the same id for the same body, refuses another, per recipient, for 24 hours", async () => {
    const seen = await onOutbox(({ outbox, accept, anew }) => {
      const first = accept(key("a"));
      return {
        repeat: accept(key("a")) === first,
        afterEviction: anew().accept(draft(key("a")), START_MS).deliveryId === first,
        other: verdict(() => accept(key("b"))),
        otherRecipient: accept(key("b", { to: carol })) !== first,
        lastMoment: accept(key("a"), START_MS + DAY_MS - 1) === first,
        nextDay: accept(key("b"), START_MS + DAY_MS) !== first,
        held: outbox.nextBatch(bob).length,
      };
    });
    expect(seen).toEqual({
      repeat: true,
      afterEviction: true,
      other: "gate-idempotency-conflict",
      otherRecipient: true,
      lastMoment: true,
      nextDay: true,
      held: 2,
    });
  });

  test("is answered also when the outbox is full, and says when the message was delivered", async () => {
    const seen = await onOutbox(({ outbox, accept }) => {
      const first = accept(key("a"));
      const full = [verdict(() => accept()), verdict(() => accept(key("a")))];
      handOver(outbox, bob, "all", START_MS);
      outbox.settle([delivered(first)], START_MS);
      return { full, repeat: outbox.accept(draft(key("a")), START_MS) };
    }, 1);
    expect(seen.full).toEqual(["gate-outbox-full", "accepted"]);
    expect(seen.repeat).toMatchObject({ delivered: true, queueDepth: 0 });
  });
});

describe("handing over", () => {
  test("goes at once in a lull, then by the tick, in order and in batches", async () => {
    const seen = await onOutbox(({ outbox, accept }) => {
      accept();
      const atOnce = outbox.dueRecipients(START_MS);
      handOver(outbox, bob, "all", START_MS);
      const next = [accept({}, START_MS + 1), accept({}, START_MS + 2)];
      const early = outbox.dueRecipients(START_MS + BATCH_TICK_MS - 1);
      const due = outbox.dueRecipients(START_MS + BATCH_TICK_MS);
      return { atOnce, early, due, inOrder: outbox.nextBatch(bob).map(({ deliveryId }) => deliveryId), next };
    });
    expect(seen).toMatchObject({ atOnce: [bob], early: [], due: [bob] });
    expect(seen.inOrder).toEqual(seen.next);
  });

  test("carries at most 100 messages and 4 MiB at once, and one message however large", async () => {
    const sizes = await onOutbox(({ outbox, accept }) => {
      for (let n = 0; n < 150; n++) accept();
      for (let n = 0; n < 10; n++) accept({ to: carol, bytes: 1_000_000 });
      return [outbox.nextBatch(bob).length, outbox.nextBatch(carol).length];
    });
    expect(sizes).toEqual([TRANSFER_BATCH_MAX, Math.floor(TRANSFER_BYTES_MAX / 1_000_000)]);
  });

  test("asks a full queue with one message, ever more rarely but at least every six seconds, and goes on in batches when it takes it", async () => {
    const seen = await onOutbox(({ outbox, accept }) => {
      for (let n = 0; n < 50; n++) accept();
      let nowMs = START_MS;
      const offered: number[] = [];
      const waits: number[] = [];
      const offer = (taken: number | "all"): void => {
        offered.push(handOver(outbox, bob, taken, nowMs));
        const due = outbox.nextDueMs();
        if (due === null) return;
        waits.push(due - nowMs);
        nowMs = due;
      };
      offer(10);
      for (let n = 0; n < 12; n++) offer(0);
      offer("all");
      offer("all");
      return { offered, longest: Math.max(...waits), shortest: Math.min(...waits), held: outbox.isHolding() };
    });
    expect(seen.offered).toEqual([50, ...Array.from({ length: 13 }, () => 1), 39]);
    expect(seen.longest).toBeGreaterThanOrEqual(4_000);
    expect(seen.longest).toBeLessThanOrEqual(6_000);
    expect(seen.shortest).toBeGreaterThanOrEqual(200);
    expect(seen.held).toBe(false);
  });

  test("that got no answer offers the same again, also after an eviction", async () => {
    const seen = await onOutbox(({ outbox, accept, anew }) => {
      const ids = [accept(), accept()];
      outbox.nextBatch(bob);
      const whileBusy = [outbox.dueRecipients(START_MS + 60_000), outbox.nextDueMs(), outbox.isHolding()];
      outbox.handOverFailed(bob, START_MS);
      return {
        whileBusy,
        again: outbox.nextBatch(bob).map(({ deliveryId }) => deliveryId),
        woken: anew()
          .nextBatch(bob)
          .map(({ deliveryId }) => deliveryId),
        ids,
      };
    });
    expect(seen.whileBusy).toEqual([[], null, true]);
    expect(seen.again).toEqual(seen.ids.slice(0, 1));
    expect(seen.woken).toEqual(seen.ids);
  });

  test("whose report overtakes its answer counts once, whichever way the answer goes", async () => {
    const seen = await onOutbox(({ outbox, accept, sql }) => {
      const [answered, lost] = [accept(), accept({ to: carol })] as [string, string];
      outbox.nextBatch(bob);
      outbox.nextBatch(carol);
      outbox.settle([delivered(answered), delivered(lost)], START_MS);
      outbox.recordHandedOver(outbox.handedOver(bob, 1, 1, START_MS), START_MS);
      outbox.handOverFailed(carol, START_MS);
      const again = outbox.nextBatch(carol);
      return {
        again,
        holding: outbox.isHolding(),
        due: outbox.nextDueMs(),
        states: sql.exec("SELECT DISTINCT state FROM outbox").toArray(),
        depth: outbox.accept(draft(), START_MS).queueDepth,
      };
    });
    expect(seen).toEqual({ again: [], holding: false, due: null, states: [{ state: 2 }], depth: 1 });
  });

  test("leaves neither body nor envelope behind", async () => {
    const row = await onOutbox(({ outbox, accept, sql }) => {
      accept({ body: '"secret"', envelope: '{"replyTo":"https://secret.example"}' });
      handOver(outbox, bob, "all", START_MS);
      return sql.exec("SELECT body, envelope FROM outbox").one();
    });
    expect(row).toEqual({ body: null, envelope: "{}" });
  });
});

describe("what became of a message", () => {
  test("is told until 24 hours after its end, however it ended", async () => {
    const seen = await onOutbox(({ outbox, accept }) => {
      const [one, two, three] = [accept({}, START_MS), accept(), accept()] as [string, string, string];
      handOver(outbox, bob, "all", START_MS);
      outbox.settle([delivered(one), { ...dead(two), atMs: START_MS + 5 }], START_MS + 5);
      const at = (id: string, afterMs: number) => outbox.status(id, START_MS + 5 + afterMs)?.state ?? null;
      return {
        told: [outbox.status(one, START_MS + 5), outbox.status(two, START_MS + 5)],
        states: [at(one, DAY_MS - 1), at(one, DAY_MS), at(two, DAY_MS), at(three, 10 * DAY_MS), at("unknown", 0)],
      };
    });
    expect(seen.told).toMatchObject([
      { state: "delivered", attempts: 1, updatedAtMs: START_MS + 5 },
      { state: "dead_lettered", reason: "expired", attempts: 0, updatedAtMs: START_MS + 5 },
    ]);
    expect(seen.states).toEqual(["delivered", null, null, "queued", null]);
  });

  test("changes once: repeats change nothing, a replayed dead letter may still be delivered, and delivered it stays", async () => {
    const seen = await onOutbox(({ outbox, accept }) => {
      const id = accept();
      handOver(outbox, bob, "all", START_MS);
      const receipts = [dead(id), dead(id), delivered(id), delivered(id), dead(id)].map(
        (outcome) => outbox.settle([outcome], START_MS).length,
      );
      return {
        receipts,
        state: outbox.status(id, START_MS)?.state,
        due: outbox.dueReceipts().length,
        depth: outbox.accept(draft(), START_MS).queueDepth,
      };
    });
    expect(seen).toEqual({ receipts: [1, 0, 1, 0, 0], state: "delivered", due: 0, depth: 1 });
  });
});

describe("receipts of dead letters", () => {
  test("are kept for a sender that is offline until they are told, over an eviction too", async () => {
    const seen = await onOutbox(({ outbox, accept, anew }) => {
      const [one, two] = [accept({ originFrameId: "frame" }), accept()] as [string, string];
      handOver(outbox, bob, "all", START_MS);
      outbox.settle([dead(one), dead(two)], START_MS);
      outbox.receiptTold(two);
      return { due: anew().dueReceipts(), one };
    });
    expect(seen.due).toEqual([
      { deliveryId: seen.one, toAgentDid: bob, originFrameId: "frame", delivered: false, reason: "expired" },
    ]);
  });

  test("that nobody comes for keep nothing else from being forgotten, and go after a week", async () => {
    const seen = await onOutbox(({ outbox, sql }) => {
      const put = (n: number, receiptDue: number) =>
        sql.exec(
          "INSERT INTO outbox (delivery_id, to_did, state, bytes, created_at_ms, updated_at_ms, receipt_due, envelope) VALUES (?, ?, 3, 0, ?, ?, ?, '{}')",
          String(n).padStart(26, "0"),
          bob,
          START_MS,
          START_MS,
          receiptDue,
        );
      for (let n = 0; n < 2_500; n++) put(n, 1);
      for (let n = 2_500; n < 2_600; n++) put(n, 0);
      const count = () => sql.exec<{ n: number }>("SELECT COUNT(*) AS n FROM outbox").one().n;
      const first = outbox.nextPruneMs();
      outbox.prune(START_MS + DAY_MS);
      const afterADay = count();
      const next = outbox.nextPruneMs();
      for (let turn = 0; turn < 5; turn++) outbox.prune(START_MS + 7 * DAY_MS);
      return { first, afterADay, next, end: count(), due: outbox.nextPruneMs() };
    });
    expect(seen).toEqual({
      first: START_MS + DAY_MS,
      afterADay: 2_500,
      next: START_MS + 7 * DAY_MS,
      end: 0,
      due: null,
    });
  });
});
