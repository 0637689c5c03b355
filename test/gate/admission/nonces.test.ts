import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createNonces, type NonceVerdict } from "../../../src/gate/admission/nonces.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import {
  alarmOf,
  eventually,
  gateStub,
  newAgentDid,
  onStorage,
  pass,
  send,
  sent,
  START_MS,
  stopClock,
} from "../../support/gate.ts";

const START_S = START_MS / 1_000;
const SKEW_S = 300;

describe("a nonce", () => {
  test.each<[string, number, NonceVerdict]>([
    ["300 s behind", -300_000, "fresh"],
    ["300 s and a millisecond behind", -300_001, "outside-window"],
    ["300 s ahead", 300_000, "fresh"],
    ["300 s and a millisecond ahead", 300_001, "outside-window"],
  ])("with a timestamp %s of the gate's clock is judged to the millisecond", async (_, skewMs, verdict) => {
    const judged = await onStorage((sql) => createNonces(sql, SKEW_S).use("key", "n", START_S, START_MS - skewMs));
    expect(judged).toBe(verdict);
  });

  test("is unique per key, whatever timestamp comes with it", async () => {
    const verdicts = await onStorage((sql) => {
      const nonces = createNonces(sql, SKEW_S);
      return [
        nonces.use("key", "n", START_S, START_MS),
        nonces.use("key", "n", START_S + 1, START_MS),
        nonces.use("other key", "n", START_S, START_MS),
        nonces.use("key", "N", START_S, START_MS),
      ];
    });
    expect(verdicts).toEqual(["fresh", "seen", "fresh", "fresh"]);
  });

  test.each([
    ["299 s ahead is kept for 659 s", 299, 659],
    ["299 s behind is kept for 61 s", -299, 61],
  ])("%s and no second more than is needed", async (_, aheadS, keptS) => {
    const rows = await onStorage((sql) => {
      const nonces = createNonces(sql, SKEW_S);
      nonces.use("key", "n", START_S + aheadS, START_MS);
      const count = () => sql.exec<{ count: number }>("SELECT COUNT(*) AS count FROM proof_nonces").one().count;
      nonces.prune(START_MS + keptS * 1_000);
      const atTheEnd = count();
      nonces.prune(START_MS + (keptS + 1) * 1_000);
      return { atTheEnd, afterwards: count(), due: nonces.nextDueMs() };
    });
    expect(rows).toEqual({ atTheEnd: 1, afterwards: 0, due: null });
  });

  test("at or below the highest timestamp ever pruned is refused, however wide the window becomes", async () => {
    const verdicts = await onStorage((sql) => {
      const narrow = createNonces(sql, SKEW_S);
      narrow.use("key", "a", START_S - 10, START_MS);
      narrow.use("key", "b", START_S, START_MS);
      const laterMs = START_MS + 361_000;
      narrow.prune(laterMs);
      // The gate starts anew, with other settings.
      const wide = createNonces(sql, 3_600);
      return [
        wide.use("key", "b", START_S, laterMs),
        wide.use("key", "never seen", START_S, laterMs),
        wide.use("key", "never seen", START_S - 5, laterMs),
        wide.use("key", "never seen", START_S + 1, laterMs),
      ];
    });
    expect(verdicts).toEqual(["pruned", "pruned", "pruned", "fresh"]);
  });

  test("is forgotten only as far as it is pruned: a narrower window does not open the rest", async () => {
    const verdicts = await onStorage((sql) => {
      createNonces(sql, 3_600).use("key", "n", START_S, START_MS);
      const narrow = createNonces(sql, 60);
      const pruned = narrow.use("key", "n", START_S, START_MS + 59_000);
      return [pruned, createNonces(sql, 3_600).use("key", "n", START_S, START_MS + 200_000)];
    });
    expect(verdicts).toEqual(["seen", "seen"]);
  });

  test("in their thousands are pruned some thousand at a time, oldest first, and the rest is due at once", async () => {
    const seen = await onStorage((sql) => {
      const nonces = createNonces(sql, SKEW_S);
      for (let n = 0; n < 6_000; n++) nonces.use("key", String(n), START_S + Math.floor(n / 100), START_MS);
      const laterMs = START_MS + 3_600_000;
      const count = () => sql.exec<{ count: number }>("SELECT COUNT(*) AS count FROM proof_nonces").one().count;
      nonces.prune(laterMs);
      const left = count();
      const due = nonces.nextDueMs() ?? Infinity;
      nonces.prune(laterMs);
      return { left, isDue: due <= laterMs, end: count() };
    });
    expect(seen.left).toBeGreaterThan(0);
    expect(seen.left).toBeLessThan(1_100);
    expect(seen).toMatchObject({ isDue: true, end: 0 });
  });
});

const reasonOf = async (from: AgentDid, to: AgentDid, nonce: string, options: Parameters<typeof send>[3] = {}) => {
  const reply = await send(from, to, {}, { ...options, admission: { nonce, ...options.admission } });
  return reply.ok ? "accepted" : reply.refusal.reason;
};

describe("at the gate", () => {
  beforeEach(() => stopClock());
  afterEach(() => void vi.useRealTimers());

  test("a nonce seen before an eviction is refused after it", async () => {
    const [alice, bob] = [newAgentDid(), newAgentDid()];
    const keyX = "one-key";
    const admission = {
      principal: { kind: "agent", agentDid: alice, ownerDid: alice, jti: "J", expMs: START_MS + 1e9, keyX },
    } as never;
    expect(await reasonOf(alice, bob, "n", { admission })).toBe("accepted");
    await evictDurableObject(gateStub(alice));
    expect(await reasonOf(alice, bob, "n", { admission })).toBe("gate-nonce-replayed");
    expect(await reasonOf(alice, bob, "n2", { admission })).toBe("accepted");
  });

  test("of a burst of one nonce exactly one is accepted", async () => {
    const [alice, bob] = [newAgentDid(), newAgentDid()];
    const outcomes = await Promise.all(Array.from({ length: 40 }, () => reasonOf(alice, bob, "the one nonce")));
    expect(outcomes.filter((outcome) => outcome === "accepted")).toHaveLength(1);
    expect(outcomes.filter((outcome) => outcome === "gate-nonce-replayed")).toHaveLength(39);
  });

  test.each<[string, (alice: AgentDid, bob: AgentDid, nonce: string) => Promise<string>, string]>([
    [
      "an idempotency key with another body",
      async (alice, bob, nonce) => {
        await sent(alice, bob, {}, { idempotency: { key: "k", bodySha256: "one" } });
        return reasonOf(alice, bob, nonce, { idempotency: { key: "k", bodySha256: "other" } });
      },
      "gate-idempotency-conflict",
    ],
    [
      "a fence",
      async (alice, bob, nonce) => {
        await gateStub(alice).fencePeer(bob, 2);
        return reasonOf(alice, bob, nonce, { trustEpoch: 1 });
      },
      "gate-peer-fenced",
    ],
    [
      "a full outbox",
      (alice, bob, nonce) => reasonOf(alice, bob, nonce, { bytes: 65 * 1_048_576 }),
      "gate-outbox-full",
    ],
    [
      "the rate",
      async (alice, bob, nonce) => {
        await Promise.all(
          Array.from({ length: 600 }, () =>
            sent(alice, bob, {}, { trustEpoch: 2, idempotency: { key: "k", bodySha256: "s" } }),
          ),
        );
        return reasonOf(alice, bob, nonce, { trustEpoch: 2 });
      },
      "gate-rate-exceeded",
    ],
  ])("a send that is refused for %s burns no nonce", async (_, refusedSend, reason) => {
    const [alice, bob] = [newAgentDid(), newAgentDid()];
    expect(await refusedSend(alice, bob, "kept")).toBe(reason);
    pass(60_000);
    expect(await reasonOf(alice, bob, "kept", { trustEpoch: 2 })).toBe("accepted");
    expect(await reasonOf(alice, bob, "kept", { trustEpoch: 2 })).toBe("gate-nonce-replayed");
  });

  test("an alarm prunes them, and an idle gate ends up without one", async () => {
    const [alice, bob] = [newAgentDid(), newAgentDid()];
    await sent(alice, bob, {});
    const gate = gateStub(alice);
    await eventually(async () => expect(await rowsOf(bob, "inbound")).toBe(1));
    await gateStub(alice).settle([
      { deliveryId: await onlyDelivery(alice), delivered: true, reason: null, attempts: 1, atMs: START_MS },
    ]);
    const counts: number[] = [];
    let alarms = 0;
    for (let at = await alarmOf(alice); at !== null && alarms < 20; at = await alarmOf(alice)) {
      vi.setSystemTime(Math.max(Date.now(), at));
      // oxlint-disable-next-line no-await-in-loop -- one alarm after the other
      await runDurableObjectAlarm(gate);
      alarms += 1;
      // oxlint-disable-next-line no-await-in-loop
      counts.push(await rowsOf(alice, "proof_nonces"));
    }
    expect(counts.at(-1)).toBe(0);
    expect(await rowsOf(alice, "outbound")).toBe(0);
    expect(Date.now() - START_MS).toBeGreaterThanOrEqual(86_400_000);
    expect(alarms).toBeLessThan(10);
  });
});

const rowsOf = (did: AgentDid, table: string) =>
  runInDurableObject(
    gateStub(did),
    (_, { storage }) => storage.sql.exec<{ count: number }>(`SELECT COUNT(*) AS count FROM ${table}`).one().count,
  );

const onlyDelivery = (did: AgentDid) =>
  runInDurableObject(
    gateStub(did),
    (_, { storage }) => storage.sql.exec<{ delivery_id: string }>("SELECT delivery_id FROM outbound").one().delivery_id,
  );
