/**
 * The revocation guarantee on real sockets of the real program: a thousand calls in one burst before, around and after an end
 * that is sent on another socket. What a call did is known by its name; in the database and at the recipient nothing that was
 * asked under the old authority may come after the answer.
 */
import { type KeyObject, randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Agent, type Answer, newKey, operator, pair, register, request, send } from "../support/program/agents.ts";
import { proofHeaders } from "../support/signing.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";
import { connectRelay, type Frame, openRelay, type RelayClient, ulid } from "../support/program/relay-client.ts";

const CALLS = 1_000;
const LATE = 100;
const JSON_BODY = { "Content-Type": "application/json" };
const SOCKETS_OF_ONE_HOLDER = 32;
const ALL_SCOPES = ["relay", "send", "tasks:read", "tasks:write", "devices", "admin"];
const KINDS = ["device.token.rotate", "device.token.revoke", "device.pair.remove", "shared.auth.rotate"] as const;

type Kind = (typeof KINDS)[number];
type Device = { kind: "device"; id: string; privateKey: KeyObject; token: string };
type Holder = Device | { kind: "shared"; secret: string };

let proxy: Proxy;
let agent: Agent;
let peer: Agent;

beforeAll(async () => {
  proxy = await startProxy({ RATE_LIMIT_PER_AGENT: "0" });
  agent = await register(proxy.url, "agent");
  peer = await register(proxy.url, "peer");
  await pair(proxy.url, agent, peer);
});
afterAll(() => proxy.stop());

async function result(answer: Promise<Answer>): Promise<Record<string, unknown>> {
  const { body } = await answer;
  const told = body as { result?: Record<string, unknown>; error?: unknown };
  if (told.result === undefined) throw new Error(JSON.stringify(body));
  return told.result;
}

const rpcBody = (method: string, params: unknown) => ({ jsonrpc: "2.0", id: 1, method, params });
const asOperator = (method: string, params: Record<string, unknown>): Promise<Record<string, unknown>> =>
  result(operator(proxy.url, "POST", "/rpc", rpcBody(method, { agentDid: agent.did, ...params })));

function ask(holder: Holder, path: string, body: string): Promise<Answer> {
  const credential =
    holder.kind === "device"
      ? {
          ...JSON_BODY,
          ...proofHeaders(holder.privateKey, { method: "POST", path, body }),
          Authorization: `Device ${holder.token}`,
        }
      : { "Content-Type": "application/json", Authorization: `Shared ${holder.secret}` };
  return send(proxy.url, { method: "POST", path, body }, { ...credential, "X-Claw-Agent-Did": agent.did });
}

async function newDevice(scopes: string[]): Promise<Device> {
  const { privateKey, x } = newKey();
  const body = JSON.stringify(rpcBody("device.pair.request", { publicKey: x, scopes }));
  const asked = await result(request(proxy.url, agent, { method: "POST", path: "/rpc", body }));
  await asOperator("device.pair.approve", { requestId: asked["requestId"], digest: asked["digest"] });
  const id = String(asked["deviceId"]);
  const path = "/v1/devices/claim";
  const claim = JSON.stringify({ agentDid: agent.did, deviceId: id });
  const claimed = await send(
    proxy.url,
    { method: "POST", path, body: claim },
    {
      ...JSON_BODY,
      ...proofHeaders(privateKey, { method: "POST", path, body: claim }),
    },
  );
  return { kind: "device", id, privateKey, token: String(claimed.body["token"]) };
}

async function connect(holder: Holder): Promise<RelayClient> {
  const issued = await ask(holder, "/v1/relay/tickets", "{}");
  if (issued.status !== 200) throw new Error(`no ticket: ${issued.status}`);
  return openRelay(proxy.url, String(issued.body["ticket"]), false);
}

/** By turns a row in the database and a message to the peer; the name tells who asked, and when. */
function write(socket: RelayClient, holder: Holder, name: string, index: number): string {
  const id = ulid();
  if (holder.kind === "device" && index % 2 === 0) {
    socket.send({ type: "req", id, method: "task/create", params: { agentDid: agent.did, name } });
  } else {
    socket.send({ type: "enqueue", id, toAgentDid: peer.did, payload: { name } });
  }
  return id;
}

async function tasksNamed(prefix: string): Promise<string[]> {
  const names: string[] = [];
  let cursor: string | undefined;
  do {
    // oxlint-disable-next-line no-await-in-loop -- a page after the other
    const page = await asOperator("task/list", { limit: 100, ...(cursor === undefined ? {} : { cursor }) });
    names.push(...(page["tasks"] as { name: string | null }[]).map(({ name }) => name ?? ""));
    cursor = page["nextCursor"] as string | undefined;
  } while (cursor !== undefined);
  return names.filter((name) => name.startsWith(prefix)).toSorted((a, b) => (a < b ? -1 : 1));
}

const isAccepted = (frame: Frame): boolean => frame["ok"] === true || frame["accepted"] === true;
const idOf = (frame: Frame): unknown => (frame.type === "res" ? frame["id"] : frame["ackId"]);
const named = (frame: Frame): string => (frame["payload"] as { name?: string }).name ?? "";

async function holderFor(kind: Kind): Promise<Holder> {
  if (kind !== "shared.auth.rotate") return newDevice(["relay", "send", "tasks:write"]);
  return { kind: "shared", secret: String((await asOperator(kind, {}))["secret"]) };
}

type Burst = { holder: Holder; manager: RelayClient; sockets: RelayClient[]; run: string; endId: string };

/** Writes on without waiting for what becomes of it; the end goes out in the middle, once the first calls have had their effect. */
async function burst(kind: Kind, count: number): Promise<Burst> {
  const manager = await connect(await newDevice(ALL_SCOPES));
  const holder = await holderFor(kind);
  const sockets: RelayClient[] = [];
  while (sockets.length < count) {
    // oxlint-disable-next-line no-await-in-loop -- some at a time
    sockets.push(
      ...(await Promise.all(Array.from({ length: Math.min(10, count - sockets.length) }, () => connect(holder)))),
    );
  }
  const run = randomUUID().slice(0, 8);
  const endId = ulid();
  for (let index = 0; index < CALLS; index += 1) {
    if (index === CALLS * 0.4) {
      // oxlint-disable-next-line no-await-in-loop -- once, in the middle
      await sockets[0]!.next(isAccepted, 30_000);
      manager.send({
        type: "req",
        id: endId,
        method: kind,
        params: holder.kind === "device" ? { deviceId: holder.id } : {},
      });
    }
    write(sockets[index % count]!, holder, `${run} old ${index}`, Math.floor(index / count));
  }
  return { holder, manager, sockets, run, endId };
}

describe.each(KINDS)("%s", (kind) => {
  test.each([1, 10, SOCKETS_OF_ONE_HOLDER])(
    "lets nothing of the old authority through after its answer, with %i sockets",
    { timeout: 120_000 },
    async (count) => {
      const atPeer = await connectRelay(proxy.url, peer);
      const { holder, manager, sockets, run, endId } = await burst(kind, count);
      const answer = await manager.next((frame) => frame.type === "res" && frame["id"] === endId, 30_000);
      expect(answer).toMatchObject({ ok: true });

      // From here on nothing: what is asked now, and what was asked and has not been done yet.
      const marker = { type: "enqueue", id: ulid(), toAgentDid: peer.did, payload: { name: `${run} marker` } };
      manager.send(marker);
      const late = new Set(
        Array.from({ length: LATE }, (_, index) =>
          write(sockets[index % count]!, holder, `${run} late ${index}`, index),
        ),
      );
      const rowsAtAnswer = await tasksNamed(run);
      expect((await ask(holder, "/v1/relay/tickets", "{}")).status).toBe(401);
      await expect(manager.next((frame) => frame["ackId"] === marker.id, 30_000)).resolves.toMatchObject({
        accepted: true,
      });
      await atPeer.next((frame) => frame.type === "deliver" && named(frame) === `${run} marker`, 60_000);

      expect(await tasksNamed(run)).toEqual(rowsAtAnswer);
      expect(rowsAtAnswer.filter((name) => name.includes("late"))).toEqual([]);
      // A sender's messages arrive in the order in which they were taken in: none of the old authority after the marker.
      const delivered = atPeer.frames
        .filter((frame) => frame.type === "deliver")
        .map(named)
        .filter((name) => name.startsWith(run));
      expect(delivered.at(-1)).toBe(`${run} marker`);
      expect(delivered.filter((name) => name.includes("late"))).toEqual([]);
      const closures = await Promise.all(sockets.map(({ closed }) => closed));
      expect(new Set(closures.map(({ code }) => code))).toEqual(new Set([4001]));
      const accepted = sockets.flatMap(({ frames }) => frames.filter(isAccepted).map(idOf));
      expect(accepted.length).toBeGreaterThan(0);
      expect(accepted.filter((id) => late.has(String(id)))).toEqual([]);
      console.log(
        `${kind}, ${count} sockets: ${JSON.stringify(answer["payload"] && (answer["payload"] as { fenced: unknown }).fenced)}, ${rowsAtAnswer.length} rows, ${delivered.length - 1} messages, ${accepted.length} accepted`,
      );
      manager.close();
      atPeer.close();
    },
  );

  test("is not lost when the process is killed as soon as it has answered", { timeout: 120_000 }, async () => {
    const { holder, manager, sockets, run, endId } = await burst(kind, 10);
    const answer = await manager.next((frame) => frame.type === "res" && frame["id"] === endId, 30_000);
    expect(answer).toMatchObject({ ok: true });
    await proxy.kill();
    await proxy.restart();
    const refused = await ask(holder, "/v1/relay/tickets", "{}");
    expect(refused.status).toBe(401);
    const rows = await tasksNamed(run);
    expect(
      (await ask(holder, "/rpc", JSON.stringify(rpcBody("task/create", { agentDid: agent.did, name: `${run} late` }))))
        .status,
    ).toBe(401);
    expect(await tasksNamed(run)).toEqual(rows);
    for (const socket of sockets) socket.close();
  });
});
