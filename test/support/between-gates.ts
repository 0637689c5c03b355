/** An outbox and a queue on real storage, whose other gates answer when a test says so. */
import { createDeliveryIds } from "../../src/gate/outbox/delivery-id.ts";
import { createOutbox, type Outbox, type Receipt } from "../../src/gate/outbox/outbox.ts";
import { createTransfer, type Transfer } from "../../src/gate/outbox/transfer.ts";
import type { PeerGate } from "../../src/gate/protocol/peer.ts";
import type { DeliveryOutcome, QueuedMessage, TransferResult } from "../../src/gate/protocol/transfer.ts";
import { createQueue, type Queue } from "../../src/gate/queue/queue.ts";
import { createReporting, type Reporting } from "../../src/gate/queue/reporting.ts";
import { createGroupCommit } from "../../src/gate/storage/group-commit.ts";
import type { AgentDid } from "../../src/wire/did.ts";
import { newAgentDid, onStorage } from "./gate.ts";
import { silentLog } from "./silent-log.ts";

export const self = newAgentDid();
export const peer = newAgentDid();

/** A call of the other gate that is answered when the test says so. */
export type Asked<A, R> = { args: A; answer: (value: R) => void; fail: (error: Error) => void };

export type Desk = {
  outbox: Outbox;
  queue: Queue;
  transfer: Transfer;
  reporting: Reporting;
  /** Runs an effect in a group of its own, after which what is due is started, as in the gate. */
  commit: (effect: () => void) => Promise<void>;
  handOvers: Asked<QueuedMessage[], TransferResult>[];
  settlements: Asked<DeliveryOutcome[], void>[];
  /** Of what has waited too long for a gate that does not answer. */
  receipts: Receipt[];
};

export function betweenGates(work: (desk: Desk) => Promise<void>, batchMs = 0): Promise<void> {
  return onStorage(async (sql, storage) => {
    const handOvers: Desk["handOvers"] = [];
    const settlements: Desk["settlements"] = [];
    const gate: PeerGate = {
      receive: (_from, args) => new Promise((answer, fail) => void handOvers.push({ args, answer, fail })),
      settle: (args) => new Promise((answer, fail) => void settlements.push({ args, answer, fail })),
    };
    const limits = {
      queueMax: 500,
      ttlMs: 3_600_000,
      maxAttempts: 25,
      retry: { initialMs: 1_000, maxMs: 30_000, jitterRatio: 0.2 },
      deadLetterRetentionMs: 1e9,
    };
    const outbox = createOutbox(sql, { outboxMax: 500, ttlMs: limits.ttlMs, batchMs }, createDeliveryIds(null));
    const queue = createQueue({ sql, limits, admits: () => true, now: Date.now });
    const commits = createGroupCommit(storage, (error) => {
      throw error;
    });
    commits.beforeCommit(() => {
      const nowMs = Date.now();
      transfer.start(nowMs);
      reporting.start(nowMs);
      const due = Math.min(transfer.nextDueMs() ?? Infinity, reporting.nextDueMs(nowMs) ?? Infinity);
      if (due !== Infinity) commits.wake(Math.max(1, due - nowMs));
    });
    const between = { commits, gateStub: () => gate, now: Date.now, log: silentLog };
    const receipts: Receipt[] = [];
    const expire = (to: AgentDid): Promise<void> =>
      commits.commitChecked(() => void receipts.push(...outbox.expire(to, Date.now())));
    const transfer = createTransfer({ self, outbox, expire, ...between });
    const reporting = createReporting({ queue, ...between });
    await work({
      outbox,
      queue,
      transfer,
      reporting,
      handOvers,
      settlements,
      receipts,
      commit: (effect) => commits.commit(effect),
    });
  });
}

/** Long enough for anything that is due to be in progress. */
export const aWhile = () => new Promise((resolve) => setTimeout(resolve, 30));

export const eachNth = <T>(asked: readonly T[], n: number): T => {
  const one = asked[n];
  if (one === undefined) throw new Error(`not asked ${n + 1} times`);
  return one;
};
