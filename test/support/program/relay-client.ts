/** A relay client of the tests' own, on the platform's WebSocket, by relay ticket. */
import { type Agent, request } from "./agents.ts";

export type Frame = Record<string, unknown> & { type: string };

export type RelayClient = {
  frames: Frame[];
  /** The same as they came. */
  texts: string[];
  closed: Promise<{ code: number; reason: string }>;
  /** The first frame so far, or still to come, that fits. */
  next(fits: (frame: Frame) => boolean, withinMs?: number): Promise<Frame>;
  send(frame: Record<string, unknown>): void;
  sendText(text: string): void;
  /** A text or a binary message, whatever it says. */
  sendRaw(message: string | Uint8Array<ArrayBuffer>): void;
  acknowledge(frame: Frame, accepted?: boolean, reason?: string): void;
  close(): void;
};

let counter = 0;
const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

export function ulid(): string {
  counter += 1;
  let rest = counter;
  let tail = "";
  for (let index = 0; index < 8; index++) {
    tail = ALPHABET.charAt(rest % 32) + tail;
    rest = Math.floor(rest / 32);
  }
  let random = "";
  for (let index = 0; index < 8; index++) random += ALPHABET.charAt(Math.floor(Math.random() * 32));
  return `01K${"0".repeat(7)}${random}${tail}`;
}

/** @param autoAcknowledge whether every delivery is acknowledged as it comes */
export async function connectRelay(url: string, agent: Agent, autoAcknowledge = true): Promise<RelayClient> {
  const issued = await request(url, agent, { method: "POST", path: "/v1/relay/tickets", body: "{}" });
  if (issued.status !== 200) throw new Error(`no relay ticket: ${issued.status} ${JSON.stringify(issued.body)}`);
  return openRelay(url, String(issued.body["ticket"]), autoAcknowledge);
}

export async function openRelay(url: string, ticket: string, autoAcknowledge = true): Promise<RelayClient> {
  const socket = new WebSocket(`${url.replace("http", "ws")}/relay/connect`, [
    "sallyport.v1",
    `sallyport.ticket.${ticket}`,
  ]);
  const frames: Frame[] = [];
  const texts: string[] = [];
  const waiting = new Set<() => void>();
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    socket.addEventListener("close", ({ code, reason }) => resolve({ code, reason }));
  });
  const client: RelayClient = {
    frames,
    texts,
    closed,
    async next(fits, withinMs = 60_000) {
      const found = frames.find(fits);
      if (found !== undefined) return found;
      return new Promise<Frame>((resolve, reject) => {
        const look = (): void => {
          const frame = frames.find(fits);
          if (frame === undefined) return;
          clearTimeout(timer);
          waiting.delete(look);
          resolve(frame);
        };
        const timer = setTimeout(() => {
          waiting.delete(look);
          reject(new Error(`no such frame within ${withinMs} ms; had ${JSON.stringify(frames).slice(0, 2_000)}`));
        }, withinMs);
        waiting.add(look);
      });
    },
    send: (frame) => socket.send(JSON.stringify({ v: 1, id: ulid(), ts: new Date().toISOString(), ...frame })),
    sendText: (text) => socket.send(text),
    sendRaw: (message) => socket.send(message),
    acknowledge(frame, accepted = true, reason) {
      client.send({ type: "deliver_ack", ackId: frame["id"], accepted, ...(reason === undefined ? {} : { reason }) });
    },
    close: () => socket.close(1000, "done"),
  };
  socket.addEventListener("message", ({ data }) => {
    const frame = JSON.parse(String(data)) as Frame;
    texts.push(String(data));
    frames.push(frame);
    if (autoAcknowledge && frame.type === "deliver") client.acknowledge(frame);
    for (const look of waiting) look();
  });
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener("open", () => resolve());
    socket.addEventListener("error", () => reject(new Error("the socket did not open")));
  });
  return client;
}
