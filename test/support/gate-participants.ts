/** An agent, its devices and its shared secret, at a real gate: real proofs, real sockets, real D1. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { Scope } from "../../src/authority/scopes.ts";
import type { Reply, WrittenReply } from "../../src/call/reply.ts";
import type { Gate } from "../../src/gate/gate.ts";
import type { ClaimAnswer, GateAnswer, GateCaller } from "../../src/gate/protocol/calls.ts";
import type { GateRefusal } from "../../src/gate/protocol/refusal.ts";
import type { AgentAdmission } from "../../src/gate/protocol/submission.ts";
import { UPGRADE_HEADER, writeUpgrade } from "../../src/gate/protocol/upgrade.ts";
import type { ProofForm } from "../../src/auth/proof.ts";
import type { KnownAgents } from "../../src/identity/known-agents.ts";
import { createDispatcher } from "../../src/rpc/dispatcher.ts";
import type { Method } from "../../src/rpc/method.ts";
import { deviceMethods } from "../../src/rpc/methods/devices.ts";
import { runtimeOf } from "../../src/runtime.ts";
import { decodeBase64Url, encodeBase64Url } from "../../src/wire/base64url.ts";
import { type AgentDid, newDid } from "../../src/wire/did.ts";
import { sha256Base64Url, proofText, signProof } from "../../src/wire/proof.ts";
import { newUlid } from "../../src/wire/ulid.ts";

const AUTHORITY = "registry.sallyport.example";
const DAY_MS = 86_400_000;

export const gateStub = (did: AgentDid): DurableObjectStub<Gate> => env.GATE.getByName(did);
export const newAgent = (): AgentDid => newDid(AUTHORITY, "agent", newUlid(Date.now()));
export const hashOf = (text: string): Promise<string> => sha256Base64Url(new TextEncoder().encode(text));

/** The agents of these tests are registered nowhere, and exist by being named. */
const EVERYBODY: KnownAgents = { mayExist: () => Promise.resolve(true) };

/** Puts methods of the tests' own beside the devices', in the tests' isolate alone. */
export async function withMethods(methods: readonly Method[]): Promise<void> {
  const dispatcher = createDispatcher([...deviceMethods, ...methods]);
  await runInDurableObject(gateStub(newAgent()), (gate) => {
    for (const each of [env, (gate as unknown as { env: Env }).env])
      Object.assign(runtimeOf(each), { dispatcher, knownAgents: EVERYBODY });
  });
}

export type DeviceKey = { privateKey: CryptoKey; x: string };

export async function newDeviceKey(): Promise<DeviceKey> {
  const pair = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
  const raw = (await crypto.subtle.exportKey("raw", pair.publicKey)) as ArrayBuffer;
  return { privateKey: pair.privateKey, x: encodeBase64Url(new Uint8Array(raw)) };
}

export async function proofBy(key: CryptoKey, pathWithQuery = "/rpc"): Promise<ProofForm> {
  const signed = {
    method: "POST",
    pathWithQuery,
    timestamp: String(Math.floor(Date.now() / 1_000)),
    nonce: crypto.randomUUID(),
    bodySha256: await hashOf("{}"),
  };
  const signature = decodeBase64Url(await signProof(key, signed))! as Uint8Array<ArrayBuffer>;
  const { nonce, bodySha256 } = signed;
  const timestampMs = Number(signed.timestamp) * 1_000;
  const signedTexts = [proofText(signed)];
  return { version: 1, timestampMs, nonce, bodySha256, signature, skewMs: 0, keyid: null, signedTexts };
}

export type Holder =
  | { kind: "agent"; did: AgentDid; jti: string; expMs: number }
  | { kind: "device"; did: AgentDid; deviceId: string; key: DeviceKey; token: string }
  | { kind: "shared"; did: AgentDid; secret: string };

export const newAgentHolder = (did: AgentDid, expMs = Date.now() + DAY_MS): Extract<Holder, { kind: "agent" }> => ({
  kind: "agent",
  did,
  jti: newUlid(Date.now()),
  expMs,
});

export async function callerOf(
  holder: Holder,
  address: string | null = null,
): Promise<Exclude<GateCaller, { kind: "operator" }>> {
  const { did } = holder;
  switch (holder.kind) {
    case "agent": {
      const { jti, expMs } = holder;
      const ownerDid = newDid(AUTHORITY, "human", `01K${"0".repeat(23)}`);
      const principal = { kind: "agent" as const, agentDid: did, ownerDid, jti, expMs, keyX: `key of ${jti}` };
      const admission: AgentAdmission = {
        principal,
        nonce: crypto.randomUUID(),
        timestampSeconds: Math.floor(Date.now() / 1_000),
      };
      return { kind: "agent", admission };
    }
    case "device": {
      const proof = await proofBy(holder.key.privateKey);
      return {
        kind: "credential",
        credential: { kind: "device", agentDid: did, tokenHash: await hashOf(holder.token), proof },
        address,
      };
    }
    case "shared":
      return {
        kind: "credential",
        credential: { kind: "shared", agentDid: did, secretHash: await hashOf(holder.secret) },
        address,
      };
  }
}

export type Asked = { method: string; params?: unknown };

export async function callAll(did: AgentDid, caller: GateCaller, calls: readonly Asked[]): Promise<GateAnswer> {
  const asked = calls.map(({ method, params }) => ({ method, params: params ?? {} }));
  return await gateStub(did).call({
    caller,
    surface: "rpc",
    requestId: "test-request",
    origin: "192.0.2.1",
    bookmark: null,
    calls: asked,
  });
}

/** One call. A refusal of the caller is told by its reason. */
export async function call(
  holder: Holder | AgentDid,
  method: string,
  params: unknown = {},
): Promise<Reply | GateRefusal["refusal"]> {
  const [did, caller] =
    typeof holder === "string" ? [holder, { kind: "operator" as const }] : [holder.did, await callerOf(holder)];
  const answer = await callAll(did, caller, [{ method, params }]);
  return answer.ok ? read(answer.replies[0]!) : answer.refusal;
}

/** A reply as it was before it was written down. */
function read(reply: WrittenReply): Reply {
  return reply.ok ? { ok: true, result: JSON.parse(reply.resultText) as unknown } : reply;
}

/** The result of a call that must succeed. */
export async function done(
  holder: Holder | AgentDid,
  method: string,
  params: unknown = {},
): Promise<Record<string, never>> {
  const reply = await call(holder, method, params);
  if (!("ok" in reply) || !reply.ok) throw new Error(`${method}: ${JSON.stringify(reply)}`);
  return reply.result as Record<string, never>;
}

export async function claim(
  device: { did: AgentDid; deviceId: string; key: DeviceKey },
  address: string | null = null,
): Promise<ClaimAnswer> {
  const proof = await proofBy(device.key.privateKey, "/v1/devices/claim");
  return (await gateStub(device.did).claim({
    deviceId: device.deviceId,
    proof,
    address,
    requestId: "test-request",
  })) as ClaimAnswer;
}

export async function claimed(device: {
  did: AgentDid;
  deviceId: string;
  key: DeviceKey;
}): Promise<Extract<Holder, { kind: "device" }>> {
  const answer = await claim(device, "192.0.2.1");
  if (!answer.ok) throw new Error(`not claimed: ${answer.refusal.reason}`);
  return { kind: "device", did: device.did, deviceId: device.deviceId, key: device.key, token: answer.token };
}

export async function pairDevice(
  agent: Holder,
  scopes: readonly Scope[],
  key?: DeviceKey,
): Promise<Extract<Holder, { kind: "device" }>> {
  const own = key ?? (await newDeviceKey());
  const { requestId, deviceId, digest } = await done(agent, "device.pair.request", { publicKey: own.x, scopes });
  await done(agent.did, "device.pair.approve", { requestId, digest });
  return claimed({ did: agent.did, deviceId: deviceId as unknown as string, key: own });
}

export async function newSharedSecret(did: AgentDid): Promise<Extract<Holder, { kind: "shared" }>> {
  const { secret } = await done(did, "shared.auth.rotate");
  return { kind: "shared", did, secret: secret as unknown as string };
}

export type Frame = Record<string, unknown> & { type: string };

export type Line = {
  socket: WebSocket;
  frames: Frame[];
  closed: Promise<{ code: number; reason: string }>;
  closure(): { code: number; reason: string } | null;
  say(frame: Record<string, unknown>): string;
};

/** A socket, or the status that was answered instead. */
export async function dial(
  did: AgentDid,
  upgrade: { caller: Exclude<GateCaller, { kind: "operator" }> } | { ticketSha256: string; protocol: string },
): Promise<Line | number> {
  const response = await gateStub(did).fetch("https://gate/relay", {
    headers: {
      Upgrade: "websocket",
      [UPGRADE_HEADER]: writeUpgrade({
        requestId: "test-request",
        origin: "192.0.2.1",
        protocol: "sallyport.v1",
        ...upgrade,
      }),
    },
  });
  const socket = response.webSocket;
  if (socket === null) {
    await response.body?.cancel();
    return response.status;
  }
  socket.accept();
  const frames: Frame[] = [];
  let closure: { code: number; reason: string } | null = null;
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    socket.addEventListener("close", ({ code, reason }) => {
      closure = { code, reason };
      resolve(closure);
    });
  });
  socket.addEventListener("message", ({ data }) => void frames.push(JSON.parse(String(data)) as Frame));
  return {
    socket,
    frames,
    closed,
    closure: () => closure,
    say(frame) {
      const id = newUlid(Date.now());
      socket.send(JSON.stringify({ v: 1, id, ts: new Date().toISOString(), ...frame }));
      return id;
    },
  };
}

export async function open(holder: Holder): Promise<Line> {
  const line = await dial(holder.did, { caller: await callerOf(holder) });
  if (typeof line === "number") throw new Error(`no socket: ${line}`);
  return line;
}
