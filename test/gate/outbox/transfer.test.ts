import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createDeliveryIds } from "../../../src/gate/outbox/delivery-id.ts";
import { createOutbox } from "../../../src/gate/outbox/outbox.ts";
import { createExchange, type PeerGate } from "../../../src/gate/outbox/transfer.ts";
import type { Outcome, QueuedMessage, TransferResult } from "../../../src/gate/protocol/transfer.ts";
import { createQueue } from "../../../src/gate/queue/queue.ts";
import type { GateState } from "../../../src/gate/state.ts";
import { createGroupCommit } from "../../../src/gate/storage/group-commit.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import { eventually, newAgentDid, onStorage, queuedMessage, pass, START_MS, stopClock } from "../../support/gate.ts";

beforeEach(() => stopClock());
afterEach(() => void vi.useRealTimers());

const silent = { info() {}, warn() {}, error() {}, with: () => silent };
const self = newAgentDid();
const peer = newAgentDid();

/** A call of the other gate that is answered when the test says so. */
type Asked<A, R> = { args: A; answer: (value: R) => void; fail: (error: Error) => void };

type Desk = {
  outbox: ReturnType<typeof createOutbox>;
  queue: ReturnType<typeof createQueue>;
  exchange: ReturnType<typeof createExchange>;
  /** Runs an effect in a group of its own, after which the exchange starts what is due, as in the gate. */
  commit: (effect: () => void) => Promise<void>;
  takeOvers: Asked<QueuedMessage[], TransferResult>[];
  settlements: Asked<Outcome[], void>[];
};

function onExchange(work: (desk: Desk) => Promise<void>): Promise<void> {
  return onStorage(async (sql, storage) => {
    const takeOvers: Desk["takeOvers"] = [];
    const settlements: Desk["settlements"] = [];
    const gate: PeerGate = {
      receive: (_from, args) => new Promise((answer, fail) => void takeOvers.push({ args, answer, fail })),
      settle: (args) => new Promise((answer, fail) => void settlements.push({ args, answer, fail })),
    };
    const limits = {
      queueMax: 500,
      ttlMs: 3_600_000,
      maxAttempts: 25,
      retry: { initialMs: 1_000, maxMs: 30_000, jitterRatio: 0.2 },
      deadLetterRetentionMs: 1e9,
    };
    const outbox = createOutbox(sql, { outboxMax: 500 }, createDeliveryIds(null));
    const queue = createQueue({ sql, limits, admits: () => true });
    const commits = createGroupCommit(
      storage,
      () => {
        exchange.start(Date.now());
        const due = exchange.nextDueMs(Date.now());
        if (due !== null) commits.wake(Math.max(1, due - Date.now()));
      },
      (error) => {
        throw error;
      },
    );
    // Of a state the exchange uses what it exchanges.
    const state = { outbox, queue, audit: { isEmpty: () => true } } as unknown as GateState;
    const exchange = createExchange(state, commits, {
      self,
      gateStub: () => gate,
      now: Date.now,
      log: silent,
    } as never);
    await work({ outbox, queue, exchange, takeOvers, settlements, commit: (effect) => commits.commit(effect) });
  });
}

const accept = (outbox: Desk["outbox"], isAwaited = false) =>
  void outbox.accept({ to: peer, bytes: 2, envelope: "{}", body: "{}", isAwaited }, Date.now());

/** Lets a message of the peer's arrive, be pushed and end here, so that a report is owed. */
function endOne(queue: Desk["queue"], isAwaited = false): void {
  const envelope = JSON.stringify({ fromAgentDid: peer, ...(isAwaited ? { isAwaited } : {}) });
  const one = queuedMessage({ createdAtMs: START_MS, envelope });
  queue.receive(peer, [one], { isShut: false, refusal: () => null }, Date.now());
  queue.pump(() => [{ socketId: "s1", inFlight: 0 }], Date.now());
  queue.acknowledge(one.deliveryId, true, null, Date.now());
}

/** Long enough for anything that is due to be under way. */
const aWhile = () => new Promise((resolve) => setTimeout(resolve, 30));

const eachNth = <T>(asked: readonly T[], n: number): T => {
  const one = asked[n];
  if (one === undefined) throw new Error(`not asked ${n + 1} times`);
  return one;
};

describe("a report", () => {
  test("that comes due while another is under way goes by itself when that has been answered", async () => {
    await onExchange(async ({ queue, commit, settlements }) => {
      await commit(() => endOne(queue));
      await eventually(() => expect(settlements).toHaveLength(1));
      await commit(() => endOne(queue));
      eachNth(settlements, 0).answer();
      // Nobody does anything now but the clock.
      await eventually(() => {
        pass(50);
        expect(settlements).toHaveLength(2);
      });
      expect(eachNth(settlements, 1).args).toHaveLength(1);
      eachNth(settlements, 1).answer();
      await eventually(() => expect(queue.owedReports()).toEqual([]));
    });
  });

  test("that somebody waits for goes at once, also after one that was under way", async () => {
    await onExchange(async ({ queue, commit, settlements }) => {
      await commit(() => endOne(queue));
      await eventually(() => expect(settlements).toHaveLength(1));
      await commit(() => endOne(queue, true));
      expect(settlements).toHaveLength(1);
      // The clock stands still: nothing else falls due.
      eachNth(settlements, 0).answer();
      await eventually(() => expect(settlements).toHaveLength(2));
      eachNth(settlements, 1).answer();
      await aWhile();
      await commit(() => endOne(queue));
      await aWhile();
      expect(settlements).toHaveLength(2);
      await commit(() => endOne(queue, true));
      await eventually(() => expect(settlements).toHaveLength(3));
      expect(eachNth(settlements, 2).args).toHaveLength(2);
    });
  });

  test("that somebody waits for leaves a gate alone that has just failed", async () => {
    await onExchange(async ({ queue, commit, settlements }) => {
      await commit(() => endOne(queue, true));
      await eventually(() => expect(settlements).toHaveLength(1));
      eachNth(settlements, 0).fail(new Error("gone"));
      await aWhile();
      await commit(() => endOne(queue, true));
      await aWhile();
      expect(settlements).toHaveLength(1);
    });
  });

  test("under way is owed all the same, so that the gate stays armed", async () => {
    await onExchange(async ({ queue, exchange, commit, settlements }) => {
      expect(exchange.nextDueMs(Date.now())).toBeNull();
      await commit(() => endOne(queue));
      await eventually(() => expect(settlements).toHaveLength(1));
      expect(exchange.nextDueMs(Date.now())).not.toBeNull();
      eachNth(settlements, 0).answer();
      await eventually(() => expect(exchange.nextDueMs(Date.now())).toBeNull());
    });
  });

  test("that fails is made again, ever later, and lost never", async () => {
    await onExchange(async ({ queue, commit, settlements, exchange }) => {
      await commit(() => endOne(queue));
      for (let attempt = 0; attempt < 4; attempt++) {
        // oxlint-disable-next-line no-await-in-loop -- one attempt after the other
        await eventually(() => expect(settlements).toHaveLength(attempt + 1));
        eachNth(settlements, attempt).fail(new Error("gone"));
        // oxlint-disable-next-line no-await-in-loop
        await eventually(() => expect(exchange.nextDueMs(Date.now()) ?? 0).toBeLessThan(Date.now() + 40_000));
        // oxlint-disable-next-line no-await-in-loop
        const waitMs = await eventually(() => {
          const due = (exchange.nextDueMs(Date.now()) ?? 0) - Date.now();
          expect(due).toBeGreaterThanOrEqual(800 * 2 ** attempt);
          expect(due).toBeLessThanOrEqual(1_200 * 2 ** attempt);
          return due;
        });
        pass(waitMs);
        // oxlint-disable-next-line no-await-in-loop
        await commit(() => {});
      }
      await eventually(() => expect(settlements).toHaveLength(5));
      expect(eachNth(settlements, 4).args).toEqual(eachNth(settlements, 0).args);
    });
  });
});

describe("a hand-over", () => {
  test("never has two batches of one recipient under way, and sends what has gathered in the next", async () => {
    await onExchange(async ({ outbox, commit, takeOvers }) => {
      await commit(() => accept(outbox));
      await eventually(() => expect(takeOvers).toHaveLength(1));
      for (let n = 0; n < 5; n++) {
        pass(1_000);
        // oxlint-disable-next-line no-await-in-loop -- each in a group of its own
        await commit(() => accept(outbox));
      }
      expect(takeOvers).toHaveLength(1);
      eachNth(takeOvers, 0).answer({ taken: 1 });
      await eventually(() => {
        pass(50);
        expect(takeOvers).toHaveLength(2);
      });
      expect(eachNth(takeOvers, 1).args).toHaveLength(5);
    });
  });

  test("of what somebody waits for goes at once, also after one that was under way", async () => {
    await onExchange(async ({ outbox, commit, takeOvers }) => {
      await commit(() => accept(outbox));
      await eventually(() => expect(takeOvers).toHaveLength(1));
      await commit(() => accept(outbox, true));
      expect(takeOvers).toHaveLength(1);
      // The clock stands still: nothing else falls due.
      eachNth(takeOvers, 0).answer({ taken: 1 });
      await eventually(() => expect(takeOvers).toHaveLength(2));
      eachNth(takeOvers, 1).answer({ taken: 1 });
      await aWhile();
      await commit(() => accept(outbox));
      await aWhile();
      expect(takeOvers).toHaveLength(2);
      await commit(() => accept(outbox, true));
      await eventually(() => expect(takeOvers).toHaveLength(3));
      expect(eachNth(takeOvers, 2).args).toHaveLength(2);
    });
  });

  test("of what somebody waits for leaves a recipient alone that has no room", async () => {
    await onExchange(async ({ outbox, commit, takeOvers }) => {
      await commit(() => accept(outbox, true));
      await eventually(() => expect(takeOvers).toHaveLength(1));
      eachNth(takeOvers, 0).answer({ taken: 0 });
      await aWhile();
      await commit(() => accept(outbox, true));
      await aWhile();
      expect(takeOvers).toHaveLength(1);
    });
  });

  test("that fails is made again with one message first, and its order stays", async () => {
    await onExchange(async ({ outbox, commit, takeOvers }) => {
      await commit(() => {
        accept(outbox);
        accept(outbox);
      });
      await eventually(() => expect(takeOvers).toHaveLength(1));
      eachNth(takeOvers, 0).fail(new Error("gone"));
      await eventually(() => {
        pass(200);
        expect(takeOvers).toHaveLength(2);
      });
      expect(eachNth(takeOvers, 1).args).toEqual(eachNth(takeOvers, 0).args.slice(0, 1));
      eachNth(takeOvers, 1).answer({ taken: 1 });
      await eventually(() => {
        pass(200);
        expect(takeOvers).toHaveLength(3);
      });
      expect(eachNth(takeOvers, 2).args).toEqual(eachNth(takeOvers, 0).args.slice(1));
    });
  });

  test("goes to each recipient by itself: one that does not answer holds back no other", async () => {
    await onExchange(async ({ outbox, commit, takeOvers }) => {
      await commit(() => accept(outbox));
      const other: AgentDid = newAgentDid();
      await commit(() => void outbox.accept({ to: other, bytes: 2, envelope: "{}", body: "{}" }, Date.now()));
      await eventually(() => expect(takeOvers).toHaveLength(2));
    });
  });
});
