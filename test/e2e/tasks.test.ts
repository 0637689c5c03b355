import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { newInnerRunner, type Runner } from "../cli/program.ts";
import { type Agent, operator, register, request, OPERATOR_TOKEN } from "../support/program/agents.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";
import { connectRelay, type RelayClient, ulid } from "../support/program/relay-client.ts";

type RpcAnswer = {
  result?: Record<string, unknown>;
  error?: { code: number; message: string; data?: { code: string } };
};
type Key = { apiKeyId: string; serviceAccountId: string; key: string };

let proxy: Proxy;
let worker: Agent;
let relay: RelayClient;

beforeAll(async () => {
  proxy = await startProxy({ RATE_LIMIT_PER_AGENT: "0" });
  worker = await register(proxy.url, "worker");
  relay = await connectRelay(proxy.url, worker);
});
afterAll(async () => {
  relay.close();
  await proxy.stop();
});

const bodyOf = (method: string, params: unknown): string => JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });

async function asAgent(agent: Agent, method: string, params: unknown): Promise<RpcAnswer> {
  return (await request(proxy.url, agent, { method: "POST", path: "/rpc", body: bodyOf(method, params) })).body;
}

async function asOperator(method: string, params: unknown): Promise<RpcAnswer> {
  return (await operator(proxy.url, "POST", "/rpc", { jsonrpc: "2.0", id: 1, method, params })).body;
}

function bearer(key: string, body: string): Promise<Response> {
  return fetch(`${proxy.url}/rpc`, {
    method: "POST",
    body,
    headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
  });
}

async function asHolder(key: string, method: string, params: unknown): Promise<RpcAnswer> {
  return (await bearer(key, bodyOf(method, params))).json() as Promise<RpcAnswer>;
}

async function newApiKey(scopes: string[]): Promise<Key> {
  const made = await asAgent(worker, "apikey/create", { agentDid: worker.did, name: "ci", scopes });
  expect(made.error).toBeUndefined();
  return made.result as Key;
}

const deliveryOf = (task: { taskId: string }, kind: string) =>
  relay.next(
    (frame) =>
      frame.type === "deliver" &&
      JSON.stringify(frame["payload"]).includes(task.taskId) &&
      JSON.stringify(frame["payload"]).includes(`"${kind}"`),
  );

describe("a service account", () => {
  test("makes a task for its agent, sends to it, and is named as the sender", async () => {
    const { key, serviceAccountId } = await newApiKey(["tasks:read", "tasks:write"]);
    expect(key).toMatch(/^spk_[A-Za-z0-9_-]{43}$/);
    const made = await asHolder(key, "task/create", {
      agentDid: worker.did,
      name: "nightly",
      params: { branch: "main" },
    });
    const task = made.result?.["task"] as { taskId: string };
    expect(task).toMatchObject({ creatorServiceAccountId: serviceAccountId, creatorUserId: null, name: "nightly" });

    await asHolder(key, "message/send", { taskName: "nightly", content: { hello: "there" } });
    expect(await deliveryOf(task, "message")).toMatchObject({
      fromAgentDid: null,
      fromSubject: `service_account:${serviceAccountId}`,
      toAgentDid: worker.did,
      payload: { kind: "message", taskId: task.taskId, content: { hello: "there" } },
    });
    const sent = await asOperator("event/send", { taskId: task.taskId, content: 7 });
    expect(sent.result).toEqual({ deliveryId: expect.any(String) });
    expect(await deliveryOf(task, "event")).toMatchObject({
      fromAgentDid: null,
      payload: { kind: "event", taskId: task.taskId, content: 7 },
    });
  });

  test("is over when the deletion of its key has been answered", async () => {
    const { key, apiKeyId } = await newApiKey(["tasks:read"]);
    expect((await asHolder(key, "task/list", {})).result).toBeDefined();
    expect((await asOperator("apikey/list", { agentDid: worker.did })).result?.["apiKeys"]).toContainEqual(
      expect.objectContaining({ apiKeyId, name: "ci", scopes: ["tasks:read"] }),
    );
    expect((await asOperator("apikey/delete", { apiKeyId })).result).toMatchObject({ apiKeyId });
    const after = await bearer(key, bodyOf("task/list", {}));
    expect(after.status).toBe(401);
    expect(await after.json()).toMatchObject({ code: "PROXY_AUTH_INVALID_TOKEN" });
    expect((await asOperator("apikey/delete", { apiKeyId })).error?.data?.code).toBe("PROXY_NOT_FOUND");
  });
});

describe("an agent", () => {
  test("calls the same methods over its socket", async () => {
    const id = ulid();
    relay.sendText(
      JSON.stringify({ type: "req", id, method: "task/create", params: { agentDid: worker.did, name: "by socket" } }),
    );
    const answer = await relay.next((frame) => frame.type === "res" && frame["id"] === id);
    expect(answer).toMatchObject({
      ok: true,
      payload: { task: { name: "by socket", creatorUserId: worker.ownerDid } },
    });
  });

  test("sends to its own task and hears of the delivery", async () => {
    const made = await asAgent(worker, "task/create", { agentDid: worker.did });
    const task = made.result?.["task"] as { taskId: string };
    const sent = await asAgent(worker, "message/send", { taskId: task.taskId, content: "note to self" });
    expect(await deliveryOf(task, "message")).toMatchObject({ fromAgentDid: worker.did });
    const deliveryId = String(sent.result?.["deliveryId"]);
    const status = await request(proxy.url, worker, { method: "GET", path: `/v1/deliveries/${deliveryId}` });
    expect(status).toMatchObject({ status: 200, body: { deliveryId } });
  });

  test("sees what it has written, by its bookmark", async () => {
    const body = bodyOf("task/create", { agentDid: worker.did });
    const made = await request(proxy.url, worker, { method: "POST", path: "/rpc", body });
    const bookmark = made.headers.get("X-Sallyport-Bookmark");
    expect(bookmark).toMatch(/^[0-9a-f-]{59}$/);
    const list = { method: "POST", path: "/rpc", body: bodyOf("task/list", {}) };
    const listed = await request(proxy.url, worker, { ...list, headers: { "X-Sallyport-Bookmark": bookmark ?? "" } });
    const { task } = (made.body as RpcAnswer).result as { task: { taskId: string } };
    expect(JSON.stringify(listed.body)).toContain(task.taskId);
    expect(listed.headers.get("X-Sallyport-Bookmark")).not.toBeNull();
    expect(
      await request(proxy.url, worker, { ...list, headers: { "X-Sallyport-Bookmark": "yesterday" } }),
    ).toMatchObject({
      status: 400,
      body: { code: "PROXY_BAD_REQUEST" },
    });
  });
});

async function withAgent(): Promise<Runner> {
  const runner = await newInnerRunner({ SALLYPORT_OPERATOR_TOKEN: OPERATOR_TOKEN, SALLYPORT_URL: proxy.url });
  await runner.json(["init", "--url", proxy.url, "--human-name", "Ann", "--no-check"]);
  await runner.json(["agent", "register", "clerk", "--default"]);
  return runner;
}

describe("the command", () => {
  test("makes, finds, shares and ends a task, and says why somebody may", async () => {
    const runner = await withAgent();
    const { task } = (await runner.json(["task", "create", "--name", "letters", "--params", '{"n":1}'])) as {
      task: { taskId: string; agentDid: string };
    };
    expect(await runner.json(["task", "get", "letters", "--name"])).toMatchObject({
      task: { taskId: task.taskId, params: { n: 1 } },
    });
    expect(await runner.json(["task", "list"])).toMatchObject({ tasks: [{ taskId: task.taskId }], nextCursor: null });
    const refused = await runner.run(["task", "share", task.taskId, "user:anne", "--as", "editor"]);
    expect(refused).toMatchObject({ code: 4 });
    await runner.json(["task", "share", task.taskId, "group:readers#member", "--as", "editor"]);
    const why = await runner.run(["authz", "explain", `agent:${task.agentDid}`, "delete", `task:${task.taskId}`]);
    expect(why).toMatchObject({
      code: 0,
      out: expect.stringContaining(`task:${task.taskId}#owner@agent:${task.agentDid}`),
    });
    expect((await runner.run(["authz", "check", "user:anne", "read", `task:${task.taskId}`])).code).toBe(4);
    expect(await runner.json(["authz", "reconcile"])).toMatchObject({ dryRun: true, drift: 0 });
    expect(await runner.json(["task", "send", task.taskId, '{"x":1}'])).toHaveProperty("deliveryId");
    expect(await runner.json(["task", "delete", task.taskId, "--yes"])).toMatchObject({
      task: { taskId: task.taskId },
    });
    expect((await runner.run(["task", "get", task.taskId])).code).toBe(4);
  });

  test("says what becomes of a task, stops it, goes on, and watches it until its end", async () => {
    const runner = await withAgent();
    const { task } = (await runner.json(["task", "create"])) as { task: { taskId: string } };
    const { taskId } = task;
    const asked = await runner.run(["task", "update", taskId, "input_required", "--message", "which day?"]);
    expect(asked).toMatchObject({ code: 0, out: expect.stringContaining("input_required: which day?") as string });
    expect(await runner.json(["task", "interrupt", taskId])).toMatchObject({ task: { status: "interrupted" } });
    expect(await runner.json(["task", "list", "--status", "interrupted"])).toMatchObject({ tasks: [{ taskId }] });
    await runner.json(["task", "send", taskId, '"Friday"']);

    const watched = runner.run(["task", "watch", taskId, "--every", "1"]);
    const done = await runner.run(["task", "update", taskId, "completed", "--result", "-"], '{"n": 1e400}');
    expect(done).toMatchObject({ code: 0, out: expect.stringContaining('{"n": 1e400}') as string });
    expect(await watched).toMatchObject({ code: 0, out: expect.stringContaining("completed") as string });
    expect(await runner.run(["task", "update", taskId, "failed"])).toMatchObject({
      code: 4,
      err: expect.stringContaining("PROXY_CONFLICT") as string,
    });
    expect((await runner.run(["task", "update", taskId, "sleeping"])).code).toBe(4);
  });

  test("shares a task for a while", async () => {
    const runner = await withAgent();
    const { task } = (await runner.json(["task", "create"])) as { task: { taskId: string } };
    const share = ["task", "share", task.taskId, "group:readers#member"];
    const beganAtMs = Date.now();
    const { expiresAtMs } = (await runner.json([...share, "--ttl-seconds", "3600"])) as { expiresAtMs: number };
    expect(expiresAtMs).toBeGreaterThanOrEqual(beganAtMs + 3_600_000);
    expect((await runner.run([...share, "--ttl-seconds", "0"])).code).toBe(2);
  });

  test("makes a key, acts with it and ends it", async () => {
    const runner = await withAgent();
    const made = (await runner.json(["apikey", "create", "ci", "--scopes", "tasks:read,tasks:write"])) as Key;
    const holder = await newInnerRunner({ SALLYPORT_API_KEY: made.key, SALLYPORT_URL: proxy.url });
    expect(await holder.json(["task", "list"])).toMatchObject({ tasks: [] });
    expect(await runner.json(["apikey", "list"])).toMatchObject({ apiKeys: [{ apiKeyId: made.apiKeyId }] });
    await runner.json(["apikey", "delete", made.apiKeyId, "--yes"]);
    expect((await holder.run(["task", "list"])).code).toBe(5);
  });
});
