/** Devices of an agent, and the relay sockets that they hold open. Devices never supersede: one may hold hundreds. */
import type { KeyObject } from "node:crypto";
import { type Agent, newKey, operator, request, send } from "../support/program/agents.ts";
import { proofHeaders } from "../support/signing.ts";

export type Device = { agent: Agent; id: string; privateKey: KeyObject; token: string };

export type DeviceSocket = {
  /** Sends one frame that is answered, and resolves with its answer; null once the socket has closed. */
  ask(text: string): Promise<string | null>;
  /** The close code. */
  closed: Promise<number>;
  close(): void;
};

export type Rate = { perSecond: number; answered: number; refused: number };

const RELAY_PATH = "/relay/connect";
const CLAIM_PATH = "/v1/devices/claim";
/** Any ULID does as the id of a frame. */
const FRAME_ID = "01K0000000000000000000000F";
/** Upgrades under way at once. */
const OPENING = 10;

/** A device as people make it: asked for by its agent, approved by the operator, its token claimed by its own key. */
export async function pairDevice(url: string, agent: Agent, scopes: readonly string[]): Promise<Device> {
  const { privateKey, x } = newKey();
  const asked = JSON.stringify(rpc("device.pair.request", { publicKey: x, label: "bench", scopes }));
  const requested = await request(url, agent, { method: "POST", path: "/rpc", body: asked });
  const { requestId, deviceId, digest } = resultOf(requested) as {
    requestId: string;
    deviceId: string;
    digest: string;
  };
  await asOperator(url, "device.pair.approve", { agentDid: agent.did, requestId, digest });
  const device = { agent, id: deviceId, privateKey, token: "" };
  await claimToken(url, device);
  return device;
}

/** Fetches the token that the device may have now. */
export async function claimToken(url: string, device: Device): Promise<void> {
  const body = JSON.stringify({ agentDid: device.agent.did, deviceId: device.id });
  const headers = {
    "Content-Type": "application/json",
    ...proofHeaders(device.privateKey, { method: "POST", path: CLAIM_PATH, body }),
  };
  const answer = await send(url, { method: "POST", path: CLAIM_PATH, body }, headers);
  if (answer.status !== 200) throw new Error(`not claimed: ${answer.status} ${JSON.stringify(answer.body)}`);
  device.token = String(answer.body["token"]);
}

export async function asOperator<T>(url: string, method: string, params: unknown): Promise<T> {
  return resultOf(await operator(url, "POST", "/rpc", rpc(method, params))) as T;
}

export async function asAgent<T>(url: string, agent: Agent, method: string, params: unknown): Promise<T> {
  const body = JSON.stringify(rpc(method, params));
  return resultOf(await request(url, agent, { method: "POST", path: "/rpc", body })) as T;
}

/** @param onDeliver told each message that a socket was given; it has been acknowledged then */
export async function openSockets(
  url: string,
  device: Device,
  count: number,
  onDeliver?: () => void,
): Promise<DeviceSocket[]> {
  const sockets: DeviceSocket[] = [];
  let opening = 0;
  const openSome = async (): Promise<void> => {
    while (opening < count) {
      opening += 1;
      // oxlint-disable-next-line no-await-in-loop -- a few at a time
      sockets.push(await openSocket(url, device, onDeliver));
    }
  };
  await Promise.all(Array.from({ length: OPENING }, openSome));
  return sockets;
}

/** Keeps `window` frames in flight on every socket for so long, and counts the answers that hold a text. */
export async function rateOf(
  sockets: readonly DeviceSocket[],
  plan: { window: number; seconds: number; frame: string; holding: string },
): Promise<Rate> {
  let answered = 0;
  let refused = 0;
  const startedAtMs = performance.now();
  const stopAtMs = startedAtMs + plan.seconds * 1_000;
  const keepAsking = async (socket: DeviceSocket): Promise<void> => {
    while (performance.now() < stopAtMs) {
      // oxlint-disable-next-line no-await-in-loop -- the next when the last is answered
      const answer = await socket.ask(plan.frame);
      if (answer === null) throw new Error("a socket was closed");
      if (answer.includes(plan.holding)) answered += 1;
      else refused += 1;
    }
  };
  await Promise.all(sockets.flatMap((socket) => Array.from({ length: plan.window }, () => keepAsking(socket))));
  return { perSecond: (answered * 1_000) / (performance.now() - startedAtMs), answered, refused };
}

/** A call as a frame. */
export function callFrame(method: string, params: unknown): string {
  return JSON.stringify({ type: "req", id: "bench", method, params });
}

/** The cheapest frame there is. */
export function heartbeatFrame(): string {
  return JSON.stringify({ v: 1, type: "heartbeat", id: FRAME_ID, ts: new Date().toISOString() });
}

function ackFrame(ackId: string): string {
  return JSON.stringify({
    v: 1,
    type: "deliver_ack",
    id: FRAME_ID,
    ts: new Date().toISOString(),
    ackId,
    accepted: true,
  });
}

async function openSocket(url: string, device: Device, onDeliver?: () => void): Promise<DeviceSocket> {
  const headers = {
    Authorization: `Device ${device.token}`,
    "X-Claw-Agent-Did": device.agent.did,
    ...proofHeaders(device.privateKey, { method: "GET", path: RELAY_PATH }),
  };
  // Node's WebSocket takes headers, unlike a browser's.
  const socket = new WebSocket(url.replace("http", "ws") + RELAY_PATH, { headers } as unknown as string[]);
  const waiting: ((answer: string | null) => void)[] = [];
  // Frames of one kind are answered in their order.
  socket.addEventListener("message", ({ data }) => {
    const text = String(data);
    if (text.includes('"type":"res"') || text.includes('"type":"heartbeat_ack"')) waiting.shift()?.(text);
    if (!text.includes('"type":"deliver"')) return;
    socket.send(ackFrame((JSON.parse(text) as { id: string }).id));
    onDeliver?.();
  });
  const closed = new Promise<number>((resolve) => {
    socket.addEventListener("close", ({ code }) => {
      for (const resolveAsked of waiting.splice(0)) resolveAsked(null);
      resolve(code);
    });
  });
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener("open", () => resolve());
    socket.addEventListener("error", () => reject(new Error("the socket did not open")));
  });
  return {
    ask: (text) =>
      new Promise((resolve) => {
        if (socket.readyState !== WebSocket.OPEN) {
          resolve(null);
          return;
        }
        waiting.push(resolve);
        socket.send(text);
      }),
    closed,
    close: () => socket.close(1000, "done"),
  };
}

function rpc(method: string, params: unknown): Record<string, unknown> {
  return { jsonrpc: "2.0", id: 1, method, params };
}

function resultOf({ status, body }: { status: number; body: Record<string, unknown> }): unknown {
  if (body["result"] === undefined) throw new Error(`no result: ${status} ${JSON.stringify(body)}`);
  return body["result"];
}
