/** Recipients over real relay sockets, which acknowledge everything they are given and remember when. */
import { type Agent, request } from "../support/program/agents.ts";

export type Received = { deliveryId: string; recipient: number; fromAgentDid: string; atMs: number };

export type Recipients = {
  /** Everything that has come since the last `forget`, in its order. */
  received: Received[];
  /** Resolves once `count` deliveries have come; false when they have not by then. */
  until(count: number, withinMs: number): Promise<boolean>;
  forget(): void;
  close(): Promise<void>;
};

const OPENED_AT_ONCE = 16;

/** Any ULID does as the id of a frame. */
const FRAME_ID = "01K0000000000000000000000F";

export async function connectRecipients(url: string, agents: readonly Agent[]): Promise<Recipients> {
  const received: Received[] = [];
  let look: (() => void) | null = null;
  const sockets: WebSocket[] = [];
  for (let at = 0; at < agents.length; at += OPENED_AT_ONCE) {
    const some = agents.slice(at, at + OPENED_AT_ONCE);
    // oxlint-disable-next-line no-await-in-loop -- a hundred newcomers at once are more than an isolate asks the registry for
    sockets.push(...(await Promise.all(some.map((agent, index) => open(url, agent, at + index)))));
  }

  async function open(at: string, agent: Agent, recipient: number): Promise<WebSocket> {
    const issued = await request(at, agent, { method: "POST", path: "/v1/relay/tickets", body: "{}" });
    if (issued.status !== 200) throw new Error(`no relay ticket: ${issued.status} ${JSON.stringify(issued.body)}`);
    const { ticket } = issued.body as unknown as { ticket: string };
    const socket = new WebSocket(`${at.replace("http", "ws")}/relay/connect`, [
      "sallyport.v1",
      `sallyport.ticket.${ticket}`,
    ]);
    socket.addEventListener("message", ({ data }) => {
      const frame = JSON.parse(String(data)) as { type: string; id: string; deliveryId: string; fromAgentDid: string };
      if (frame.type !== "deliver") return;
      const ts = new Date().toISOString();
      socket.send(`{"v":1,"type":"deliver_ack","id":"${FRAME_ID}","ts":"${ts}","ackId":"${frame.id}","accepted":true}`);
      // What the proxy itself tells of pairings is acknowledged, and not counted.
      if (frame.fromAgentDid === null || frame.fromAgentDid === undefined) return;
      received.push({
        deliveryId: frame.deliveryId,
        recipient,
        fromAgentDid: frame.fromAgentDid,
        atMs: performance.now(),
      });
      look?.();
    });
    await new Promise<void>((resolve, reject) => {
      socket.addEventListener("open", () => resolve());
      socket.addEventListener("error", () => reject(new Error("the socket did not open")));
    });
    return socket;
  }

  return {
    received,
    until(count, withinMs) {
      if (received.length >= count) return Promise.resolve(true);
      return new Promise((resolve) => {
        const end = (came: boolean): void => {
          clearTimeout(timer);
          look = null;
          resolve(came);
        };
        const timer = setTimeout(() => end(false), withinMs);
        look = () => {
          if (received.length >= count) end(true);
        };
      });
    },
    forget: () => void received.splice(0),
    async close() {
      await Promise.all(
        sockets.map(
          (socket) =>
            new Promise<void>((resolve) => {
              socket.addEventListener("close", () => resolve());
              socket.close(1000, "done");
            }),
        ),
      );
    },
  };
}
