/** Agents at the front door: signed requests of any route, sends, and relay sockets of both dialects. */
import { env } from "cloudflare:workers";
import { type Agent, authorization, type Caller, type Device, fetchWorker } from "./world.ts";

export const ORIGIN = "https://proxy.example";

export type Answer = { status: number; body: Record<string, unknown>; text: string };

/** A request of an agent or a device, as the whole Worker answers it. */
export async function ask(
  caller: Exclude<Caller, { kind: "operator" } | { kind: "apiKey" }>,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const text = body === undefined ? "" : JSON.stringify(body);
  const signed = await authorization(caller, text, { method, path });
  const request = new Request(ORIGIN + path, {
    method,
    ...(body === undefined ? {} : { body: text }),
    headers: { ...signed, ...headers },
  });
  const answer = await fetchWorker(request);
  const answered = await answer.text();
  const isJson = (answer.headers.get("Content-Type") ?? "").includes("json");
  return {
    status: answer.status,
    text: answered,
    body: isJson ? (JSON.parse(answered) as Record<string, unknown>) : {},
  };
}

/** Makes two agents trust each other. */
export async function pair(one: Agent, other: Agent): Promise<void> {
  const [low, high] = [one.did, other.did].toSorted();
  await env.DB.prepare(
    "INSERT INTO trust_pairs (low_did, high_did, epoch, low_profile, high_profile, confirmed_at_ms) VALUES (?1, ?2, 1, '{}', '{}', ?3)",
  )
    .bind(low, high, Date.now())
    .run();
}

/** Sends a message by the hook. @returns its delivery id */
export async function sendTo(
  from: Agent,
  to: Agent,
  payload: unknown,
  headers: Record<string, string> = {},
): Promise<string> {
  const answer = await ask(from, "POST", "/hooks/agent", payload, { "X-Claw-Recipient-Agent-Did": to.did, ...headers });
  if (answer.status !== 202) throw new Error(`not sent: ${answer.status} ${answer.text}`);
  return String(answer.body["deliveryId"]);
}

export type Frame = Record<string, unknown> & { type: string; id: string };
export type RelaySocket = {
  frames: Frame[];
  of(type: string): Frame[];
  say(frame: Record<string, unknown>): string;
  raw(text: string): void;
  close(): void;
};

let lastId = 0;
const ulid = (): string => `01KBC${String((lastId += 1)).padStart(21, "0")}`;

/** Opens a relay socket. @param dialect what it asks for */
export async function openRelay(caller: Agent | Device, dialect: "v1" | "base"): Promise<RelaySocket> {
  const path = "/relay/connect";
  const signed = await authorization(caller, "", { method: "GET", path });
  const response = await fetchWorker(
    new Request(ORIGIN + path, {
      headers: {
        ...signed,
        Upgrade: "websocket",
        ...(dialect === "v1" ? { "Sec-WebSocket-Protocol": "sallyport.v1" } : {}),
      },
    }),
  );
  const socket = response.webSocket;
  if (socket === null) throw new Error(`no socket: ${response.status} ${await response.text()}`);
  socket.accept();
  const frames: Frame[] = [];
  socket.addEventListener("message", ({ data }) => frames.push(JSON.parse(String(data)) as Frame));
  return {
    frames,
    of: (type) => frames.filter((frame) => frame.type === type),
    say(frame) {
      const id = ulid();
      socket.send(JSON.stringify({ v: 1, id, ts: new Date().toISOString(), ...frame }));
      return id;
    },
    raw: (text) => socket.send(text),
    close: () => socket.close(1000),
  };
}
