/** Quotas on what outlasts a call: exact, by one row, and in nobody's way who ends an authority. */
import { env } from "cloudflare:workers";
import { beforeEach, describe, expect, test } from "vitest";
import { ROOT } from "../../src/authority/operator.ts";
import type { CallContext } from "../../src/call/context.ts";
import { noteDatabaseSize, quotaStatements } from "../../src/call/quotas.ts";
import { runtimeOf } from "../../src/runtime.ts";
import {
  admit,
  type Agent,
  apiKeyOf,
  createTask,
  type Holder,
  operator,
  pairDevice,
  register,
  result,
  rows,
  rpc,
} from "../support/world.ts";

let agent: Agent;
beforeEach(async () => {
  agent = await register();
});

/** Gates have the settings of the tests' environment, so what counts as used is raised instead of the quota being lowered. */
async function fill(quotas: { tasks?: number; apiKeys?: number; bytes?: number }): Promise<void> {
  const { tasks = 0, apiKeys = 0, bytes = 0 } = quotas;
  await env.DB.prepare("UPDATE quota_usage SET tasks = tasks + ?2, api_keys = api_keys + ?3 WHERE holder = ?1")
    .bind(`agent:${agent.did}`, tasks, apiKeys)
    .run();
  await env.DB.prepare("UPDATE quota_usage SET bytes = bytes + ?2 WHERE holder = ?1")
    .bind(`tenant:${agent.tenantId}`, bytes)
    .run();
}
const usage = async (): Promise<unknown[]> => [
  ...(await rows("SELECT tasks, api_keys FROM quota_usage WHERE holder = ?1", `agent:${agent.did}`)),
  ...(await rows("SELECT bytes FROM quota_usage WHERE holder = ?1", `tenant:${agent.tenantId}`)),
];
const bytesUsed = async (): Promise<number> => Number((await usage()).at(-1)?.["bytes" as never]);

describe("tasks of an agent", () => {
  test("are counted with each that is made and deleted, those of before at the first", async () => {
    const first = await createTask(operator, { agentDid: agent.did });
    await env.DB.prepare("DELETE FROM quota_usage").run();
    const second = await createTask(agent, { agentDid: agent.did });
    expect(await usage()).toMatchObject([{ tasks: 2, api_keys: 0 }, {}]);
    await result(operator, "task/delete", { taskId: first.taskId });
    await result(agent, "task/delete", { taskId: second.taskId });
    expect(await usage()).toMatchObject([{ tasks: 0 }, {}]);
  });

  test("are refused beyond the quota with what is used of it, and are made again when one has gone", async () => {
    const { taskId } = await createTask(agent, { agentDid: agent.did });
    await fill({ tasks: 9_999 });
    const before = await rows("SELECT task_id FROM tasks WHERE agent_did = ?1", agent.did);
    const refused = await rpc(agent, "task/create", { agentDid: agent.did });
    expect(refused.error).toMatchObject({
      code: -32057,
      data: { code: "PROXY_QUOTA_EXCEEDED", quota: "QUOTA_TASKS_PER_AGENT", used: 10_000, limit: 10_000 },
    });
    expect(refused.error?.data).not.toHaveProperty("retryable");
    expect(await rows("SELECT task_id FROM tasks WHERE agent_did = ?1", agent.did)).toEqual(before);
    // Above it stands the operator.
    await createTask(operator, { agentDid: agent.did });
    await result(agent, "task/delete", { taskId });
    await fill({ tasks: -1 });
    await createTask(agent, { agentDid: agent.did });
  });
});

describe("keys of an agent", () => {
  test("are refused beyond the quota, and those that end make room", async () => {
    const key = await apiKeyOf(agent, ["tasks:read"], agent);
    await fill({ apiKeys: 999 });
    const wanted = { agentDid: agent.did, name: "k", scopes: ["tasks:read"] };
    expect((await rpc(agent, "apikey/create", wanted)).error?.data).toMatchObject({
      code: "PROXY_QUOTA_EXCEEDED",
      quota: "QUOTA_KEYS_PER_AGENT",
      used: 1_000,
      limit: 1_000,
    });
    await result(agent, "apikey/delete", { apiKeyId: key.apiKeyId });
    await apiKeyOf(agent, ["tasks:read"], agent);
  });
});

describe("bytes of a tenant", () => {
  test("are those of its tasks, keys and audit, and refused beyond the quota", async () => {
    await createTask(agent, { agentDid: agent.did, params: { text: "x".repeat(100_000) } });
    const withTask = await bytesUsed();
    expect(withTask).toBeGreaterThan(102_000);
    expect(withTask).toBeLessThan(104_000);
    await apiKeyOf(agent, ["tasks:read"], agent);
    expect(await bytesUsed()).toBeGreaterThan(withTask + 1_024);
    await fill({ bytes: 1_073_741_824 - (await bytesUsed()) - 50_000 });
    const wanted = { agentDid: agent.did, params: { text: "x".repeat(60_000) } };
    expect((await rpc(agent, "task/create", wanted)).error?.data).toMatchObject({
      code: "PROXY_QUOTA_EXCEEDED",
      quota: "QUOTA_BYTES_PER_TENANT",
      limit: 1_073_741_824,
    });
    await createTask(agent, { agentDid: agent.did });
  });

  test("count what sharing leaves in the audit too: to share and unshare without end is refused", async () => {
    const { taskId } = await createTask(agent, { agentDid: agent.did });
    await admit(agent, "user:anne");
    const share = { taskId, subject: "user:anne", relation: "viewer" };
    await result(agent, "task/share", share);
    const once = await bytesUsed();
    await result(agent, "task/unshare", share);
    expect(await bytesUsed()).toBeGreaterThan(once);
    await fill({ bytes: 2_000_000_000 });
    expect((await rpc(agent, "task/share", share)).error?.data).toMatchObject({
      code: "PROXY_QUOTA_EXCEEDED",
      quota: "QUOTA_BYTES_PER_TENANT",
    });
    await result(agent, "task/unshare", share);
  });

  test("beside them the whole database has a bound, which D1 itself tells", async () => {
    noteDatabaseSize({ meta: { size_after: 9_600_000_000 } } as D1Result);
    const ctx = { config: runtimeOf(env).config, principal: { kind: "agent" } } as unknown as CallContext;
    const made = { kind: "tasks" as const, agentDid: agent.did, tenantId: agent.tenantId, bytes: 0 };
    expect(() => quotaStatements(ctx, made)).toThrow(/nearly full/);
    expect(quotaStatements({ ...ctx, principal: ROOT }, made)).toHaveLength(2);
    noteDatabaseSize({ meta: { size_after: 1_000 } } as D1Result);
    expect(quotaStatements(ctx, made)).toHaveLength(3);
  });

  test("a full tenant still ends what it has: keys, devices, the agent", async () => {
    const device = await pairDevice(agent, ["admin", "devices", "tasks:read"]);
    const key = await apiKeyOf(agent, ["tasks:read"], device);
    const task = await createTask(agent, { agentDid: agent.did });
    await fill({ tasks: 1_000_000, apiKeys: 1_000_000, bytes: 2_000_000_000 });
    await result(agent, "task/delete", { taskId: task.taskId });
    await result(agent, "apikey/delete", { apiKeyId: (key as Holder).apiKeyId });
    await result(agent, "device.token.rotate", { deviceId: device.deviceId });
    await result(operator, "device.token.revoke", { agentDid: agent.did, deviceId: device.deviceId });
  });
});

test("authority epochs: nothing lowers one, REPLACE neither, and a repeated raise writes nothing", async () => {
  const name = `test:${crypto.randomUUID()}`;
  await env.DB.prepare("INSERT INTO authority_epochs VALUES (?1, 5)").bind(name).run();
  await expect(
    env.DB.prepare("INSERT OR REPLACE INTO authority_epochs VALUES (?1, 4)").bind(name).run(),
  ).rejects.toThrow("only rises");
  await env.DB.prepare("INSERT OR REPLACE INTO authority_epochs VALUES (?1, 6)").bind(name).run();
  expect(await rows("SELECT epoch FROM authority_epochs WHERE authority = ?1", name)).toEqual([{ epoch: 6 }]);
});
