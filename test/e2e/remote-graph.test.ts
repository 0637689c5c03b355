/** The real program beside a real authorization service that answers, fails, and comes back. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Agent, register, request } from "../support/program/agents.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";

type Asked = { path: string; principal: string | null; resource: { type: string; selector?: string }; parent?: string };
type RpcAnswer = {
  result?: { task: { taskId: string } };
  error?: { data: { code: string; retryable?: boolean; taskId?: string } };
};

let service: Server;
let asked: Asked[] = [];
/** What it answers to changes, and to questions. */
let status = { changes: 200, questions: 200 };
let proxy: Proxy;
let agent: Agent;

beforeAll(async () => {
  service = createServer((incoming, outgoing) => {
    let body = "";
    incoming.on("data", (chunk: Buffer) => (body += chunk.toString()));
    incoming.on("end", () => {
      const path = incoming.url ?? "";
      asked.push({ path, ...(JSON.parse(body) as Omit<Asked, "path">) });
      const isChange = path.endsWith("register");
      outgoing.writeHead(isChange ? status.changes : status.questions).end(isChange ? "" : '{"allowed":true}');
    });
  });
  await new Promise<void>((resolve) => service.listen(0, "127.0.0.1", resolve));
  const { port } = service.address() as AddressInfo;
  proxy = await startProxy(
    { AUTHZ_GRAPH: `http://127.0.0.1:${port}`, RATE_LIMIT_PER_AGENT: "0", BREAKER_OPEN_MS: "500" },
    { ROUND_MS: 500 },
  );
  agent = await register(proxy.url, "agent");
}, 120_000);
afterAll(async () => {
  await proxy.stop();
  service.close();
});

async function call(method: string, params: unknown): Promise<RpcAnswer> {
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
  return (await request(proxy.url, agent, { method: "POST", path: "/rpc", body })).body;
}

const changesOf = (taskId: string | undefined): Asked[] =>
  asked.filter(({ path, resource }) => path.endsWith("register") && resource.selector === taskId);

test("is asked before a task is made, and told of it with its owners and its agent", async () => {
  const made = await call("task/create", { agentDid: agent.did });
  const taskId = made.result?.task.taskId;
  expect(changesOf(taskId)).toEqual(
    [`agent:${agent.did}`, `user:${agent.ownerDid}`].map((principal) => ({
      path: "/v1/authz/register",
      principal,
      resource: { type: "task", selector: taskId },
      parent: `agent:${agent.did}`,
      version: expect.any(Number) as number,
    })),
  );
  expect(asked[0]).toMatchObject({ path: "/v1/authz/check", resource: { type: "agent", selector: agent.did } });
});

test(
  "down, it costs the caller an error and never the task; back, it hears of it by the outbox",
  { timeout: 90_000 },
  async () => {
    status = { changes: 503, questions: 200 };
    asked = [];
    const refused = await call("task/create", { agentDid: agent.did, name: "kept" });
    const taskId = refused.error?.data.taskId;
    expect(refused.error?.data).toMatchObject({
      code: "AUTHZ_UNAVAILABLE",
      retryable: true,
      taskId: expect.any(String),
    });
    expect(changesOf(taskId)).toHaveLength(4);
    status = { changes: 200, questions: 200 };
    expect((await call("task/get", { taskName: "kept" })).result?.task.taskId).toBe(taskId);
    await expect.poll(() => changesOf(taskId).length, { timeout: 60_000, interval: 500 }).toBe(6);
  },
);

test("saying no, or nothing, it lets nobody in", async () => {
  status = { changes: 200, questions: 403 };
  expect((await call("task/get", { taskName: "kept" })).error?.data.code).toBe("PROXY_NOT_FOUND");
  status = { changes: 200, questions: 500 };
  expect((await call("task/get", { taskName: "kept" })).error?.data.code).toBe("AUTHZ_UNAVAILABLE");
});
