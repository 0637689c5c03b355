/** Signed requests, made before the clock runs, so that the client's own cryptography is not what is measured. */
import { type Agent, signedHeaders } from "../support/program/agents.ts";

/** @param fan how many recipients each sender writes to, in turn */
export type Topology = { senders: number; recipients: number; fan: number };

export type SignedSend = { sender: number; recipient: number; bytes: Buffer };

const HOOK_PATH = "/hooks/agent";
const RPC_PATH = "/rpc";
const TEXT =
  "A message of ordinary length, as one agent would write it to another about a thing that it has found out.";

/** The recipients that a sender has to be paired with. */
export function peersOf(sender: number, { recipients, fan }: Topology): number[] {
  return Array.from({ length: fan }, (_, turn) => (sender + turn) % recipients);
}

/**
 * `count` sends, every sender in turn, and every peer of a sender in turn.
 *
 * @param path another route than the hook's, for a Worker of the bench's own
 */
export function signSends(
  senders: readonly Agent[],
  recipients: readonly Agent[],
  fan: number,
  count: number,
  path: string = HOOK_PATH,
): SignedSend[] {
  const topology = { senders: senders.length, recipients: recipients.length, fan };
  return Array.from({ length: count }, (_, index): SignedSend => {
    const sender = index % topology.senders;
    const recipient = peersOf(sender, topology)[Math.floor(index / topology.senders) % fan] ?? 0;
    const from = senders[sender];
    const to = recipients[recipient];
    if (from === undefined || to === undefined) throw new Error("no such agent");
    return { sender, recipient, bytes: signSend(from, to.did, { index, text: TEXT }, path) };
  });
}

/** One send, as the bytes that go over the wire. */
export function signSend(from: Agent, toDid: string, payload: unknown, path: string = HOOK_PATH): Buffer {
  const body = JSON.stringify(payload);
  const headers = { "X-Claw-Recipient-Agent-Did": toDid };
  return requestBytes("POST", path, signedHeaders(from, { method: "POST", path, body, headers }), body);
}

/** One send to all of a group. */
export function signGroupSend(from: Agent, groupId: string, payload: object): Buffer {
  const body = JSON.stringify({ ...payload, text: TEXT });
  const headers = { "X-Claw-Group-Id": groupId };
  return requestBytes("POST", HOOK_PATH, signedHeaders(from, { method: "POST", path: HOOK_PATH, body, headers }), body);
}

/** `count` JSON-RPC calls, every agent in turn about itself. */
export function signCalls(agents: readonly Agent[], method: string, count: number): SignedSend[] {
  return Array.from({ length: count }, (_, index): SignedSend => {
    const sender = index % agents.length;
    const from = agents[sender];
    if (from === undefined) throw new Error("no such agent");
    const body = JSON.stringify({ jsonrpc: "2.0", id: index, method, params: { agentDid: from.did } });
    const headers = signedHeaders(from, { method: "POST", path: RPC_PATH, body });
    return { sender, recipient: 0, bytes: requestBytes("POST", RPC_PATH, headers, body) };
  });
}

export function signGet(from: Agent, path: string): Buffer {
  return requestBytes("GET", path, signedHeaders(from, { method: "GET", path }), "");
}

export function requestBytes(method: string, path: string, headers: Record<string, string>, body: string): Buffer {
  const lines = Object.entries({
    Host: "127.0.0.1",
    ...headers,
    ...(method === "GET" ? {} : { "Content-Length": String(Buffer.byteLength(body)) }),
  });
  return Buffer.from(
    `${method} ${path} HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n${body}`,
  );
}
