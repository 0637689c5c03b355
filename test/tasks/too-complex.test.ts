/** Tasks that are shared with more than can be decided: nobody else's calls fail by them, and nobody learns that they exist. */
import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import { newUlid } from "../../src/wire/ulid.ts";
import {
  type Agent,
  codeOf,
  createTask,
  type Device,
  operator,
  pairDevice,
  register,
  result,
  rpcResponse,
  type Task,
} from "../support/world.ts";
import { readsOf } from "../support/db-spy.ts";

let stranger: Agent;
let sibling: Agent;
let friend: Agent;
let victim: Agent;
let device: Device;
let own: Task;
let huge: Task;
let later: Task;

beforeAll(async () => {
  stranger = await register();
  sibling = await register({ tenantId: stranger.tenantId });
  friend = await register({ tenantId: stranger.tenantId });
  victim = await register();
  device = await pairDevice(victim, ["tasks:read"]);
  own = await createTask(victim, { agentDid: victim.did });
  huge = await createTask(stranger, { agentDid: stranger.did });
  later = await createTask(victim, { agentDid: victim.did });
  // Shared while they were members of its tenant.
  const strangers = [`agent:${victim.did}`, `user:${victim.ownerDid}`];
  await result(operator, "authz/write", {
    writes: strangers.map((subject) => ({ object: `task:${huge.taskId}`, relation: "viewer", subject })),
  });
  await result(stranger, "task/share", { taskId: huge.taskId, subject: `agent:${friend.did}`, relation: "viewer" });
  await env.DB.prepare(
    `INSERT INTO relationships (object_type, object_id, relation, subject_type, subject_id, subject_relation, created_at_ms)
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
     SELECT 'task', ?1, 'viewer', 'group', 'none-' || i, 'member', 0 FROM n`,
  )
    .bind(huge.taskId)
    .run();
});

const idsOf = (answer: Record<string, unknown>): string[] => (answer["tasks"] as Task[]).map(({ taskId }) => taskId);

async function bytesOf(caller: Agent | Device, params: unknown): Promise<string> {
  const response = await rpcResponse(caller, "task/get", params);
  const headers = [...response.headers].filter(([name]) => name !== "x-request-id" && name !== "date");
  return JSON.stringify([response.status, headers, await response.text()]);
}

test("a list that such a task was shared into holds everything else", async () => {
  const mine = [own.taskId, later.taskId].toSorted();
  expect(idsOf(await result(victim, "task/list", {}))).toEqual(mine);
  expect(idsOf(await result(victim, "task/list", { agentDid: victim.did }))).toEqual(mine);
  expect(idsOf(await result(device, "task/list", {}))).toEqual(mine);
});

test("nor does a list within its tenant fail by it", async () => {
  const { taskId } = await createTask(friend, { agentDid: friend.did });
  expect(idsOf(await result(friend, "task/list", {}))).toEqual([taskId]);
});

describe.each([
  ["somebody of its tenant without a grant", () => sibling],
  ["somebody whom it was shared with in another tenant", () => victim],
  ["a device in another tenant", () => device],
] as const)("%s", (_name, caller) => {
  test.each([true, false])(
    "hears what it hears of a task that does not exist, with enforcement %s",
    async (enforce) => {
      const setting = { tenantId: stranger.tenantId, enforce };
      await result(operator, "authz/enforce", setting);
      const missing = await bytesOf(caller(), { taskId: newUlid(Date.now()) });
      expect(missing).toContain("PROXY_NOT_FOUND");
      expect(await bytesOf(caller(), { taskId: huge.taskId })).toBe(missing);
      await result(operator, "authz/enforce", { ...setting, enforce: true });
    },
  );

  test("costs as many reads as a task that does not exist", async () => {
    const missing = await readsOf(caller(), "task/get", { taskId: newUlid(Date.now()) });
    expect(await readsOf(caller(), "task/get", { taskId: huge.taskId })).toBe(missing);
  });
});

test("its creator may still delete shares of it, and reads it where the graph does not decide", async () => {
  expect(await codeOf(stranger, "task/get", { taskId: huge.taskId })).toBe("PROXY_NOT_FOUND");
  await result(stranger, "task/unshare", { taskId: huge.taskId, subject: "group:none-1#member", relation: "viewer" });
  await result(operator, "authz/enforce", { tenantId: stranger.tenantId, enforce: false });
  expect(await result(stranger, "task/get", { taskId: huge.taskId })).toMatchObject({ task: { taskId: huge.taskId } });
  expect(idsOf(await result(stranger, "task/list", {}))).toContain(huge.taskId);
});
