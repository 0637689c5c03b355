import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { createDeliveryIds } from "../../../src/gate/outbox/delivery-id.ts";
import { createOutbox } from "../../../src/gate/outbox/outbox.ts";
import { createQueue } from "../../../src/gate/queue/queue.ts";
import { migrate } from "../../../src/gate/storage/schema.ts";
import { newAgentDid, START_MS } from "../../support/gate.ts";
import { LIMITS, socket } from "../../support/queue-desk.ts";

/** The last version with messages in the tables of before. */
const BEFORE = 6;
const sender = newAgentDid();
const recipient = newAgentDid();
const idOf = (n: number): string => `01K${String(n).padStart(23, "0")}`;

const QUEUED = `INSERT INTO queue (delivery_id, lane, state, bytes, created_at_ms, updated_at_ms, attempts, due_at_ms,
  socket_id, reason, reported, envelope, body) VALUES (?, ?, ?, 7, ?, ?, ?, ?, ?, ?, ?, '{"fromAgentDid":null}', ?)`;
const SENT = `INSERT INTO outbox (delivery_id, to_did, state, bytes, created_at_ms, updated_at_ms, reason, receipt_due,
  envelope, body) VALUES (?, ?, ?, 7, ?, ?, ?, ?, '{}', ?)`;

/** Five hundred of each that wait, and some of everything else, as an installation of before has them. */
function fill(sql: SqlStorage): void {
  for (let n = 0; n < 500; n++) {
    const isPushed = n < 20;
    const of = [isPushed ? 1 : 0, START_MS + (isPushed ? 30_000 : 0), isPushed ? "s1" : null, null, 0] as const;
    sql.exec(QUEUED, idOf(n), sender, 0, START_MS, START_MS, ...of, `{"n":${n}}`);
    sql.exec(SENT, idOf(n), recipient, 0, START_MS, START_MS, null, 0, `{"n":${n}}`);
  }
  for (let n = 500; n < 510; n++) {
    sql.exec(QUEUED, idOf(n), sender, 2, START_MS, START_MS, 1, START_MS, null, "no", 1, "{}");
    sql.exec(QUEUED, idOf(n + 100), sender, 1, START_MS, START_MS, 1, START_MS, null, null, 1, null);
    sql.exec(QUEUED, idOf(n + 200), sender, 1, START_MS, START_MS, 1, START_MS, null, null, 0, null);
    sql.exec(SENT, idOf(n), recipient, 1, START_MS, START_MS, null, 0, null);
    sql.exec(SENT, idOf(n + 100), recipient, 2, START_MS, START_MS, null, 0, null);
    sql.exec(SENT, idOf(n + 200), recipient, 3, START_MS, START_MS, "no", 1, null);
  }
}

describe("a gate that holds messages under the tables of before", () => {
  test("delivers, reports and remembers all of them under those of today", async () => {
    const stub = env.GATE.getByName(`storage-${crypto.randomUUID()}`);
    const seen = await runInDurableObject(stub, (_gate, { storage }) => {
      const { sql } = storage;
      migrate(storage, BEFORE);
      fill(sql);
      migrate(storage);
      const queue = createQueue({ sql, limits: LIMITS, admits: () => true, now: () => START_MS });
      const outbox = createOutbox(sql, { outboxMax: 500, ttlMs: LIMITS.ttlMs, batchMs: 0 }, createDeliveryIds(null));
      const pushedBefore = queue.inFlight().get("s1")?.count;
      queue.socketGone("s1", START_MS);
      const order: string[] = [];
      for (let turn = 0, nowMs = START_MS + 2_000; turn < 100; turn++) {
        for (const { deliveryId } of queue.pump(() => [socket("s2")], nowMs)) {
          order.push(deliveryId);
          const ack = { deliveryId, holder: "agent", socketId: "s2", accepted: true, reason: null };
          queue.acknowledge([ack], nowMs);
        }
      }
      const firstReports = queue.reportsFor(sender);
      const batch = outbox.nextBatch(recipient);
      const state = (n: number) => outbox.status(idOf(n), START_MS)?.state;
      const states = [state(0), state(505), state(605), state(705)];
      queue.prune(START_MS + 86_400_000);
      outbox.prune(START_MS + 86_400_000);
      return {
        pushedBefore,
        order,
        reports: firstReports.length,
        dead: queue.deadLetters(null, 100).length,
        batch: batch.map(({ body }) => body),
        full: outbox.hasRoom(1),
        depth: outbox.queueDepth(recipient),
        states,
        receipts: outbox.receiptsDue(null).length,
        left: ["queue", "outbox"].map((table) => sql.exec<{ n: number }>(`SELECT COUNT(*) AS n FROM ${table}`).one().n),
      };
    });
    expect(seen.order).toEqual(Array.from({ length: 500 }, (_, n) => idOf(n)));
    expect(seen.batch).toEqual(Array.from({ length: 100 }, (_, n) => `{"n":${n}}`));
    expect(seen).toMatchObject({
      pushedBefore: 20,
      reports: 500,
      dead: 10,
      full: false,
      depth: 510,
      states: ["queued", "queued", "delivered", "dead_lettered"],
      receipts: 10,
      left: [0, 0],
    });
  });
});
