/** A send to all of a group in its sender's outbox: all or none, one body, and bounds that count what is stored. */
import { describe, expect, test } from "vitest";
import { createDeliveryIds } from "../../../src/gate/outbox/delivery-id.ts";
import { createOutbox, type GroupDraft, type Outbox, type OutboxLimits } from "../../../src/gate/outbox/outbox.ts";
import { GateRefusal } from "../../../src/gate/protocol/refusal.ts";
import type { FannedOut } from "../../../src/gate/protocol/submission.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import { newGroupId } from "../../../src/wire/group-id.ts";
import { newAgentDid, onStorage, START_MS } from "../../support/gate.ts";

const LIMITS: OutboxLimits = { outboxMax: 500, ttlMs: 3_600_000, batchMs: 0 };
const RECORDED_MS = 2_000;
const MIB = 1_048_576;
const groupId = newGroupId(START_MS);
const members = Array.from({ length: 100 }, newAgentDid);
const [bob, carol] = members as [AgentDid, AgentDid];

type Desk = { outbox: Outbox; sql: SqlStorage; storage: DurableObjectStorage; anew: () => Outbox };

function onOutbox<T>(work: (desk: Desk) => T, over: Partial<OutboxLimits> = {}): Promise<T> {
  return onStorage((sql, storage) => {
    const open = (): Outbox => {
      const { last } = sql.exec<{ last: string | null }>("SELECT MAX(delivery_id) AS last FROM outbound").one();
      return createOutbox(sql, { ...LIMITS, ...over }, createDeliveryIds(last));
    };
    return work({ outbox: open(), sql, storage, anew: open });
  });
}

const draft = (over: Partial<GroupDraft> = {}): GroupDraft => ({
  groupId,
  members: [bob, carol],
  bytes: 2,
  envelope: '{"e":1}',
  body: "{}",
  ...over,
});

const bodies = (sql: SqlStorage): number => sql.exec("SELECT 1 FROM shared_bodies").toArray().length;
const delivered = (deliveryId: string) => ({ deliveryId, delivered: true, reason: null, attempts: 1, atMs: START_MS });
const dead = (deliveryId: string) => ({ deliveryId, delivered: false, reason: "no", attempts: 3, atMs: START_MS });
const handOver = (outbox: Outbox, to: AgentDid, nowMs = START_MS): void => {
  const batch = outbox.nextBatch(to);
  outbox.handedOver(to, batch.length, batch.length, nowMs);
};
const refusedBy = (work: () => unknown): string | null => {
  try {
    work();
    return null;
  } catch (error) {
    if (error instanceof GateRefusal) return error.refusal.reason;
    throw error;
  }
};
const idOf = (sent: readonly FannedOut[], to: AgentDid): string =>
  sent.find(({ agentDid }) => agentDid === to)?.deliveryId ?? "";

describe("a message to all of a group", () => {
  test("is stored with one body, and offered to each with all of it, also after an eviction", async () => {
    const seen = await onOutbox(({ outbox, sql, anew }) => {
      const sent = outbox.acceptForGroup(draft({ members, body: '"long"', bytes: 6 }), START_MS);
      const offered = [outbox, anew()].map((box) => members.map((to) => box.nextBatch(to)[0]));
      return {
        ids: new Set(sent.map(({ deliveryId }) => deliveryId)).size,
        own: sql.exec("SELECT 1 FROM outbound WHERE body IS NOT NULL").toArray().length,
        stored: sql.exec("SELECT body FROM shared_bodies").toArray(),
        offered: offered.map((messages) =>
          messages.every(
            (message, n) =>
              message?.body === '"long"' &&
              message.envelope === '{"e":1}' &&
              message.deliveryId === idOf(sent, members[n] as AgentDid),
          ),
        ),
      };
    });
    expect(seen).toEqual({ ids: 100, own: 0, stored: [{ body: '"long"' }], offered: [true, true] });
  });

  test.each([
    ["delivered", (box: Outbox, id: string) => void box.settle([delivered(id)], START_MS)],
    ["a dead letter", (box: Outbox, id: string) => void box.settle([dead(id)], START_MS)],
    [
      "with its recipient's gate for a while",
      (box: Outbox, _id: string, to: AgentDid) => {
        handOver(box, to);
        box.recordHandedOver(START_MS + RECORDED_MS);
      },
    ],
  ])("keeps its body until the last of it is %s, and no longer", async (_how, end) => {
    for (const isEvicted of [false, true]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const seen = await onOutbox(({ outbox, sql, anew }) => {
        const sent = outbox.acceptForGroup(draft(), START_MS);
        end(outbox, idOf(sent, bob), bob);
        const box = isEvicted ? anew() : outbox;
        const before = bodies(sql);
        end(box, idOf(sent, carol), carol);
        end(box, idOf(sent, carol), carol);
        return [before, bodies(sql)];
      });
      expect(seen).toEqual([1, 0]);
    }
  });

  test("keeps its body while one has waited too long and another waits", async () => {
    const seen = await onOutbox(({ outbox, sql }) => {
      outbox.acceptForGroup(draft(), START_MS);
      outbox.expire(bob, START_MS + LIMITS.ttlMs);
      const before = bodies(sql);
      outbox.expire(carol, START_MS + LIMITS.ttlMs);
      return [before, bodies(sql)];
    });
    expect(seen).toEqual([1, 0]);
  });

  test("counts each of its messages, and its body once, until the last is taken over", async () => {
    const seen = await onOutbox(({ outbox, anew }) => {
      const fill = (box: Outbox): (string | null)[] =>
        Array.from({ length: 7 }, () =>
          refusedBy(() => box.acceptForGroup(draft({ members: members.slice(0, 99) }), START_MS)),
        );
      const counted = fill(outbox);
      const again = refusedBy(() => anew().acceptForGroup(draft({ members: members.slice(0, 6) }), START_MS));
      const room = refusedBy(() => anew().acceptForGroup(draft({ members: members.slice(0, 5) }), START_MS));
      return { counted, again, room };
    });
    expect(seen).toEqual({
      counted: [null, null, null, null, null, "gate-outbox-full", "gate-outbox-full"],
      again: "gate-outbox-full",
      room: null,
    });
    const large = await onOutbox(({ outbox, anew }) => {
      const send = (box: Outbox): string | null => refusedBy(() => box.acceptForGroup(draft({ bytes: MIB }), START_MS));
      const taken = Array.from({ length: 64 }, () => send(outbox)).filter((reason) => reason === null).length;
      const full = [send(outbox), send(anew())];
      handOver(outbox, bob);
      const half = send(outbox);
      handOver(outbox, carol);
      return { taken, full, half, room: send(outbox) };
    });
    expect(large).toEqual({
      taken: 64,
      full: ["gate-outbox-full", "gate-outbox-full"],
      // Each body is there still, for the other.
      half: "gate-outbox-full",
      room: null,
    });
  });

  test("is written whole or not at all", async () => {
    const seen = await onOutbox(({ outbox, sql, storage, anew }) => {
      sql.exec(
        "CREATE TRIGGER full BEFORE INSERT ON outbound WHEN (SELECT COUNT(*) FROM outbound) = 40 BEGIN SELECT RAISE(ABORT, 'disk full'); END",
      );
      let failed = "";
      try {
        storage.transactionSync(() => outbox.acceptForGroup(draft({ members }), START_MS));
      } catch (error) {
        failed = String(error);
      }
      return {
        failed,
        rows: sql.exec("SELECT 1 FROM outbound").toArray().length,
        bodies: bodies(sql),
        held: anew().isHolding(),
      };
    });
    expect(seen).toMatchObject({ rows: 0, bodies: 0, held: false });
    expect(seen.failed).toContain("disk full");
  });

  test("under an idempotency key is the same messages again, and another body is refused", async () => {
    const seen = await onOutbox(({ outbox, anew, sql }) => {
      const keyed = (bodySha256: string) => draft({ idempotency: { key: "k", bodySha256 } });
      const first = outbox.acceptForGroup(keyed("a"), START_MS);
      outbox.accept({ to: bob, bytes: 2, envelope: "{}", body: "{}" }, START_MS);
      const again = [outbox, anew()].map((box) => box.acceptForGroup({ ...keyed("a"), members }, START_MS));
      const other = refusedBy(() => outbox.acceptForGroup(keyed("b"), START_MS));
      // The same key towards one of them is another matter.
      const direct = refusedBy(() =>
        outbox.accept(
          { to: bob, bytes: 2, envelope: "{}", body: "{}", idempotency: { key: "k", bodySha256: "b" } },
          START_MS,
        ),
      );
      return { first, again, other, direct, bodies: bodies(sql) };
    });
    expect(seen.first).toHaveLength(2);
    expect(seen.again).toEqual([seen.first, seen.first]);
    expect([seen.other, seen.direct, seen.bodies]).toEqual(["gate-idempotency-conflict", null, 1]);
  });

  test("of 100 writes no more than a row more than 100 messages do", async () => {
    const written = await onOutbox(({ outbox, sql }) => {
      const total = (work: () => unknown): number => {
        const before = sql.exec<{ n: number }>("SELECT total_changes() AS n").one().n;
        work();
        return sql.exec<{ n: number }>("SELECT total_changes() AS n").one().n - before;
      };
      const one = total(() => outbox.acceptForGroup(draft({ members }), START_MS));
      const each = total(() => {
        for (const to of members) outbox.accept({ to, bytes: 2, envelope: "{}", body: "{}" }, START_MS);
      });
      return { one, each };
    });
    expect(written).toEqual({ one: 101, each: 100 });
  });
});
