/** Reports to senders what the program made of their messages: until the server has taken it, from the inbox where there is one. */
import { type AgentClient, ProblemError, UnexpectedAnswerError } from "../client/index.ts";
import { backoffMs } from "../resilience/backoff.ts";
import type { Complaints } from "./complaints.ts";
import type { Delivery } from "./message.ts";
import type { InboxStore } from "./store/inbox.ts";

const BATCH = 50;
/** Without an inbox: reports that wait in memory; the oldest goes beyond that. */
const WAITING_MAX = 1_000;
const RETRY = { initialMs: 1_000, maxMs: 60_000, jitterRatio: 0.2 } as const;

type Report = {
  readonly deliveryId: string;
  readonly fromAgentDid: string | null;
  readonly state: "handled" | "failed";
  readonly reason: string | null;
};

/** Reports that go on by themselves. */
export type Reporter = {
  /** Without an inbox: the program has handled a message. */
  handled(message: Delivery): void;
  /** There may be something to report. */
  wake(): void;
  /** Begins no further report; resolves when none is in progress. */
  stop(): Promise<void>;
};

/** What reports work with. */
export type ReporterOptions = {
  readonly client: Pick<AgentClient, "deliveryReceipts">;
  readonly inbox: InboxStore | null;
  readonly complaints: Complaints;
  readonly now: () => number;
};

/** @returns reports of one connector; one at a time is on its way */
export function createReporter({ client, inbox, complaints }: ReporterOptions): Reporter {
  const inMemory: Report[] = [];
  let running: Promise<void> | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;
  let isStopped = false;

  const pending = (): Report[] => (inbox === null ? inMemory.slice(0, BATCH) : inbox.unreported(BATCH));
  const done = (reports: readonly Report[]): void => {
    if (inbox === null) inMemory.splice(0, reports.length);
    else inbox.reported(reports.map(({ deliveryId }) => deliveryId));
  };

  const reportAll = async (): Promise<void> => {
    for (let batch = pending(); batch.length > 0; batch = isStopped ? [] : pending()) {
      // oxlint-disable-next-line no-await-in-loop -- in their order, and a batch recorded before the next is read
      await Promise.all(batch.map((report) => reportOne(client, report)));
      done(batch);
      failures = 0;
      complaints.over("receipts");
    }
  };

  const run = (): void => {
    if (isStopped || running !== null) return;
    clearTimeout(timer);
    running = reportAll()
      .catch((error: unknown) => {
        failures += 1;
        complaints.about("receipts", error instanceof Error ? error.message : String(error));
        if (!isStopped) timer = setTimeout(run, backoffMs(failures, RETRY, Math.random()));
      })
      .finally(() => {
        running = null;
      });
  };

  return {
    handled({ deliveryId, fromAgentDid }) {
      inMemory.push({ deliveryId, fromAgentDid, state: "handled", reason: null });
      if (inMemory.length > WAITING_MAX) inMemory.shift();
      if (failures === 0) run();
    },
    wake() {
      if (failures === 0) run();
    },
    async stop() {
      isStopped = true;
      clearTimeout(timer);
      await running;
    },
  };
}

/** A message without a sending agent has nobody to be told; one that the server does not know any more, or never did, neither. */
async function reportOne(
  { deliveryReceipts }: Pick<AgentClient, "deliveryReceipts">,
  { deliveryId, fromAgentDid, state, reason }: Report,
): Promise<void> {
  if (fromAgentDid === null) return;
  try {
    await deliveryReceipts.report({
      deliveryId,
      senderAgentDid: fromAgentDid,
      status: state,
      ...(reason === null ? {} : { reason }),
    });
  } catch (error) {
    const isUnknown = error instanceof ProblemError && [400, 404, 409].includes(error.status);
    const isNoRoute = error instanceof UnexpectedAnswerError && error.status === 404;
    if (!isUnknown && !isNoRoute) throw error;
  }
}
