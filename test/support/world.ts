/** Agents, devices, API keys and an operator over the whole program: real routes, gates and D1. */
import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import worker from "../../src/worker.ts";
import { encodeBase64Url } from "../../src/wire/base64url.ts";
import { proofText } from "../../src/wire/proof.ts";

export const OPERATOR_TOKEN = "test-operator-token-0123456789abcdef0123456789";

export type Agent = {
  kind: "agent";
  did: string;
  ownerDid: string;
  tenantId: string;
  ait: string;
  access: string;
  key: CryptoKey;
  x: string;
};
export type Device = { kind: "device"; agentDid: string; deviceId: string; token: string; key: CryptoKey };
export type Holder = { kind: "apiKey"; apiKeyId: string; serviceAccountId: string; key: string };
/** The holder of `OPERATOR_TOKEN`, or of a key. */
export type Operator = { kind: "operator"; operatorId?: string; key?: string };
export type Caller = Agent | Device | Holder | Operator;

export const operator: Operator = { kind: "operator" };

export type RpcAnswer = {
  result?: Record<string, unknown>;
  error?: { code: number; message: string; data?: Record<string, unknown> };
};

const encoder = new TextEncoder();
const sha256 = async (text: string): Promise<string> =>
  encodeBase64Url(new Uint8Array(await crypto.subtle.digest("SHA-256", encoder.encode(text))));

/** Sends a request through the whole Worker. */
export async function fetchWorker(request: Request, settings: Env = env): Promise<Response> {
  return worker.fetch(request as Parameters<typeof worker.fetch>[0], settings, createExecutionContext());
}

export async function newKey(): Promise<{ key: CryptoKey; x: string }> {
  const pair = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
  const raw = (await crypto.subtle.exportKey("raw", pair.publicKey)) as ArrayBuffer;
  return { key: pair.privateKey, x: encodeBase64Url(new Uint8Array(raw)) };
}

export async function register(extra: Record<string, unknown> = {}, settings: Env = env): Promise<Agent> {
  const { key, x } = await newKey();
  const body = JSON.stringify({ name: "agent", framework: "test", publicKey: x, ...extra });
  const answer = await fetchWorker(
    new Request("https://proxy.example/v1/agents", { method: "POST", body, headers: bearer(OPERATOR_TOKEN) }),
    settings,
  );
  if (answer.status !== 201) throw new Error(`not registered: ${answer.status} ${await answer.text()}`);
  const made = await answer.json<{
    agentDid: string;
    ownerDid: string;
    tenantId: string;
    ait: string;
    access: { token: string };
  }>();
  const { agentDid: did, ownerDid, tenantId, ait, access } = made;
  return { kind: "agent", did, ownerDid, tenantId, ait, access: access.token, key, x };
}

/** A device of an agent, with these scopes; approved by the operator and with its token claimed. */
export async function pairDevice(agent: Agent, scopes: string[]): Promise<Device> {
  const { key, x } = await newKey();
  const requested = await result(agent, "device.pair.request", { publicKey: x, label: "laptop", scopes });
  const { requestId, digest, deviceId } = requested as { requestId: string; digest: string; deviceId: string };
  await result(operator, "device.pair.approve", { agentDid: agent.did, requestId, digest });
  const body = JSON.stringify({ agentDid: agent.did, deviceId });
  const request = new Request("https://proxy.example/v1/devices/claim", {
    method: "POST",
    body,
    headers: { "Content-Type": "application/json", ...(await proof(key, "POST", "/v1/devices/claim", body)) },
  });
  const claimed = await (await fetchWorker(request)).json<{ token: string }>();
  return { kind: "device", agentDid: agent.did, deviceId, token: claimed.token, key };
}

export async function apiKeyOf(agent: Agent, scopes: string[], by: Caller = operator): Promise<Holder> {
  const made = await result(by, "apikey/create", { agentDid: agent.did, name: "ci", scopes });
  return { kind: "apiKey", ...(made as { apiKeyId: string; serviceAccountId: string; key: string }) };
}

/** An operator with a key. */
export async function operatorWith(role: string, name: string, by: Operator = operator): Promise<Required<Operator>> {
  const made = await result(by, "operator/create", { name, role });
  return { kind: "operator", ...(made as { operatorId: string; key: string }) };
}

/** Calls a method; the answer as it came. */
export async function rpcResponse(
  caller: Caller,
  method: string,
  params: unknown,
  { headers = {}, settings = env }: { headers?: Record<string, string>; settings?: Env } = {},
): Promise<Response> {
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
  const request = new Request("https://proxy.example/rpc", {
    method: "POST",
    body,
    headers: { ...(await authorization(caller, body)), ...headers },
  });
  return fetchWorker(request, settings);
}

export async function rpc(caller: Caller, method: string, params: unknown, settings: Env = env): Promise<RpcAnswer> {
  return (await rpcResponse(caller, method, params, { settings })).json();
}

/** A call that must succeed. */
export async function result(
  caller: Caller,
  method: string,
  params: unknown,
  settings: Env = env,
): Promise<Record<string, unknown>> {
  const answer = await rpc(caller, method, params, settings);
  if (answer.result === undefined) throw new Error(`${method}: ${JSON.stringify(answer)}`);
  return answer.result;
}

/** A call that must be refused: its code. */
export async function codeOf(caller: Caller, method: string, params: unknown, settings: Env = env): Promise<string> {
  const answer = await rpc(caller, method, params, settings);
  if (answer.error === undefined) throw new Error(`${method} was not refused: ${JSON.stringify(answer)}`);
  return String(answer.error.data?.["code"]);
}

export type Task = { taskId: string; tenantId: string; name: string | null; agentDid: string; status: string } & Record<
  string,
  unknown
>;

export async function createTask(caller: Caller, params: Record<string, unknown>, settings: Env = env): Promise<Task> {
  return (await result(caller, "task/create", params, settings))["task"] as Task;
}

/** Makes subjects members of an agent's tenant, as the operator does before others share with them. */
export async function admit({ tenantId }: Agent, ...subjects: string[]): Promise<void> {
  const writes = subjects.map((subject) => ({ object: `tenant:${tenantId}`, relation: "member", subject }));
  await result(operator, "authz/write", { writes });
}

export async function rows<T = Record<string, unknown>>(sql: string, ...values: unknown[]): Promise<T[]> {
  return (
    await env.DB.prepare(sql)
      .bind(...values)
      .all<T>()
  ).results;
}

/** Every tuple of an object, as text. */
export async function tuplesOf(object: string): Promise<string[]> {
  const colon = object.indexOf(":");
  const found = await rows<{ text: string }>(
    `SELECT relation || '@' || subject_type || ':' || subject_id AS text FROM relationships
     WHERE object_type = ?1 AND object_id = ?2 ORDER BY 1`,
    object.slice(0, colon),
    object.slice(colon + 1),
  );
  return found.map(({ text }) => text);
}

/** The headers of a signed request. */
export async function authorization(
  caller: Caller,
  body: string,
  { method, path } = { method: "POST", path: "/rpc" },
): Promise<Record<string, string>> {
  switch (caller.kind) {
    case "operator":
      return bearer(caller.key ?? OPERATOR_TOKEN);
    case "apiKey":
      return bearer(caller.key);
    case "agent":
      return {
        "Content-Type": "application/json",
        Authorization: `Claw ${caller.ait}`,
        "X-Claw-Agent-Access": caller.access,
        ...(await proof(caller.key, method, path, body)),
      };
    case "device":
      return {
        "Content-Type": "application/json",
        Authorization: `Device ${caller.token}`,
        "X-Claw-Agent-Did": caller.agentDid,
        ...(await proof(caller.key, method, path, body)),
      };
  }
}

function bearer(token: string): Record<string, string> {
  return { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
}

async function proof(
  key: CryptoKey,
  method: string,
  pathWithQuery: string,
  body: string,
): Promise<Record<string, string>> {
  const timestamp = String(Math.floor(Date.now() / 1_000));
  const nonce = crypto.randomUUID();
  const bodySha256 = await sha256(body);
  const text = proofText({ method, pathWithQuery, timestamp, nonce, bodySha256 });
  const signature = await crypto.subtle.sign("Ed25519", key, encoder.encode(text));
  return {
    "X-Claw-Timestamp": timestamp,
    "X-Claw-Nonce": nonce,
    "X-Claw-Body-SHA256": bodySha256,
    "X-Claw-Proof": encodeBase64Url(new Uint8Array(signature)),
  };
}
