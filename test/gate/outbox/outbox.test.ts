import { describe, expect, test } from "vitest";
import { createDeliveryIds } from "../../../src/gate/outbox/delivery-id.ts";
import { createOutbox, type Draft, type Outbox, type OutboxLimits } from "../../../src/gate/outbox/outbox.ts";
import { GateRefusal } from "../../../src/gate/protocol/refusal.ts";
import { HELD_BYTES_MAX, TRANSFER_BYTES_MAX, TRANSFER_BATCH_MAX } from "../../../src/gate/protocol/transfer.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import { newAgentDid, onStorage, START_MS } from "../../support/gate.ts";

const DAY_MS = 86_400_000;
const bob = newAgentDid();
const carol = newAgentDid();
const dave = newAgentDid();

type Desk = {
  outbox: Outbox;
  sql: SqlStorage;
  anew: () => Outbox;
  accept: (over?: Partial<Draft>, nowMs?: number) => string;
};

const LIMITS: OutboxLimits = { outboxMax: 500, ttlMs: 3_600_000, batchMs: 0 };
/** That a recipient has a message is on disk after so long. */
const RECORDED_MS = 2_000;

function onOutbox<T>(work: (desk: Desk) => T, over: Partial<OutboxLimits> = {}): Promise<T> {
  return onStorage((sql) => {
    const open = () => {
      const { last } = sql.exec<{ last: string | null }>("SELECT MAX(delivery_id) AS last FROM outbound").one();
      return createOutbox(sql, { ...LIMITS, ...over }, createDeliveryIds(last));
    };
    const outbox = open();
    const accept = (of: Partial<Draft> = {}, nowMs = START_MS): string => outbox.accept(draft(of), nowMs).deliveryId;
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

/** Hands a batch over as the transfer does; the recipient takes what the test says. */
function handOver(outbox: Outbox, to: AgentDid, taken: number | "all", nowMs: number): number {
  const batch = outbox.nextBatch(to);
  outbox.handedOver(to, batch.length, taken === "all" ? batch.length : taken, nowMs);
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
    const seen = await onOutbox(
      ({ outbox, accept }) => {
        const first = accept(key("a"));
        const full = [verdict(() => accept()), verdict(() => accept(key("a")))];
        handOver(outbox, bob, "all", START_MS);
        outbox.settle([delivered(first)], START_MS);
        return { full, repeat: outbox.accept(draft(key("a")), START_MS) };
      },
      { outboxMax: 1 },
    );
    expect(seen.full).toEqual(["gate-outbox-full", "accepted"]);
    expect(seen.repeat).toMatchObject({ state: "delivered", queueDepth: 0 });
  });
});

describe("handing over", () => {
  test("goes at once when none is in progress, and what has come meanwhile goes with the next, in order", async () => {
    const seen = await onOutbox(({ outbox, accept }) => {
      accept();
      const atOnce = outbox.dueRecipients(START_MS);
      outbox.nextBatch(bob);
      const next = [accept(), accept()];
      const whileBusy = outbox.dueRecipients(START_MS);
      outbox.handedOver(bob, 1, 1, START_MS);
      const due = outbox.dueRecipients(START_MS);
      return { atOnce, whileBusy, due, inOrder: outbox.nextBatch(bob).map(({ deliveryId }) => deliveryId), next };
    });
    expect(seen).toMatchObject({ atOnce: [bob], whileBusy: [], due: [bob] });
    expect(seen.inOrder).toEqual(seen.next);
  });

  test("waits for more after the last where that is asked for", async () => {
    const seen = await onOutbox(
      ({ outbox, accept }) => {
        accept();
        const atOnce = outbox.dueRecipients(START_MS);
        handOver(outbox, bob, "all", START_MS);
        accept({}, START_MS + 1);
        return [atOnce, outbox.dueRecipients(START_MS + 249), outbox.dueRecipients(START_MS + 250)];
      },
      { batchMs: 250 },
    );
    expect(seen).toEqual([[bob], [], [bob]]);
  });

  test("carries at most 100 messages and 1 MiB at once, and one message however large", async () => {
    const sizes = await onOutbox(({ outbox, accept }) => {
      for (let n = 0; n < 150; n++) accept();
      for (let n = 0; n < 20; n++) accept({ to: carol, bytes: 100_000 });
      for (let n = 0; n < 2; n++) accept({ to: dave, bytes: 2 * TRANSFER_BYTES_MAX });
      return [bob, carol, dave].map((to) => outbox.nextBatch(to).length);
    });
    expect(sizes).toEqual([TRANSFER_BATCH_MAX, 10, 1]);
  });

  test("asks a full queue with one message, soon, then ever more rarely but at least every six seconds, and goes on in batches when it takes it", async () => {
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
    expect(seen.shortest).toBeLessThanOrEqual(24);
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
      outbox.handedOver(bob, 1, 1, START_MS);
      outbox.recordHandedOver(START_MS + RECORDED_MS);
      outbox.handOverFailed(carol, START_MS);
      const again = outbox.nextBatch(carol);
      return {
        again,
        holding: outbox.isHolding(),
        due: outbox.nextDueMs(),
        states: sql.exec("SELECT DISTINCT state FROM outbound").toArray(),
        depth: outbox.accept(draft(), START_MS).queueDepth,
      };
    });
    expect(seen).toEqual({ again: [], holding: false, due: null, states: [{ state: 2 }], depth: 1 });
  });

  test("leaves neither body nor envelope behind, two seconds later or at its end", async () => {
    const seen = await onOutbox(({ outbox, accept, sql }) => {
      const [one, two] = [1, 2].map((n) =>
        accept({ body: '"secret"', envelope: '{"replyTo":"https://secret.example"}' }, START_MS + n),
      ) as [string, string];
      const look = () => sql.exec("SELECT state, body, envelope FROM outbound ORDER BY delivery_id").toArray();
      handOver(outbox, bob, "all", START_MS);
      const before = [look()[0]?.["state"], outbox.nextRecordMs(), outbox.status(one, START_MS)?.handedOver];
      outbox.settle([delivered(two)], START_MS);
      outbox.recordHandedOver(START_MS + RECORDED_MS);
      return { before, after: look(), next: outbox.nextRecordMs() };
    });
    expect(seen.before).toEqual([0, START_MS + RECORDED_MS, true]);
    expect(seen.after).toEqual([1, 2].map((state) => ({ state, body: null, envelope: "{}" })));
    expect(seen.next).toBeNull();
  });

  test("that was not written down is made again after a crash", async () => {
    const woken = await onOutbox(({ outbox, accept, anew }) => {
      const ids = [accept(), accept()];
      handOver(outbox, bob, "all", START_MS);
      return {
        again: anew()
          .nextBatch(bob)
          .map(({ deliveryId }) => deliveryId),
        ids,
      };
    });
    expect(woken.again).toEqual(woken.ids);
  });

  test("to a gate that never answers ends at the message's time, with a receipt, and what is younger stays", async () => {
    const seen = await onOutbox(({ outbox, accept }) => {
      const old = accept({ originFrameId: "frame" }, START_MS);
      const young = accept({}, START_MS + 1_000);
      const early = outbox.hasExpired(bob, START_MS + LIMITS.ttlMs - 1);
      const atMs = START_MS + LIMITS.ttlMs;
      const isDue = outbox.hasExpired(bob, atMs);
      const receipts = outbox.expire(bob, atMs);
      return {
        due: [early, isDue],
        receipts: receipts.map(({ deliveryId, status: got, reason }) => [deliveryId === old, got, reason]),
        state: outbox.status(old, atMs)?.state,
        kept: outbox.receiptsDue(null).length,
        next: outbox.nextBatch(bob).map(({ deliveryId }) => deliveryId === young),
        // The recipient may have had it all the same, and says so later.
        later: outbox.settle([delivered(old)], atMs + 1).length,
      };
    });
    expect(seen).toEqual({
      due: [false, true],
      receipts: [[true, "dead_lettered", "expired"]],
      state: "dead_lettered",
      kept: 1,
      next: [true],
      later: 1,
    });
  });
});

describe("what became of a message", () => {
  test("is known until 24 hours after its end, however it ended", async () => {
    const seen = await onOutbox(({ outbox, accept }) => {
      const [one, two, three] = [accept({}, START_MS), accept(), accept()] as [string, string, string];
      handOver(outbox, bob, "all", START_MS);
      outbox.settle([delivered(one), { ...dead(two), atMs: START_MS + 5 }], START_MS + 5);
      const at = (id: string, afterMs: number) => outbox.status(id, START_MS + 5 + afterMs)?.state ?? null;
      return {
        known: [outbox.status(one, START_MS + 5), outbox.status(two, START_MS + 5)],
        states: [at(one, DAY_MS - 1), at(one, DAY_MS), at(two, DAY_MS), at(three, 10 * DAY_MS), at("unknown", 0)],
      };
    });
    expect(seen.known).toMatchObject([
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
        due: outbox.receiptsDue(null).length,
        depth: outbox.accept(draft(), START_MS).queueDepth,
      };
    });
    expect(seen).toEqual({ receipts: [1, 0, 1, 0, 0], state: "delivered", due: 0, depth: 1 });
  });
});

describe("a waking", () => {
  test("reads what is open and not what has ended, a replayed letter of long ago included", async () => {
    const seen = await onOutbox(({ outbox, accept, anew, sql }) => {
      const ids = Array.from({ length: 5 }, (_, n) => accept({}, START_MS + n));
      handOver(outbox, bob, "all", START_MS);
      outbox.settle([dead(ids[0] ?? ""), delivered(ids[1] ?? "")], START_MS);
      outbox.recordHandedOver(START_MS + RECORDED_MS);
      outbox.prune(START_MS + 1);
      const depth = () => anew().queueDepth(bob);
      const mark = () =>
        sql.exec<{ value: string }>("SELECT value FROM meta WHERE name = 'outbound_open_from'").one().value;
      const before = [depth(), ids.indexOf(mark())];
      outbox.settle([{ ...dead(ids[0] ?? ""), atMs: START_MS + 1, waitsAgain: true }], START_MS + 1);
      return [before, [depth(), ids.indexOf(mark())]];
    });
    expect(seen).toEqual([
      [3, 2],
      [4, 0],
    ]);
  });
});

describe("receipts of dead letters", () => {
  test("are kept for a sender until it confirms them, over an eviction too", async () => {
    const seen = await onOutbox(({ outbox, accept, anew }) => {
      const [one, two] = [accept({ originFrameId: "frame" }), accept()] as [string, string];
      handOver(outbox, bob, "all", START_MS);
      outbox.settle([dead(one), dead(two)], START_MS);
      outbox.receiptsConfirmed([two]);
      return { due: anew().receiptsDue(null), one };
    });
    expect(seen.due).toEqual([
      { deliveryId: seen.one, toAgentDid: bob, originFrameId: "frame", status: "dead_lettered", reason: "expired" },
    ]);
  });

  test("that are not confirmed keep nothing else from being forgotten, and go after a week", async () => {
    const seen = await onOutbox(({ outbox, sql }) => {
      const put = (n: number, receiptDue: number) =>
        sql.exec(
          "INSERT INTO outbound (delivery_id, to_did, state, bytes, created_at_ms, updated_at_ms, receipt_due, envelope) VALUES (?, ?, 3, 0, ?, ?, ?, '{}')",
          String(n).padStart(26, "0"),
          bob,
          START_MS,
          START_MS,
          receiptDue,
        );
      for (let n = 0; n < 2_500; n++) put(n, 1);
      for (let n = 2_500; n < 2_600; n++) put(n, 0);
      const count = () => sql.exec<{ n: number }>("SELECT COUNT(*) AS n FROM outbound").one().n;
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
