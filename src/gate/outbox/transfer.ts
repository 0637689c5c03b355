/** Hands the outbox over to the recipients' gates. Never on a request's path. */
import { errorFields, type Log } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import { createPeerCalls, type PeerGate } from "../protocol/peer.ts";
import { TRANSFER_IN_PROGRESS_BYTES_MAX } from "../protocol/transfer.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Outbox } from "./outbox.ts";

/** Hand-overs that one turn starts; the next follows at once. So what is sent to a hundred does not keep its own answer waiting. */
const STARTS_A_TURN_MAX = 8;

/** The hand-overs of one sender's gate. */
export type Transfer = {
  /** Starts every hand-over that is due, one at a time to each recipient; they go on by themselves. */
  start(nowMs: number): void;
  /** When the next is due (ms since the epoch); null while nothing is held. */
  nextDueMs(): number | null;
  /** When what recipients have had for a while is to be written down; null for nothing. */
  nextRecordMs(): number | null;
};

export type TransferDeps = {
  self: AgentDid;
  outbox: Pick<
    Outbox,
    | "nextBatch"
    | "handedOver"
    | "handOverFailed"
    | "hasExpired"
    | "recordHandedOver"
    | "nextRecordMs"
    | "dueRecipients"
    | "nextDueMs"
  >;
  commits: Pick<GroupCommit, "wake">;
  gateStub: (did: AgentDid) => Pick<PeerGate, "receive">;
  /** Ends what has waited too long for a recipient whose gate does not answer. */
  expire: (to: AgentDid) => Promise<void>;
  now: () => number;
  log: Log;
};

/** @returns the transfer of one gate. */
export function createTransfer({ self, outbox, commits, gateStub, expire, now, log }: TransferDeps): Transfer {
  const peers = createPeerCalls();
  /** Bytes of bodies in the hand-overs that are in progress. */
  let bytesInProgress = 0;

  /** What could not be recorded as expired is so at the next failure. */
  const endExpired = async (to: AgentDid): Promise<void> => {
    try {
      await expire(to);
    } catch (error) {
      log.warn("handover.failed", { to, messages: 0, ...errorFields(error) });
    }
  };

  const handOver = async (to: AgentDid): Promise<void> => {
    const messages = outbox.nextBatch(to);
    if (messages.length === 0) return;
    const bytes = messages.reduce((sum, message) => sum + message.bytes, 0);
    bytesInProgress += bytes;
    try {
      const { taken } = await peers.ask(() => gateStub(to).receive(self, messages));
      outbox.handedOver(to, messages.length, taken, now());
    } catch (error) {
      outbox.handOverFailed(to, now());
      log.warn("handover.failed", { to, messages: messages.length, ...errorFields(error) });
      if (outbox.hasExpired(to, now())) await endExpired(to);
    } finally {
      bytesInProgress -= bytes;
    }
    // What came meanwhile for the same recipient goes at once, and needs no commit: it is on disk as what is held.
    if (outbox.dueRecipients(now()).includes(to)) start([to]);
    const dueMs = nextDueMs();
    if (dueMs !== null) commits.wake(Math.max(1, dueMs - now()));
  };

  const start = (recipients: readonly AgentDid[]): void => {
    for (const to of recipients) {
      if (bytesInProgress >= TRANSFER_IN_PROGRESS_BYTES_MAX) return;
      void handOver(to);
    }
  };

  const nextDueMs = (): number | null =>
    bytesInProgress >= TRANSFER_IN_PROGRESS_BYTES_MAX ? null : outbox.nextDueMs();

  return {
    start(nowMs) {
      outbox.recordHandedOver(nowMs);
      start(outbox.dueRecipients(nowMs).slice(0, STARTS_A_TURN_MAX));
    },
    nextDueMs,
    nextRecordMs: outbox.nextRecordMs,
  };
}
