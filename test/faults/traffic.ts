/** Senders that write without pause, and recipients that come back whenever their socket ends. */
import type { Agent } from "../e2e/agent.ts";
import { request } from "../e2e/agent.ts";
import { ulid } from "../e2e/relay-client.ts";
import { type Asked, hasWorked, post, type SignedMessage, signMessage, sleep, type Town } from "./town.ts";

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
};

/** Each sender writes to its two recipients. What was not answered is sent again, in the same bytes, until it is. */
export function startSenders(town: Town, { lanes = 2, pauseMs = 40, replayRatio = 0.1 }: LoadOptions = {}): Load {
  const { senders, recipients, random } = town;
  const accepted: SignedMessage[] = [];
  let running = true;

  const lane = async (from: Agent, index: number): Promise<void> => {
    while (running) {
      const to = recipients[(index + (random.chance(0.5) ? 1 : 0)) % recipients.length] as Agent;
      const message = signMessage(from, to);
      // oxlint-disable no-await-in-loop -- one after the other is what a lane is
      const asked = await untilAnswered(town, message, () => running);
      if (asked.outcome === 202) {
        accepted.push(message);
        if (accepted.length > 2_000) accepted.splice(0, 500);
        if (random.chance(replayRatio)) await replay(town, random.chance(0.5) ? message : random.pick(accepted));
      }
      await sleep(random.next() * pauseMs);
      // oxlint-enable no-await-in-loop
    }
  };
  const all = senders.flatMap((from, index) => Array.from({ length: lanes }, () => lane(from, index)));
  return {
    async stop() {
      running = false;
      await Promise.all(all);
    },
  };
}

/** The same bytes again, until something is answered; a refusal as a replay means that an earlier attempt had arrived. */
export async function untilAnswered(town: Town, message: SignedMessage, mayGoOn: () => boolean): Promise<Asked> {
  for (;;) {
    // oxlint-disable no-await-in-loop -- until there is an answer
    const asked = await post(town, message);
    if (asked.outcome !== "unknown" || !mayGoOn()) return asked;
    await sleep(60);
    // oxlint-enable no-await-in-loop
  }
}

export async function replay(town: Town, message: SignedMessage): Promise<void> {
  const { outcome, atMs } = await post(town, message).then((asked) => asked);
  town.history.record({ kind: "replay", atMs, key: message.key, outcome });
}

export type Recipients = {
  /** Deliveries so far, repeats included. */
  count(): number;
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
export function startRecipients(town: Town, options: RecipientOptions = {}): Recipients {
  const { silentRatio = 0, refuseRatio = 0.005, garbled = false } = options;
  const { history, random } = town;
  const sockets = new Set<WebSocket>();
  let running = true;
  let count = 0;

  const stay = async (agent: Agent, index: number): Promise<void> => {
    while (running) {
      // oxlint-disable no-await-in-loop -- one socket at a time
      try {
        await connected(agent, options.urlOf?.(index) ?? town.program.url);
      } catch (error) {
        if (!(error instanceof Error)) throw error;
      }
      if (running) await sleep(random.between(50, 250));
      // oxlint-enable no-await-in-loop
    }
  };

  /** Resolves when the socket has ended. */
  const connected = async (agent: Agent, url: string): Promise<void> => {
    const issued = await town.ask("relay ticket", () =>
      request(town.program.url, agent, { method: "POST", path: "/v1/relay/tickets", body: "{}" }),
    );
    if (!hasWorked(issued)) return;
    const socket = new WebSocket(`${url.replace("http", "ws")}/relay/connect`, [
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
      for (const text of held.splice(0).toReversed()) {
        socket.send(text);
        if (random.chance(0.3)) socket.send(text);
      }
    };
    socket.addEventListener("message", ({ data }) => {
      const frame = JSON.parse(String(data)) as {
        type: string;
        id: string;
        deliveryId: string;
        fromAgentDid: string;
        toAgentDid: string;
        payload: { key?: string };
        status?: string;
      };
      const atMs = performance.now();
      if (frame.type === "receipt") {
        history.record({
          kind: "ended",
          atMs,
          deliveryId: frame.deliveryId,
          state: frame.status === "dead_lettered" ? "dead_lettered" : "delivered",
        });
      }
      if (frame.type !== "deliver") return;
      const { key } = frame.payload;
      if (key !== undefined) {
        count += 1;
        history.record({
          kind: "deliver",
          atMs,
          key,
          sender: frame.fromAgentDid,
          recipient: frame.toAgentDid,
          deliveryId: frame.deliveryId,
        });
        if (random.chance(silentRatio)) return;
      }
      const isRefused = key !== undefined && random.chance(refuseRatio);
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
      socket.addEventListener("close", () => resolve());
      socket.addEventListener("error", () => resolve());
    });
    sockets.delete(socket);
  };

  for (const [index, agent] of town.recipients.entries()) void stay(agent, index);
  return {
    count: () => count,
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
 * those that did not come.
 */
export async function settled(town: Town, withinMs: number): Promise<void> {
  const { history } = town;
  const deadlineMs = performance.now() + withinMs;
  for (;;) {
    const done = new Set(
      history.events.flatMap((event) => (event.kind === "deliver" || event.kind === "ended" ? [event.deliveryId] : [])),
    );
    const open = history.events
      .filter((event) => event.kind === "send")
      .filter(({ deliveryId }) => deliveryId !== null && !done.has(deliveryId));
    if (open.length === 0) return;
    for (const { sender, deliveryId } of open.slice(0, 50)) {
      const agent = town.senders.find(({ did }) => did === sender);
      if (agent === undefined || deliveryId === null) continue;
      // oxlint-disable-next-line no-await-in-loop -- asked one by one, until it is so
      const status = await town.ask("delivery", () =>
        request(town.program.url, agent, { method: "GET", path: `/v1/deliveries/${deliveryId}` }),
      );
      if (status.body["state"] === "dead_lettered")
        history.record({ kind: "ended", atMs: status.atMs, deliveryId, state: "dead_lettered" });
    }
    if (performance.now() > deadlineMs) return;
    // oxlint-disable-next-line no-await-in-loop
    await sleep(500);
  }
}
