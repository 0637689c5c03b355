/**
 * The connector: between an agent's relay and the program behind it. Without an inbox a message is acknowledged when the program has
 * handled it; with one, when it is on this machine's disk.
 */
import { type AgentClient, NotNow, Refuse, type RelayConnection, type RelayEnd } from "../client/index.ts";
import { backoffMs } from "../resilience/backoff.ts";
import type { Complaints } from "./complaints.ts";
import { createCounters, type Counters } from "./counters.ts";
import { type Delivery, type Outcome, senderOf, type Target } from "./message.ts";
import { createReporter, type Reporter } from "./reporter.ts";
import type { DueMessage, InboxStore } from "./store/inbox.ts";
import { createWork, type Work } from "./work.ts";

/** How long a message stays away from a program that did not say for how long. */
const RETRY = { initialMs: 1_000, maxMs: 300_000, jitterRatio: 0.2 } as const;
const RETRY_MAX_MS = 3_600_000;
const FULL_RETRY_MS = 30_000;
const PRUNE_EVERY_MS = 600_000;
const REPORT_EVERY_MS = 2_000;
/** What is in progress when it ends has so long to be done. */
const GRACE_MS = 5_000;
const ENDING_RETRY_MS = 1_000;

/** What a connector is made of. */
export type ConnectorOptions = {
  readonly client: Pick<AgentClient, "agentDid" | "connect" | "deliveryReceipts">;
  readonly target: Target;
  /** Null: messages stay with the server until the program has handled them. */
  readonly inbox: InboxStore | null;
  readonly complaints: Complaints;
  /** Called when the relay opens, closes, and comes back. */
  readonly onState: (state: string) => void;
  /** Remembers a message that has come, for replies. */
  readonly onMessage: (message: Delivery) => void;
  /** A receipt: what became of a message of this agent. */
  readonly onReceipt: (receipt: { deliveryId: string; status: string; reason?: string | undefined }) => void;
  readonly now: () => number;
};

/** A connector that runs. */
export type Connector = {
  readonly relay: RelayConnection;
  readonly counters: Counters;
  /** Works the inbox off now, after a change from outside. */
  wake(): void;
  /** Resolves when the relay has ended for good, and says why. */
  readonly ended: Promise<RelayEnd>;
  /** Ends it: what is in progress has five seconds. */
  stop(): Promise<void>;
};

/** @returns a connector, connected as soon as the server answers */
export function startConnector(options: ConnectorOptions): Connector {
  const { client, inbox, complaints, now } = options;
  const counters = createCounters();
  const abort = new AbortController();
  /** Messages that are with the program, or on their way to the disk. */
  const inHand = new Set<Promise<void>>();
  let isEnding = false;
  const reporter = createReporter({ client, inbox, complaints, now });
  const deliver = (message: Delivery): Promise<Outcome> => delivered(options, counters, message, abort.signal);
  const work = inbox === null ? null : workOf({ inbox, deliver, reporter, complaints, now });
  const take = async (message: Delivery): Promise<void> =>
    inbox === null ? handleNow(message, deliver, reporter) : keep(inbox, message, { complaints, counters });

  const relay = client.connect({
    onMessage({ payload: _payload, ...message }) {
      if (isEnding) throw new NotNow("the connector ends", ENDING_RETRY_MS);
      const delivery: Delivery = { ...message, receivedAtMs: now() };
      options.onMessage(delivery);
      const taken = take(delivery).finally(() => {
        inHand.delete(taken);
        work?.wake();
      });
      inHand.add(taken);
      return taken;
    },
    onReceipt: options.onReceipt,
    onState(state) {
      if (state === "open") complaints.over("relay");
      options.onState(state);
    },
    onError(error) {
      // Of the program's own doing, and said already.
      if (!(error instanceof NotNow)) complaints.about("relay", error instanceof Error ? error.message : String(error));
    },
  });
  work?.wake();
  reporter.wake();
  const pruning = setInterval(() => prune(inbox, complaints, now), PRUNE_EVERY_MS);
  // Another process may have dropped a message.
  const reporting = setInterval(reporter.wake, REPORT_EVERY_MS);
  for (const timer of [pruning, reporting]) timer.unref();

  return {
    relay,
    counters,
    wake: () => work?.wake(),
    ended: relay.ended,
    async stop() {
      isEnding = true;
      for (const timer of [pruning, reporting]) clearInterval(timer);
      const cut = setTimeout(() => abort.abort(new Error("the connector ends")), GRACE_MS);
      await Promise.allSettled([...inHand, work?.stop()]);
      // Acknowledgements are on their way when this turn ends.
      await new Promise((resolve) => setTimeout(resolve, 0));
      relay.close();
      await reporter.stop();
      clearTimeout(cut);
    },
  };
}

async function delivered(
  { target, complaints, now }: ConnectorOptions,
  counters: Counters,
  message: Delivery,
  signal: AbortSignal,
): Promise<Outcome> {
  const startedMs = now();
  const outcome = await target(message, signal);
  counters.count(outcome.kind, now() - startedMs);
  if (outcome.kind === "later") complaints.about("program", outcome.reason);
  else complaints.over("program");
  return outcome;
}

/** Without an inbox: the server waits for the program, and hears what it made of the message. */
async function handleNow(
  message: Delivery,
  deliver: (message: Delivery) => Promise<Outcome>,
  reporter: Reporter,
): Promise<void> {
  const outcome = await deliver(message);
  if (outcome.kind === "refused") throw new Refuse(outcome.reason);
  if (outcome.kind === "later") throw new NotNow(outcome.reason, outcome.retryAfterMs);
  reporter.handled(message);
}

/** With an inbox: acknowledged once it is on the disk, and not before. */
function keep(
  inbox: InboxStore,
  message: Delivery,
  { complaints, counters }: { complaints: Complaints; counters: Counters },
): void {
  let kept: ReturnType<InboxStore["put"]>;
  try {
    kept = inbox.put(message);
  } catch (error) {
    complaints.about("inbox", `cannot be written: ${error instanceof Error ? error.message : String(error)}`);
    throw new NotNow("the inbox cannot be written", FULL_RETRY_MS);
  }
  if (kept === "full") {
    complaints.about("inbox", "is full: messages stay with the server");
    throw new NotNow("the inbox is full", FULL_RETRY_MS);
  }
  complaints.over("inbox");
  if (kept === "known") counters.repeated();
}

type InboxWork = {
  inbox: InboxStore;
  deliver: (message: Delivery) => Promise<Outcome>;
  reporter: Reporter;
  complaints: Complaints;
  now: () => number;
};

function workOf({ inbox, deliver, reporter, complaints, now }: InboxWork): Work {
  return createWork<DueMessage>({
    due: inbox.due,
    nextDueMs: inbox.nextDueMs,
    keyOf: ({ message }) => senderOf(message),
    now,
    async work({ message: { deliveryId, ...rest }, attempts }) {
      const outcome = await deliver({ deliveryId, ...rest });
      const nowMs = now();
      if (outcome.kind === "handled") inbox.handled(deliveryId, nowMs);
      else if (outcome.kind === "refused") inbox.failed(deliveryId, outcome.reason, nowMs);
      else {
        const waitMs = outcome.retryAfterMs ?? backoffMs(attempts + 1, RETRY, Math.random());
        inbox.postponed(deliveryId, outcome.reason, nowMs + Math.min(waitMs, RETRY_MAX_MS), nowMs);
      }
      if (outcome.kind !== "later") reporter.wake();
    },
    storeFailed(error) {
      complaints.about("inbox", `cannot be used: ${error instanceof Error ? error.message : String(error)}`);
    },
  });
}

function prune(inbox: InboxStore | null, complaints: Complaints, now: () => number): void {
  try {
    inbox?.prune(now());
  } catch (error) {
    complaints.about("inbox", `cannot be pruned: ${error instanceof Error ? error.message : String(error)}`);
  }
}
