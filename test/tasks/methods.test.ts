import { beforeAll, describe, expect, test } from "vitest";
import type { AgentDid } from "../../src/wire/did.ts";
import { rows as gateRows } from "../support/gate.ts";
import {
  type Agent,
  apiKeyOf,
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
  type Task,
  tuplesOf,
} from "../support/world.ts";

let agent: Agent;
let stranger: Agent;
let device: Device;
let key: Holder;

beforeAll(async () => {
  agent = await register();
  stranger = await register();
  device = await pairDevice(agent, ["tasks:read", "tasks:write"]);
  key = await apiKeyOf(agent, ["tasks:read", "tasks:write"]);
});

describe("who made a task", () => {
  test("is the agent's owner where the agent makes test, and both own it", async () => {
    const task = await createTask(agent, { agentDid: agent.did, name: "mine", params: { a: 1 } });
    expect(task).toMatchObject({
      tenantId: agent.tenantId,
      agentDid: agent.did,
      name: "mine",
      status: "running",
      params: { a: 1 },
      metadata: {},
      creatorUserId: agent.ownerDid,
      creatorServiceAccountId: null,
    });
    expect(await tuplesOf(`task:${task.taskId}`)).toEqual(
      [
        `owner@agent:${agent.did}`,
        `owner@user:${agent.ownerDid}`,
        `parent@agent:${agent.did}`,
        `tenant@tenant:${agent.tenantId}`,
      ].toSorted(),
    );
  });

  test("is the agent's owner where a device makes it", async () => {
    const task = await createTask(device, { agentDid: agent.did });
    expect(task).toMatchObject({ creatorUserId: agent.ownerDid, creatorServiceAccountId: null, name: null });
    expect(await tuplesOf(`task:${task.taskId}`)).not.toContain(`owner@agent:${agent.did}`);
  });

  test("is the service account where an API key makes it", async () => {
    const task = await createTask(key, { agentDid: agent.did });
    expect(task).toMatchObject({ creatorUserId: null, creatorServiceAccountId: key.serviceAccountId });
    expect(await tuplesOf(`task:${task.taskId}`)).toContain(`owner@service_account:${key.serviceAccountId}`);
  });

  test("is nobody where the operator makes it", async () => {
    const task = await createTask(operator, { agentDid: agent.did });
    expect(task).toMatchObject({ creatorUserId: null, creatorServiceAccountId: null });
    expect((await tuplesOf(`task:${task.taskId}`)).filter((tuple) => tuple.startsWith("owner"))).toEqual([]);
  });

  test("is never taken from the body", async () => {
    const task = await createTask(agent, {
      agentDid: agent.did,
      creatorUserId: stranger.ownerDid,
      creatorServiceAccountId: "x",
    });
    expect(task).toMatchObject({ creatorUserId: agent.ownerDid, creatorServiceAccountId: null });
  });
});

describe("a task", () => {
  test("is found by id and by name, listed, canceled, shared and deleted", async () => {
    const made = await createTask(agent, { agentDid: agent.did, name: "whole life" });
    expect((await result(agent, "task/get", { taskName: "whole life" }))["task"]).toEqual(made);
    expect((await result(device, "task/get", { taskId: made.taskId }))["task"]).toEqual(made);
    const listed = (await result(agent, "task/list", {}))["tasks"] as { taskId: string }[];
    expect(listed.map(({ taskId }) => taskId)).toContain(made.taskId);
    expect(await codeOf(stranger, "task/get", { taskId: made.taskId })).toBe("PROXY_NOT_FOUND");
    const canceled = (await result(agent, "task/cancel", { taskId: made.taskId }))["task"];
    expect(canceled).toMatchObject({ status: "canceled" });
    await result(agent, "task/share", {
      taskId: made.taskId,
      subject: `service_account:${key.serviceAccountId}`,
      relation: "viewer",
    });
    expect((await result(key, "task/get", { taskId: made.taskId }))["task"]).toMatchObject({ status: "canceled" });
    expect(await codeOf(key, "message/send", { taskId: made.taskId, content: 1 })).toBe("PROXY_AUTH_FORBIDDEN");
    await result(agent, "task/unshare", {
      taskId: made.taskId,
      subject: `service_account:${key.serviceAccountId}`,
      relation: "viewer",
    });
    expect(await codeOf(key, "task/get", { taskId: made.taskId })).toBe("PROXY_NOT_FOUND");
    expect((await result(agent, "task/delete", { taskName: "whole life" }))["task"]).toMatchObject({
      taskId: made.taskId,
    });
    expect(await codeOf(agent, "task/get", { taskId: made.taskId })).toBe("PROXY_NOT_FOUND");
    expect(await tuplesOf(`task:${made.taskId}`)).toEqual([]);
    expect(await rows("SELECT 1 FROM tasks WHERE task_id = ?1", made.taskId)).toEqual([]);
  });

  test("keeps params, metadata and contents as they came, members with names that mean something here included", async () => {
    const odd = JSON.parse(
      '{"__proto__":{"polluted":1},"constructor":2,"toString":null,"in":{"__proto__":[3]}}',
    ) as object;
    const text = JSON.stringify(odd);
    expect(text).toContain("__proto__");
    for (const caller of [agent, operator]) {
      const made = await createTask(caller, { agentDid: agent.did, params: odd, metadata: odd });
      const read = (await result(operator, "task/get", { taskId: made.taskId }))["task"] as Task;
      const listed = ((await result(operator, "task/list", { agentDid: agent.did }))["tasks"] as Task[]).at(-1);
      for (const each of [made, read, listed]) {
        expect(JSON.stringify(each?.["params"])).toBe(text);
        expect(JSON.stringify(each?.["metadata"])).toBe(text);
      }
      const { deliveryId } = await result(operator, "message/send", { taskId: made.taskId, content: odd });
      expect(
        await gateRows(agent.did as AgentDid, "SELECT body FROM inbound WHERE delivery_id = ?", deliveryId),
      ).toEqual([{ body: JSON.stringify({ kind: "message", taskId: made.taskId, content: odd }) }]);
    }
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  });

  test.each([["text"], [[]], [1], [true]])("does not take %j for params", async (params) => {
    expect(await codeOf(agent, "task/create", { agentDid: agent.did, params })).toBe("PROXY_BAD_REQUEST");
    expect(await codeOf(agent, "task/create", { agentDid: agent.did, metadata: params })).toBe("PROXY_BAD_REQUEST");
  });

  test("takes both identifiers or neither for a mistake", async () => {
    expect(await codeOf(agent, "task/get", {})).toBe("PROXY_BAD_REQUEST");
    expect(await codeOf(agent, "task/get", { taskId: "01JDA00000000000000000000A", taskName: "x" })).toBe(
      "PROXY_BAD_REQUEST",
    );
    expect(await codeOf(agent, "message/send", { content: 1 })).toBe("PROXY_BAD_REQUEST");
  });

  test("keeps its name to itself within the tenant, and tells those alone who may read it", async () => {
    await createTask(operator, { agentDid: agent.did, name: "taken" });
    expect(await codeOf(agent, "task/create", { agentDid: agent.did, name: "taken" })).toBe("PROXY_CONFLICT");
    expect(await codeOf(key, "task/create", { agentDid: agent.did, name: "taken" })).toBe("PROXY_NOT_FOUND");
    await createTask(stranger, { agentDid: stranger.did, name: "taken" });
  });

  test("hands a message to its agent without asking who trusts whom", async () => {
    const task = await createTask(agent, { agentDid: agent.did, name: "letters" });
    for (const caller of [agent, device, operator]) {
      const sent = await result(caller, "message/send", { taskName: "letters", content: { hello: caller.kind } });
      expect(sent["deliveryId"]).toEqual(expect.any(String));
    }
    const own = await createTask(key, { agentDid: agent.did });
    await result(key, "event/send", { taskId: own.taskId, content: ["an event"] });
    expect(task.taskId).not.toBe(own.taskId);
  });
});

describe("a share with a subject that the tenant's gate would refuse", () => {
  test("is a bad request that says so, and a group's members are judged when they ask", async () => {
    const { taskId } = await createTask(agent, { agentDid: agent.did });
    const share = { taskId, relation: "viewer" };
    for (const subject of [`agent:${stranger.did}`, `user:${stranger.ownerDid}`, "service_account:none"]) {
      const refused = await rpc(agent, "task/share", { ...share, subject });
      expect(refused.error?.data).toMatchObject({ code: "PROXY_BAD_REQUEST" });
      expect(JSON.stringify(refused.error)).toContain("no member of the task's tenant");
    }
    expect((await tuplesOf(`task:${taskId}`)).filter((tuple) => tuple.startsWith("viewer"))).toEqual([]);
    await result(agent, "task/share", { ...share, subject: "group:staff#member" });
    expect(await codeOf(stranger, "task/share", { ...share, subject: "user:anne" })).toBe("PROXY_NOT_FOUND");
  });

  test("is taken where the graph does not decide for the tenant", async () => {
    const { taskId } = await createTask(stranger, { agentDid: stranger.did });
    await result(operator, "authz/enforce", { tenantId: stranger.tenantId, enforce: false });
    await result(stranger, "task/share", { taskId, subject: "user:anne", relation: "viewer" });
    await result(operator, "authz/enforce", { tenantId: stranger.tenantId, enforce: true });
  });
});

describe("the audit of tasks", () => {
  const actions = async (taskId: string): Promise<string[]> =>
    (
      await rows<{ entry: string }>(
        "SELECT action || ' ' || actor || ' ' || result AS entry FROM audit WHERE subject = ?1 ORDER BY rowid",
        `task:${taskId}`,
      )
    ).map(({ entry }) => entry);

  test("has what the operator does, reading and sending included", async () => {
    const { taskId } = await createTask(operator, { agentDid: agent.did });
    await result(operator, "task/get", { taskId });
    await result(operator, "message/send", { taskId, content: "hello" });
    await result(operator, "event/send", { taskId, content: 1 });
    await result(operator, "task/cancel", { taskId });
    await result(operator, "task/cancel", { taskId });
    await result(operator, "task/delete", { taskId });
    expect(await actions(taskId)).toEqual([
      "task.create operator ok",
      "task.get operator permitted",
      "message.send operator permitted",
      "event.send operator permitted",
      "task.cancel operator ok",
      "task.delete operator ok",
    ]);
    const before = (await rows("SELECT 1 FROM audit WHERE action = 'task.list'")).length;
    await result(operator, "task/list", { agentDid: agent.did });
    expect(await rows("SELECT 1 FROM audit WHERE action = 'task.list'")).toHaveLength(before + 1);
  });

  test("has what others make and cancel, and not what they read", async () => {
    const { taskId } = await createTask(agent, { agentDid: agent.did });
    await result(agent, "task/get", { taskId });
    await result(agent, "task/list", {});
    await result(agent, "task/cancel", { taskId });
    const self = `agent:${agent.did}`;
    expect(await actions(taskId)).toEqual([`task.create ${self} ok`, `task.cancel ${self} ok`]);
  });
});
