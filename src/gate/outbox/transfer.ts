/** Hands the outbox over to the recipients' gates. Never on a request's path. */
import { errorFields, type Log } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import { askPeer, type PeerGate } from "../protocol/peer.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Outbox } from "./outbox.ts";

/** What is on disk with the recipient may wait this long for another commit before it is written down here. */
const RECORDED_WITHIN_MS = 500;

/** The hand-overs of one sender's gate. */
export type Transfer = {
  /** Starts every hand-over that is due, one at a time to each recipient; they go on by themselves. */
  start(nowMs: number): void;
  /** When the next is due (ms since the epoch); null while nothing is held. */
  nextDueMs(): number | null;
};

export type TransferDeps = {
  self: AgentDid;
  outbox: Pick<
    Outbox,
    "nextBatch" | "handedOver" | "handOverFailed" | "recordHandedOver" | "dueRecipients" | "nextDueMs"
  >;
  commits: GroupCommit;
  gateStub: (did: AgentDid) => Pick<PeerGate, "receive">;
  now: () => number;
  log: Log;
};

/** @returns the transfer of one gate. */
export function createTransfer({ self, outbox, commits, gateStub, now, log }: TransferDeps): Transfer {
  const handOver = async (to: AgentDid): Promise<void> => {
    const messages = outbox.nextBatch(to);
    if (messages.length === 0) return;
    try {
      const { taken } = await askPeer(() => gateStub(to).receive(self, messages));
      const gone = outbox.handedOver(to, messages.length, taken, now());
      // What came meanwhile is handed over in the same group.
      const withinMs = Math.max(0, (outbox.nextDueMs() ?? Infinity) - now());
      await commits.commitChecked(() => outbox.recordHandedOver(gone, now()), Math.min(RECORDED_WITHIN_MS, withinMs));
    } catch (error) {
      outbox.handOverFailed(to, now());
      log.warn("handover.failed", { to, messages: messages.length, ...errorFields(error) });
      commits.wake();
    }
  };

  return {
    start(nowMs) {
      for (const to of outbox.dueRecipients(nowMs)) void handOver(to);
    },
    nextDueMs: () => outbox.nextDueMs(),
  };
}
