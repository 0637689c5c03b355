/**
 * Senders that write frames: each on its relay socket, again and again, also twice and in another order. What was not
 * acknowledged is written again, under the same id, on the next socket.
 */
import type { Agent } from "../support/program/agents.ts";
import { request } from "../support/program/agents.ts";
import { ulid } from "../support/program/relay-client.ts";
import { hasWorked, newName, sleep, type Run } from "./participants.ts";
import type { Load } from "./traffic.ts";

/** Fewer than the frames that one socket may have waiting, so that a refusal is none of these. */
const PENDING_MAX = 24;
const REMEMBERED = 30;
const ACKNOWLEDGED_WITHIN_MS = 20_000;

/** A message as a frame; its id makes it one message, however often it is written. */
export type Letter = { id: string; key: string; to: string; begunAtMs: number; text: string };

export function letterTo(from: Agent, to: string): Letter {
  const id = ulid();
  const key = newName(from);
  const text = JSON.stringify({
    v: 1,
    type: "enqueue",
    id,
    ts: new Date().toISOString(),
    toAgentDid: to,
    payload: { key },
  });
  return { id, key, to, begunAtMs: performance.now(), text };
}

/** What is known of a letter: acknowledged as taken or not, or nothing. */
export function recordLetter(
  { history }: Run,
  from: Agent,
  { key, to, begunAtMs }: Letter,
  ack: { accepted: boolean; deliveryId?: string } | null,
  authority?: string,
): void {
  history.record({
    kind: "send",
    begunAtMs,
    atMs: performance.now(),
    key,
    sender: from.did,
    recipient: to,
    outcome: ack === null ? "unknown" : ack.accepted ? 202 : 403,
    deliveryId: ack?.accepted === true ? String(ack.deliveryId) : null,
    wasKnown: false,
    ...(authority === undefined ? {} : { authority }),
  });
}

export type SocketSenders = Load & {
  done(): { written: number; doubled: number; late: number; swapped: number; resent: number; receipts: number };
};

export type CourierOptions = {
  /** Another way to the program than straight. */
  urlOf?: (index: number) => string;
  pauseMs?: number;
};

export function startSocketSenders(run: Run, { urlOf, pauseMs = 60 }: CourierOptions = {}): SocketSenders {
  const { program, history, random, senders, recipients } = run;
  const done = { written: 0, doubled: 0, late: 0, swapped: 0, resent: 0, receipts: 0 };
  let running = true;
  let deadlineMs = Infinity;

  const socketSender = async (from: Agent, index: number): Promise<void> => {
    /** Written and not acknowledged, in the order of writing. */
    const pending = new Map<string, Letter>();
    /** Acknowledged lately. */
    const taken: Letter[] = [];
    const goesOn = (): boolean => running || (pending.size > 0 && performance.now() < deadlineMs);

    const write = (socket: WebSocket, letter: Letter): void => {
      pending.set(letter.id, letter);
      socket.send(letter.text);
      done.written += 1;
    };
    const acknowledged = ({ ackId, ...ack }: { ackId: string; accepted: boolean; deliveryId?: string }): void => {
      const letter = pending.get(ackId) ?? taken.find(({ id }) => id === ackId);
      if (letter === undefined) return;
      recordLetter(run, from, letter, ack);
      if (!pending.delete(ackId) || !ack.accepted) return;
      taken.push(letter);
      if (taken.length > REMEMBERED) taken.shift();
    };
    const chat = (socket: WebSocket): void => {
      const to = recipients[(index + (random.chance(0.5) ? 1 : 0)) % recipients.length] as Agent;
      const letter = letterTo(from, to.did);
      const what = random.next();
      if (what < 0.2) {
        const other = letterTo(from, to.did);
        write(socket, other);
        write(socket, letter);
        done.swapped += 1;
        return;
      }
      write(socket, letter);
      if (what < 0.4) {
        socket.send(letter.text);
        done.doubled += 1;
      } else if (what < 0.6 && taken.length > 0) {
        socket.send(random.pick(taken).text);
        done.late += 1;
      }
    };

    const connected = async (): Promise<void> => {
      const issued = await run.ask("relay ticket", () =>
        request(program.url, from, { method: "POST", path: "/v1/relay/tickets", body: "{}" }),
      );
      if (!hasWorked(issued)) return;
      const url = (urlOf?.(index) ?? program.url).replace("http", "ws");
      const socket = new WebSocket(`${url}/relay/connect`, [
        "sallyport.v1",
        `sallyport.ticket.${String(issued.body["ticket"])}`,
      ]);
      let isOpen = true;
      const closed = new Promise<void>((resolve) => {
        const end = (): void => {
          isOpen = false;
          resolve();
        };
        socket.addEventListener("close", end);
        socket.addEventListener("error", end);
      });
      socket.addEventListener("message", ({ data }) => {
        const frame = JSON.parse(String(data)) as {
          type: string;
          ackId: string;
          accepted: boolean;
          deliveryId: string;
          status: string;
        };
        if (frame.type === "enqueue_ack") acknowledged(frame);
        if (frame.type !== "receipt") return;
        done.receipts += 1;
        history.record({
          kind: "ended",
          atMs: performance.now(),
          deliveryId: frame.deliveryId,
          state: frame.status === "dead_lettered" ? "dead_lettered" : "delivered",
          by: "receipt",
        });
      });
      socket.addEventListener("open", () => {
        for (const letter of pending.values()) {
          socket.send(letter.text);
          done.resent += 1;
        }
      });
      while (isOpen && goesOn()) {
        if (running && socket.readyState === WebSocket.OPEN && pending.size < PENDING_MAX) chat(socket);
        // oxlint-disable-next-line no-await-in-loop -- one letter after the other
        await Promise.race([sleep(random.next() * pauseMs), closed]);
      }
      socket.close();
    };

    while (goesOn()) {
      // oxlint-disable no-await-in-loop -- one socket at a time
      await connected();
      if (goesOn()) await sleep(random.between(30, 150));
      // oxlint-enable no-await-in-loop
    }
    for (const letter of pending.values()) recordLetter(run, from, letter, null);
  };
  const all = senders.map((from, index) => socketSender(from, index));
  return {
    done: () => done,
    async stop() {
      running = false;
      deadlineMs = performance.now() + ACKNOWLEDGED_WITHIN_MS;
      await Promise.all(all);
    },
  };
}
