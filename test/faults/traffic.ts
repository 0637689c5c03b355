/** Senders that write without pause, and recipients that come back whenever their socket ends. */
import type { Agent } from "../support/program/agents.ts";
import { request } from "../support/program/agents.ts";
import { ulid } from "../support/program/relay-client.ts";
import type { History, HistoryEvent } from "./history.ts";
import {
  type Asked,
  hasWorked,
  post,
  signedAnew,
  type SignedMessage,
  signMessage,
  sleep,
  type Run,
} from "./participants.ts";

export type Load = {
  /** Ends the load and waits for what is under way. */
  stop(): Promise<void>;
};

export type LoadOptions = {
  /** Sends of one sender that may overlap. */
  lanes?: number;
  /** Between two sends of a lane, at most. */
  pauseMs?: number;
  /** Of the accepted, how many are tried again as they are. */
  replayRatio?: number;
  /** Of all, how many are large, up to 200 KB. */
  largeRatio?: number;
  /** Of all, how many carry an idempotency key and are signed anew when nobody answers, and now and then when somebody did. */
  namedRatio?: number;
};

export type Senders = Load & {
  /** How often a message was signed anew under its idempotency key. */
  signedAnew(): number;
};

/** Each sender writes to its two recipients. What was not answered is sent again, in the same bytes, until it is. */
export function startSenders(
  run: Run,
  { lanes = 2, pauseMs = 40, replayRatio = 0.1, largeRatio = 0.02, namedRatio = 0.15 }: LoadOptions = {},
): Senders {
  const { senders, recipients, random } = run;
  const accepted: SignedMessage[] = [];
  let running = true;
  let anew = 0;

  const named = async (message: SignedMessage): Promise<Asked> => {
    for (let attempt = message; ; attempt = signedAnew(message)) {
      // oxlint-disable no-await-in-loop -- until there is an answer
      const asked = await post(run, attempt);
      if ((asked.outcome !== "unknown" && random.chance(0.8)) || !running) return asked;
      anew += 1;
      await sleep(60);
      // oxlint-enable no-await-in-loop
    }
  };

  const lane = async (from: Agent, index: number): Promise<void> => {
    while (running) {
      const to = recipients[(index + (random.chance(0.5) ? 1 : 0)) % recipients.length] as Agent;
      const message = signMessage(from, to, {
        padBytes: random.chance(largeRatio) ? random.between(10_000, 200_000) : 0,
        isNamed: random.chance(namedRatio),
      });
      // oxlint-disable no-await-in-loop -- one after the other is what a lane is
      const isNamed = message.headers["Idempotency-Key"] !== undefined;
      const asked = await (isNamed ? named(message) : untilAnswered(run, message, () => running));
      if (asked.outcome === 202 && !isNamed) {
        accepted.push(message);
        if (accepted.length > 2_000) accepted.splice(0, 500);
        if (random.chance(replayRatio)) await replay(run, random.chance(0.5) ? message : random.pick(accepted));
      }
      await sleep(random.next() * pauseMs);
      // oxlint-enable no-await-in-loop
    }
  };
  const all = senders.flatMap((from, index) => Array.from({ length: lanes }, () => lane(from, index)));
  return {
    signedAnew: () => anew,
    async stop() {
      running = false;
      await Promise.all(all);
    },
  };
}

/** The same bytes again, until something is answered; a refusal as a replay means that an earlier attempt had arrived. */
export async function untilAnswered(run: Run, message: SignedMessage, mayGoOn: () => boolean): Promise<Asked> {
  for (;;) {
    // oxlint-disable no-await-in-loop -- until there is an answer
    const asked = await post(run, message);
    if (asked.outcome !== "unknown" || !mayGoOn()) return asked;
    await sleep(60);
    // oxlint-enable no-await-in-loop
  }
}

export async function replay(run: Run, message: SignedMessage): Promise<void> {
  const { outcome, atMs } = await post(run, message).then((asked) => asked);
  run.history.record({ kind: "replay", atMs, key: message.key, outcome });
}

/** The name of a message in a history: of one to all of a group, each recipient's is its own. */
export function recordedKey(payload: { key: string; isToAll?: boolean | undefined }, recipient: string): string {
  return payload.isToAll === true ? `${payload.key} to ${recipient.slice(-6)}` : payload.key;
}

export type Recipients = {
  /** Deliveries so far, repeats included. */
  count(): number;
  /** What was done to acknowledgements, and why sockets ended. */
  garbled(): { doubled: number; reordered: number };
  closes(): string;
  /** Ends every socket once; they come back. */
  cut(): void;
  /** No further coming back; ends the sockets. */
  stop(): void;
};

export type RecipientOptions = {
  /** Another way to the program than straight. */
  urlOf?: (index: number) => string;
  /** Of the deliveries, how many are never acknowledged on this socket. */
  silentRatio?: number;
  /** Of the deliveries, how many are refused. */
  refuseRatio?: number;
  /** Duplicates acknowledgements and sends them in another order. */
  garbled?: boolean;
};

/** Every recipient on a relay socket of its own, acknowledging what comes. */
export function startRecipients(run: Run, options: RecipientOptions = {}): Recipients {
  const { silentRatio = 0, refuseRatio = 0.005, garbled = false } = options;
  const { history, random } = run;
  const sockets = new Set<WebSocket>();
  const closes = new Map<string, number>();
  let running = true;
  let count = 0;
  let doubled = 0;
  let reordered = 0;

  const stay = async (agent: Agent, index: number): Promise<void> => {
    while (running) {
      // oxlint-disable no-await-in-loop -- one socket at a time
      try {
        await connected(agent, options.urlOf?.(index) ?? run.program.url);
      } catch (error) {
        if (!(error instanceof Error)) throw error;
      }
      if (running) await sleep(random.between(50, 250));
      // oxlint-enable no-await-in-loop
    }
  };

  /** Resolves when the socket has ended. */
  const connected = async (agent: Agent, url: string): Promise<void> => {
    const issued = await run.ask("relay ticket", () =>
      request(run.program.url, agent, { method: "POST", path: "/v1/relay/tickets", body: "{}" }),
    );
    if (!hasWorked(issued)) return;
    const socket = new WebSocket(`${url.replace("http", "ws")}/relay/connect`, [
      "sallyport.v1",
      `sallyport.ticket.${String(issued.body["ticket"])}`,
    ]);
    sockets.add(socket);
    const held: string[] = [];
    const acknowledge = (text: string): void => {
      if (socket.readyState !== WebSocket.OPEN) return;
      if (!garbled) {
        socket.send(text);
        return;
      }
      held.push(text);
      if (held.length < 3 && random.chance(0.7)) {
        setTimeout(() => flush(), 200);
        return;
      }
      flush();
    };
    const flush = (): void => {
      if (socket.readyState !== WebSocket.OPEN) return;
      if (held.length > 1) reordered += held.length;
      for (const text of held.splice(0).toReversed()) {
        socket.send(text);
        if (!random.chance(0.3)) continue;
        doubled += 1;
        socket.send(text);
      }
    };
    socket.addEventListener("message", ({ data }) => {
      const frame = JSON.parse(String(data)) as {
        type: string;
        id: string;
        deliveryId: string;
        fromAgentDid: string;
        toAgentDid: string;
        payload: { key?: string; isToAll?: boolean };
        status?: string;
      };
      const atMs = performance.now();
      if (frame.type === "receipt") {
        history.record({
          kind: "ended",
          atMs,
          deliveryId: frame.deliveryId,
          state: frame.status === "dead_lettered" ? "dead_lettered" : "delivered",
          by: "receipt",
        });
      }
      if (frame.type !== "deliver") return;
      const { key: named, isToAll } = frame.payload;
      const key = named === undefined ? undefined : recordedKey({ key: named, isToAll }, frame.toAgentDid);
      const isRefused = key !== undefined && random.chance(refuseRatio);
      if (key !== undefined) {
        count += 1;
        history.record({
          kind: "deliver",
          atMs,
          key,
          sender: frame.fromAgentDid,
          recipient: frame.toAgentDid,
          deliveryId: frame.deliveryId,
          isRefused,
        });
        if (random.chance(silentRatio)) return;
      }
      acknowledge(
        JSON.stringify({
          v: 1,
          type: "deliver_ack",
          id: ulid(),
          ts: new Date().toISOString(),
          ackId: frame.id,
          accepted: !isRefused,
        }),
      );
    });
    await new Promise<void>((resolve) => {
      socket.addEventListener("close", ({ code, reason }) => {
        const why = `${code}${reason === "" ? "" : ` ${reason}`}`;
        closes.set(why, (closes.get(why) ?? 0) + 1);
        resolve();
      });
      socket.addEventListener("error", () => resolve());
    });
    sockets.delete(socket);
  };

  for (const [index, agent] of run.recipients.entries()) void stay(agent, index);
  return {
    count: () => count,
    garbled: () => ({ doubled, reordered }),
    closes: () => [...closes].map(([why, times]) => `${why} × ${times}`).join(", "),
    cut() {
      for (const socket of sockets) socket.close();
    },
    stop() {
      running = false;
      for (const socket of sockets) socket.close();
    },
  };
}

/**
 * Waits until every message that was answered 202 has come or is said to have ended, and writes down what the proxy says of
 * those that did not come: also that they wait, when there is no more time.
 */
export async function settled(run: Run, withinMs: number): Promise<void> {
  const deadlineMs = performance.now() + withinMs;
  for (;;) {
    const open = openSends(run.history);
    const isLastLook = open.length === 0 || performance.now() > deadlineMs;
    // oxlint-disable-next-line no-await-in-loop -- asked again, until it is so
    await askWhatBecame(run, isLastLook ? open : open.slice(0, 50), isLastLook);
    // oxlint-disable-next-line no-await-in-loop
    await lookAtDeadLetters(run);
    if (isLastLook) return;
    // oxlint-disable-next-line no-await-in-loop
    await sleep(500);
  }
}

/** Asks the proxy about messages, as their senders. */
async function askWhatBecame(
  run: Run,
  sends: readonly Extract<HistoryEvent, { kind: "send" }>[],
  isLastLook: boolean,
): Promise<void> {
  for (const { sender, deliveryId } of sends) {
    const agent = run.known.get(sender);
    if (agent === undefined || deliveryId === null) continue;
    // oxlint-disable-next-line no-await-in-loop -- asked one by one
    const { atMs, body } = await run.ask("delivery", () =>
      request(run.program.url, agent, { method: "GET", path: `/v1/deliveries/${deliveryId}` }),
    );
    if (body["state"] === "dead_lettered")
      run.history.record({ kind: "ended", atMs, deliveryId, state: "dead_lettered", by: "asked" });
    else if (body["state"] === "handled" || body["state"] === "failed")
      run.history.record({ kind: "judged", atMs, deliveryId, state: body["state"], by: "early" });
    else if (isLastLook && body["state"] === "queued") run.history.record({ kind: "waiting", atMs, deliveryId });
  }
}

/** @returns the attempts at messages that were accepted and have neither come nor ended */
function openSends(history: History): Extract<HistoryEvent, { kind: "send" }>[] {
  const done = new Set(
    history.events.flatMap((event) => (event.kind === "deliver" || event.kind === "ended" ? [event.deliveryId] : [])),
  );
  return history.events
    .filter((event) => event.kind === "send")
    .filter(({ deliveryId }) => deliveryId !== null && !done.has(deliveryId));
}

/** What lies with the recipients as dead, page by page: also of senders that can no longer ask. */
async function lookAtDeadLetters({ program, history, recipients, ask }: Run): Promise<void> {
  for (const recipient of recipients) {
    let cursor: string | undefined;
    do {
      const path = `/v1/dead-letters${cursor === undefined ? "" : `?cursor=${cursor}`}`;
      // oxlint-disable-next-line no-await-in-loop -- page by page
      const asked = await ask("dead letters", () => request(program.url, recipient, { method: "GET", path }));
      const { deadLetters = [], nextCursor } = asked.body as {
        deadLetters?: { deliveryId: string }[];
        nextCursor?: string;
      };
      for (const { deliveryId } of deadLetters)
        history.record({ kind: "ended", atMs: asked.atMs, deliveryId, state: "dead_lettered", by: "asked" });
      cursor = nextCursor;
    } while (cursor !== undefined);
  }
}
