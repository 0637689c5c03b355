/** Everybody who may call the program, with what is right for each to ask. */
import * as fc from "fast-check";
import {
  type Agent,
  newKey,
  operator,
  pair,
  register,
  request,
  send,
  signedHeaders,
  type Signed,
  OPERATOR_TOKEN,
} from "../support/program/agents.ts";
import { proofOf } from "../faults/credential-clients.ts";
import { anyText, spoiled } from "./arbitraries.ts";

const SCOPES = ["relay", "send", "tasks:read", "tasks:write", "devices", "admin"];

export type Callers = {
  agent: Agent;
  peer: Agent;
  deviceId: string;
  /** Another device, which nobody calls by: its token may come and go. */
  spareDeviceId: string;
  taskIds: string[];
  /** The headers of an RPC, by who calls. */
  headersOf: Record<string, (signed: Signed) => Record<string, string>>;
};

/** Two agents that are paired, a device, a shared secret, an API key and some tasks. */
export async function settle(url: string): Promise<Callers> {
  const agent = await register(url, "fuzzed");
  const peer = await register(url, "peer");
  await pair(url, agent, peer);

  const asAgent = async (method: string, params: Record<string, unknown>): Promise<Record<string, unknown>> => {
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
    const { body: answer } = await request(url, agent, { method: "POST", path: "/rpc", body });
    return resultOf(method, answer);
  };
  const asOperator = async (method: string, params: Record<string, unknown>): Promise<Record<string, unknown>> => {
    const call = { jsonrpc: "2.0", id: 1, method, params: { agentDid: agent.did, ...params } };
    return resultOf(method, (await operator(url, "POST", "/rpc", call)).body);
  };
  const newDevice = async () => {
    const { privateKey, x } = newKey();
    const asked = await asAgent("device.pair.request", { publicKey: x, label: "d", scopes: SCOPES });
    const { requestId, digest, deviceId } = asked as Record<string, string>;
    await asOperator("device.pair.approve", { requestId, digest });
    const body = JSON.stringify({ agentDid: agent.did, deviceId });
    const path = "/v1/devices/claim";
    const claimed = await send(url, { method: "POST", path, body }, proofOf(privateKey, path, body));
    return { privateKey, deviceId: String(deviceId), token: String(claimed.body["token"]) };
  };
  const device = await newDevice();
  const spare = await newDevice();
  const { secret } = await asOperator("shared.auth.rotate", {});
  const { key } = await asOperator("apikey/create", { name: "fuzz", scopes: SCOPES });
  const taskIds: string[] = [];
  for (let index = 0; index < 20; index++) {
    // oxlint-disable-next-line no-await-in-loop -- setting up is no burst
    const { task } = await asAgent("task/create", { agentDid: agent.did });
    taskIds.push((task as { taskId: string }).taskId);
  }
  const json = { "Content-Type": "application/json" };
  return {
    agent,
    peer,
    deviceId: device.deviceId,
    spareDeviceId: spare.deviceId,
    taskIds,
    headersOf: {
      agent: (signed) => signedHeaders(agent, signed),
      operator: () => ({ ...json, Authorization: `Bearer ${OPERATOR_TOKEN}` }),
      device: ({ path, body = "" }) => ({
        ...proofOf(device.privateKey, path, body),
        Authorization: `Device ${device.token}`,
        "X-Claw-Agent-Did": agent.did,
      }),
      shared: () => ({ ...json, Authorization: `Shared ${String(secret)}`, "X-Claw-Agent-Did": agent.did }),
      apiKey: () => ({ ...json, Authorization: `Bearer ${String(key)}` }),
    },
  };
}

function resultOf(method: string, body: Record<string, unknown>): Record<string, unknown> {
  if (body["result"] === undefined) throw new Error(`${method}: ${JSON.stringify(body).slice(0, 300)}`);
  return body["result"] as Record<string, unknown>;
}

/** A call that is right, or right but for a parameter or two. */
export function callOf({ agent, peer, spareDeviceId, taskIds }: Callers): fc.Arbitrary<Record<string, unknown>> {
  const task = fc.constantFrom(...taskIds).map((taskId) => ({ taskId }));
  const owner = `user:${agent.ownerDid}`;
  const tuple = { object: `agent:${agent.did}`, relation: "viewer", subject: owner };
  const of = (value: Record<string, unknown>): fc.Arbitrary<Record<string, unknown>> => fc.constant(value);
  const right: Record<string, fc.Arbitrary<Record<string, unknown>>> = {
    "device.pair.list": of({}),
    "device.pair.rename": of({ deviceId: spareDeviceId, label: "other" }),
    "device.token.rotate": of({ deviceId: spareDeviceId }),
    "task/create": fc.record({ agentDid: of({}).map(() => agent.did), params: fc.dictionary(anyText, anyText) }),
    "task/get": task,
    "task/list": fc.constantFrom({}, { limit: 3 }, { agentDid: agent.did }),
    "task/cancel": task,
    "task/share": task.map((one) => ({ ...one, subject: owner, relation: "viewer" })),
    "task/unshare": task.map((one) => ({ ...one, subject: owner, relation: "viewer" })),
    "message/send": fc.tuple(task, anyText).map(([one, content]) => ({ ...one, content })),
    "event/send": fc.tuple(task, anyText).map(([one, content]) => ({ ...one, content: { content } })),
    "apikey/list": of({}),
    "authz/write": of({ writes: [tuple] }),
    "authz/read": of({ object: tuple.object }),
    "authz/check": of(tuple),
    "authz/explain": of(tuple),
    "authz/list_objects": of({ subject: owner, relation: "read", type: "agent" }),
    "trust/list": of({ agentDid: agent.did }),
    "audit/list": of({ subject: peer.did }),
  };
  return fc.constantFrom(...Object.keys(right)).chain((method) => {
    const params = right[method] ?? of({});
    return fc.oneof(params, spoiled(params)).chain((some) =>
      fc.boolean().map((namesAgent) => ({
        jsonrpc: "2.0",
        id: 1,
        method,
        params: namesAgent && some["agentDid"] === undefined ? { ...some, agentDid: agent.did } : some,
      })),
    );
  });
}
