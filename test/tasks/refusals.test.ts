/** What nobody outside may learn: refusals are those of a task that does not exist, byte for byte and read for read. */
import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import { newUlid } from "../../src/wire/ulid.ts";
import {
  type Agent,
  apiKeyOf,
  type Caller,
  codeOf,
  createTask,
  type Device,
  type Holder,
  operator,
  pairDevice,
  register,
  result,
  rows,
  rpc,
  rpcResponse,
  type Task,
} from "../support/world.ts";
import { readsOf } from "../support/db-spy.ts";

let agent: Agent;
let sibling: Agent;
let key: Holder;
let theirs: Agent;
let theirDevice: Device;
let theirKey: Holder;
/** A task of the agent that only its owner side knows. */
let task: Task;

beforeAll(async () => {
  agent = await register();
  sibling = await register({ ownerDid: agent.ownerDid, tenantId: agent.tenantId });
  key = await apiKeyOf(agent, ["tasks:read", "tasks:write"]);
  theirs = await register();
  theirDevice = await pairDevice(theirs, ["tasks:read", "tasks:write"]);
  theirKey = await apiKeyOf(theirs, ["tasks:read", "tasks:write"]);
  task = await createTask(operator, { agentDid: agent.did, name: "secret" });
}, 60_000);

/** Every method on a task, by what names it. */
const METHODS: [string, Record<string, unknown>, boolean][] = [
  ["task/get", {}, true],
  ["task/cancel", {}, true],
  ["task/interrupt", {}, true],
  ["task/delete", {}, true],
  ["message/send", { content: 1 }, true],
  ["event/send", { content: 1 }, true],
  ["task/share", { subject: "user:anne", relation: "viewer" }, false],
  ["task/unshare", { subject: "user:anne", relation: "viewer" }, false],
];

const CALLERS: [string, () => Caller][] = [
  ["an agent of the tenant that nobody shared it with", () => sibling],
  ["a service account of the tenant", () => key],
  ["an agent of another tenant", () => theirs],
  ["a device of another tenant", () => theirDevice],
  ["a service account of another tenant", () => theirKey],
];

/** Status, headers and body of an answer, but for what differs between any two answers. */
async function bytesOf(caller: Caller, method: string, params: unknown): Promise<string> {
  const response = await rpcResponse(caller, method, params);
  const headers = [...response.headers].filter(([name]) => name !== "x-request-id" && name !== "date");
  return JSON.stringify([response.status, headers, await response.text()]);
}

describe.each(CALLERS)("%s", (_name, caller) => {
  test.each(METHODS)("hears of %s what it hears of a task that does not exist", async (method, extra, byName) => {
    const missing = await bytesOf(caller(), method, { ...extra, taskId: newUlid(Date.now()) });
    expect(missing).toContain("PROXY_NOT_FOUND");
    expect(await bytesOf(caller(), method, { ...extra, taskId: task.taskId })).toBe(missing);
    if (!byName) return;
    expect(await bytesOf(caller(), method, { ...extra, taskName: "secret" })).toBe(missing);
    expect(await bytesOf(caller(), method, { ...extra, taskName: "no such name" })).toBe(missing);
    expect(await bytesOf(caller(), method, { ...extra, taskId: "not even an id" })).toBe(missing);
  });

  test.each(METHODS)("costs %s as many reads as a task that does not exist", async (method, extra, byName) => {
    const missing = await readsOf(caller(), method, { ...extra, taskId: newUlid(Date.now()) });
    // Whether the task may be read decides which refusal it is.
    expect(missing).toBe(method === "task/get" ? 2 : 3);
    expect(await readsOf(caller(), method, { ...extra, taskId: task.taskId })).toBe(missing);
    if (!byName) return;
    expect(await readsOf(caller(), method, { ...extra, taskName: "secret" })).toBe(missing);
    expect(await readsOf(caller(), method, { ...extra, taskName: "no such name" })).toBe(missing);
  });
});

describe("whoever may not", () => {
  test("has changed nothing by trying", async () => {
    const before = await rows("SELECT * FROM tasks WHERE task_id = ?1", task.taskId);
    expect(before).toMatchObject([{ status: "running" }]);
    expect(await rows("SELECT * FROM relationships WHERE object_id = ?1 AND relation = 'viewer'", task.taskId)).toEqual(
      [],
    );
  });

  test("never makes a task by sending to one", async () => {
    for (const caller of [sibling, key, theirs]) {
      expect(await codeOf(caller, "message/send", { taskName: "not there yet", content: 1 })).toBe("PROXY_NOT_FOUND");
    }
    expect(await rows("SELECT * FROM tasks WHERE name = 'not there yet'")).toEqual([]);
  });

  test("cannot make tasks for agents of others, known or unknown, and hears the same of both", async () => {
    const unknown = agent.did.slice(0, -26) + newUlid(Date.now());
    for (const caller of [theirs, theirDevice, theirKey]) {
      const missing = await bytesOf(caller, "task/create", { agentDid: unknown, name: "x" });
      expect(missing).toContain("PROXY_NOT_FOUND");
      expect(await bytesOf(caller, "task/create", { agentDid: agent.did, name: "x" })).toBe(missing);
      expect(await bytesOf(caller, "task/create", { agentDid: agent.did, name: "secret" })).toBe(missing);
      expect(await readsOf(caller, "task/create", { agentDid: agent.did, name: "secret" })).toBe(
        await readsOf(caller, "task/create", { agentDid: unknown, name: "secret" }),
      );
    }
  });

  test("does not get in by a tuple that somebody wrote, as long as it is not of the tenant", async () => {
    const writes = ["owner", "editor", "viewer"].map((relation) => ({
      object: `task:${task.taskId}`,
      relation,
      subject: `agent:${theirs.did}`,
    }));
    await result(operator, "authz/write", { writes });
    expect(await codeOf(theirs, "task/get", { taskId: task.taskId })).toBe("PROXY_NOT_FOUND");
    expect((await result(theirs, "task/list", {}))["tasks"]).toEqual([]);
    await result(operator, "authz/write", { deletes: writes });
  });

  test("sees none of it in a list", async () => {
    for (const caller of [sibling, key, theirs, theirDevice, theirKey]) {
      expect(JSON.stringify(await result(caller, "task/list", {}))).not.toContain(task.taskId);
      expect(JSON.stringify(await result(caller, "task/list", { agentDid: agent.did }))).not.toContain(task.taskId);
    }
  });
});

describe("a reader", () => {
  test.each([
    ["task/cancel", {}, "cancel"],
    ["task/delete", {}, "delete"],
    ["message/send", { content: 1 }, "update"],
    ["event/send", { content: 1 }, "update"],
    ["task/share", { subject: "user:anne", relation: "viewer" }, "delete"],
    ["task/unshare", { subject: "user:anne", relation: "viewer" }, "delete"],
  ])("is told by %s which permission is missing, by id and by name", async (method, extra, permission) => {
    const name = `shown to a reader by ${method}`;
    const shown = await createTask(operator, { agentDid: agent.did, name });
    const writes = [{ object: `task:${shown.taskId}`, relation: "viewer", subject: `agent:${sibling.did}` }];
    await result(operator, "authz/write", { writes });
    const keys = method.endsWith("share") ? [{ taskId: shown.taskId }] : [{ taskId: shown.taskId }, { taskName: name }];
    for (const by of keys) {
      const refused = await rpc(sibling, method, { ...extra, ...by });
      expect(refused.error?.data).toMatchObject({ code: "PROXY_AUTH_FORBIDDEN", permission });
    }
    expect(await codeOf(key, method, { ...extra, taskId: shown.taskId })).toBe("PROXY_NOT_FOUND");
  });
});

describe("one name", () => {
  test("goes to one of two that race for it, and the other hears what it may know", async () => {
    for (let round = 0; round < 5; round += 1) {
      const name = `race ${round}`;
      const wanted = { agentDid: agent.did, name };
      const answers = await Promise.all([rpc(agent, "task/create", wanted), rpc(key, "task/create", wanted)]);
      const [byAgent, byKey] = answers;
      expect(answers.filter(({ result: made }) => made !== undefined)).toHaveLength(1);
      // The agent is the parent of the service account's task and may read it; the service account may not read the agent's.
      if (byAgent?.error !== undefined) expect(byAgent.error.data?.["code"]).toBe("PROXY_CONFLICT");
      if (byKey?.error !== undefined) expect(byKey.error.data?.["code"]).toBe("PROXY_NOT_FOUND");
      expect(await rows("SELECT 1 FROM tasks WHERE name = ?1", name)).toHaveLength(1);
    }
  });
});

describe("the database", () => {
  test("refuses a task or a key of two creators", async () => {
    const insert = env.DB.prepare(
      `INSERT INTO tasks (task_id, tenant_id, agent_did, status, params, metadata, creator_user_id, creator_service_account_id, created_at_ms, updated_at_ms)
       VALUES ('two', 't', 'a', 'running', '{}', '{}', 'u', 's', 1, 1)`,
    );
    await expect(insert.run()).rejects.toThrow(/ck_tasks_at_most_one_creator/);
    const update = env.DB.prepare(
      "UPDATE tasks SET creator_user_id = 'u', creator_service_account_id = 's' WHERE task_id = ?1",
    );
    await expect(update.bind(task.taskId).run()).rejects.toThrow(/ck_tasks_at_most_one_creator/);
    const second = env.DB.prepare("UPDATE api_keys SET creator_user_id = 'u', creator_service_account_id = 's'");
    await expect(second.run()).rejects.toThrow(/ck_api_keys_at_most_one_creator/);
  });
});
