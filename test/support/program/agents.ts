/** Agents as clients of the running program: registered, signing, sending, paired. */
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { proofHeaders } from "../signing.ts";

export const OPERATOR_TOKEN = "operator-token-of-the-tests-0123456789abcdef";

export type Answer = { status: number; headers: Headers; body: Record<string, unknown> };

export type Signed = {
  method: string;
  path: string;
  body?: string;
  headers?: Record<string, string>;
  timestamp?: number;
  nonce?: string;
  key?: KeyObject;
};

export type Agent = {
  did: string;
  ownerDid: string;
  ait: string;
  accessToken: string;
  refreshToken: string;
  privateKey: KeyObject;
  publicX: string;
};

export const b64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64url");

/** Makes a key pair and registers it with the embedded registry. */
export async function register(url: string, name: string, extra: Record<string, unknown> = {}): Promise<Agent> {
  const { privateKey, x } = newKey();
  const answer = await operator(url, "POST", "/v1/agents", { name, framework: "test", publicKey: x, ...extra });
  if (answer.status !== 201) throw new Error(`not registered: ${answer.status} ${JSON.stringify(answer.body)}`);
  const { agentDid, ownerDid, ait, access, refreshToken } = answer.body as unknown as {
    agentDid: string;
    ownerDid: string;
    ait: string;
    access: { token: string };
    refreshToken: string;
  };
  return { did: agentDid, ownerDid, ait, accessToken: access.token, refreshToken, privateKey, publicX: x };
}

export function newKey(): { privateKey: KeyObject; x: string } {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  return { privateKey, x: publicKey.export({ format: "jwk" }).x ?? "" };
}

export async function operator(url: string, method: string, path: string, body?: unknown): Promise<Answer> {
  return answerOf(
    await fetch(url + path, {
      method,
      headers: { Authorization: `Bearer ${OPERATOR_TOKEN}`, "Content-Type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    }),
  );
}

/** The headers of a signed request of an agent. */
export function signedHeaders(
  agent: Agent,
  { method, path, body = "", headers = {}, timestamp, nonce, key }: Signed,
): Record<string, string> {
  return {
    Authorization: `Claw ${agent.ait}`,
    "X-Claw-Agent-Access": agent.accessToken,
    ...proofHeaders(key ?? agent.privateKey, { method, path, body, timestamp, nonce }),
    ...(body === "" ? {} : { "Content-Type": "application/json" }),
    ...headers,
  };
}

export async function request(url: string, agent: Agent, signed: Signed): Promise<Answer> {
  return send(url, signed, signedHeaders(agent, signed));
}

/** Sends what has been signed before, as it is: for replays and for what was tampered with. */
export async function send(
  url: string,
  { method, path, body }: Signed,
  headers: Record<string, string>,
): Promise<Answer> {
  return answerOf(await fetch(url + path, { method, headers, ...(body === undefined ? {} : { body }) }));
}

export function hookOf(to: string, payload: unknown, headers: Record<string, string> = {}): Signed {
  return {
    method: "POST",
    path: "/hooks/agent",
    body: JSON.stringify(payload),
    headers: { "X-Claw-Recipient-Agent-Did": to, ...headers },
  };
}

const profile = (name: string) => ({ agentName: name, humanName: `${name}'s human` });

/** Pairs two agents the way people do it: a ticket from one, confirmed by the other. */
export async function pair(url: string, initiator: Agent, responder: Agent): Promise<Answer> {
  const started = await request(url, initiator, {
    method: "POST",
    path: "/pair/start",
    body: JSON.stringify({ initiatorProfile: profile("initiator") }),
  });
  if (started.status !== 200) return started;
  const ticket = started.body["ticket"] as unknown as string;
  return request(url, responder, {
    method: "POST",
    path: "/pair/confirm",
    body: JSON.stringify({ ticket, responderProfile: profile("responder") }),
  });
}

async function answerOf(response: Response): Promise<Answer> {
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    body: (text === "" ? {} : JSON.parse(text)) as Answer["body"],
  };
}
