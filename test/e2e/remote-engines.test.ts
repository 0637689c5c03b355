/** The real program with OpenFGA and with SpiceDB as its graph: what it may do is what the engine says, and it says it by itself. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Agent, operator, register, request } from "../support/program/agents.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";
import { type Engine, ENGINE_TOKEN, type EngineName, hasEngines, startEngine } from "./engines.ts";

type RpcAnswer = {
  result?: Record<string, unknown> & { task?: { taskId: string }; tasks?: { taskId: string }[]; nextCursor?: string };
  error?: { data: { code: string } };
};

const ENGINES: EngineName[] = ["openfga", "spicedb"];

describe.runIf(hasEngines()).each(ENGINES)("%s as the graph", (name) => {
  let engine: Engine;
  let proxy: Proxy;
  let anne: Agent;
  let bob: Agent;

  beforeAll(async () => {
    engine = await startEngine(name);
    proxy = await startProxy(
      {
        AUTHZ_GRAPH: engine.setting,
        AUTHZ_GRAPH_TOKEN: ENGINE_TOKEN,
        RATE_LIMIT_PER_AGENT: "0",
        BREAKER_OPEN_MS: "500",
        FGAC_ENFORCE: "on",
        FGAC_TASKS_DUAL_WRITE: "on",
        FGAC_AGENT_API_KEYS_DUAL_WRITE: "on",
      },
      { ROUND_MS: 500, RECONCILE_EVERY_MS: 1_000 },
    );
    anne = await register(proxy.url, "anne", { tenantId: "shared" });
    bob = await register(proxy.url, "bob", { tenantId: "shared" });
  }, 1_200_000);
  afterAll(async () => {
    await proxy?.stop();
    await engine?.stop();
  });

  const call = async (agent: Agent, method: string, params: unknown): Promise<RpcAnswer> => {
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
    return (await request(proxy.url, agent, { method: "POST", path: "/rpc", body })).body as RpcAnswer;
  };
  const asOperator = async (method: string, params: unknown): Promise<RpcAnswer> =>
    (await operator(proxy.url, "POST", "/rpc", { jsonrpc: "2.0", id: 1, method, params })).body as RpcAnswer;
  /** What housekeeping sends has arrived when the owner may make a task. */
  const made = async (agent: Agent): Promise<string> => {
    let taskId = "";
    await expect
      .poll(
        async () => {
          const answer = await call(agent, "task/create", { agentDid: agent.did });
          return (taskId = answer.result?.task?.taskId ?? "") === "" ? answer : "made";
        },
        { timeout: 30_000, interval: 250 },
      )
      .toBe("made");
    return taskId;
  };

  test("an agent makes tasks once the engine has heard of it, and a stranger to the task does not see it", async () => {
    const taskId = await made(anne);
    expect((await call(anne, "task/get", { taskId })).result?.task?.taskId).toBe(taskId);
    expect((await call(bob, "task/get", { taskId })).error?.data.code).toBe("PROXY_NOT_FOUND");
    expect((await call(bob, "task/create", { agentDid: anne.did })).result).toBeUndefined();
  });

  test("a share lets in and an unshare shuts out, each from its answer on", async () => {
    const taskId = await made(anne);
    await made(bob);
    const share = { taskId, subject: `agent:${bob.did}`, relation: "viewer" };
    expect((await call(anne, "task/share", share)).error).toBeUndefined();
    expect((await call(bob, "task/get", { taskId })).result?.task?.taskId).toBe(taskId);
    expect((await call(bob, "task/cancel", { taskId })).error?.data.code).toBe("PROXY_AUTH_FORBIDDEN");
    expect((await call(anne, "task/unshare", share)).error).toBeUndefined();
    expect((await call(bob, "task/get", { taskId })).error?.data.code).toBe("PROXY_NOT_FOUND");
  });

  test("what is taken directly is gone although a group still gives it", async () => {
    const taskId = await made(anne);
    await made(bob);
    const subject = `agent:${bob.did}`;
    const group = { object: "group:readers", relation: "member", subject };
    expect((await asOperator("authz/write", { writes: [group] })).error).toBeUndefined();
    const shares = [subject, "group:readers#member"].map((one) => ({ taskId, subject: one, relation: "viewer" }));
    for (const share of shares) expect((await call(anne, "task/share", share)).error).toBeUndefined();
    expect((await call(anne, "task/unshare", shares[0])).error).toBeUndefined();
    expect((await call(bob, "task/get", { taskId })).result?.task?.taskId).toBe(taskId);
    expect((await asOperator("authz/write", { deletes: [group] })).error).toBeUndefined();
    expect((await call(bob, "task/get", { taskId })).error?.data.code).toBe("PROXY_NOT_FOUND");
  });

  test("a list is what may be read, page by page", async () => {
    const carol = await register(proxy.url, "carol", { tenantId: "lists" });
    const expected = [await made(carol)];
    for (let n = 0; n < 6; n += 1) expected.push(await made(carol));
    const listed: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await call(carol, "task/list", { limit: 3, ...(cursor === undefined ? {} : { cursor }) });
      listed.push(...(page.result?.tasks ?? []).map(({ taskId }) => taskId));
      cursor = page.result?.nextCursor;
    } while (cursor !== undefined);
    expect(listed).toEqual(expected.toSorted());
  });

  test("an API key makes tasks on its agent and none once it is deleted; a deleted task leaves nothing behind", async () => {
    await made(anne);
    const key = await call(anne, "apikey/create", {
      agentDid: anne.did,
      name: "k",
      scopes: ["tasks:read", "tasks:write"],
    });
    const { apiKeyId, key: secret } = key.result as { apiKeyId: string; key: string };
    const byKey = async (method: string, params: unknown): Promise<Response> =>
      fetch(`${proxy.url}/rpc`, {
        method: "POST",
        headers: { Authorization: `Bearer ${secret}`, "Content-Type": "application/json" },
        body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
      });
    const answer = (await (await byKey("task/create", { agentDid: anne.did })).json()) as RpcAnswer;
    const taskId = answer.result?.task?.taskId;
    expect(taskId).toEqual(expect.any(String));
    expect((await byKey("task/delete", { taskId })).status).toBe(200);
    expect((await call(anne, "apikey/delete", { apiKeyId })).error).toBeUndefined();
    expect((await byKey("task/list", {})).status).toBe(401);
  });

  test("emptied, it lets nobody in until it is filled again from the database", { timeout: 90_000 }, async () => {
    const taskId = await made(anne);
    await engine.empty();
    const seen = async (): Promise<string | undefined> =>
      (await call(anne, "task/get", { taskId })).result?.task?.taskId;
    await expect.poll(seen, { timeout: 60_000, interval: 250 }).toBe(taskId);
    await expect.poll(() => proxy.output(), { timeout: 60_000 }).toContain("authz.mirrored");
  });

  test("an engine that is not there lets nobody in", async () => {
    const taskId = await made(anne);
    await engine.stop();
    expect((await call(anne, "task/get", { taskId })).error?.data.code).toBe("AUTHZ_UNAVAILABLE");
    expect((await call(anne, "task/list", {})).error?.data.code).toBe("AUTHZ_UNAVAILABLE");
    const refused = await call(anne, "task/create", { agentDid: anne.did });
    expect(refused.error?.data.code).toBe("AUTHZ_UNAVAILABLE");
  });
});
