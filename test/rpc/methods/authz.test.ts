import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import { newUlid } from "../../../src/wire/ulid.ts";
import {
  type Agent,
  apiKeyOf,
  codeOf,
  createTask,
  operator,
  register,
  result,
  rows,
  rpc,
  tuplesOf,
} from "../../support/world.ts";

let agent: Agent;
beforeAll(async () => {
  agent = await register();
});

describe("writing and reading relationships", () => {
  test("is all or nothing, and a tuple that the model does not know is refused", async () => {
    const good = { object: "group:staff", relation: "member", subject: "user:anne" };
    const bad = { object: "group:staff", relation: "owner", subject: "user:anne" };
    expect(await codeOf(operator, "authz/write", { writes: [good, bad] })).toBe("PROXY_BAD_REQUEST");
    expect((await result(operator, "authz/read", { object: "group:staff" }))["tuples"]).toEqual([]);
    expect(await result(operator, "authz/write", { writes: [good] })).toEqual({ written: 1, deleted: 0 });
    expect((await result(operator, "authz/read", { object: "group:staff", relation: "member" }))["tuples"]).toEqual([
      good,
    ]);
    expect(await result(operator, "authz/write", { deletes: [good] })).toEqual({ written: 0, deleted: 1 });
  });

  test("refuses more than a hundred tuples, and a second tenant for an object", async () => {
    const many = Array.from({ length: 51 }, (_, i) => ({
      object: "group:many",
      relation: "member",
      subject: `user:u${i}`,
    }));
    expect(await codeOf(operator, "authz/write", { writes: many, deletes: many })).toBe("PROXY_BAD_REQUEST");
    const second = { object: `agent:${agent.did}`, relation: "tenant", subject: "tenant:other" };
    expect(await codeOf(operator, "authz/write", { writes: [second] })).toBe("PROXY_CONFLICT");
  });

  test("checks, explains and lists", async () => {
    const task = await createTask(agent, { agentDid: agent.did });
    const question = { subject: `agent:${agent.did}`, relation: "cancel", object: `task:${task.taskId}` };
    expect(await result(operator, "authz/check", question)).toEqual({ allowed: true });
    const explained = await result(operator, "authz/explain", question);
    expect(explained).toMatchObject({ allowed: true, missing: [] });
    expect(explained["path"]).toContain(`task:${task.taskId}#owner@agent:${agent.did}`);
    const listed = await result(operator, "authz/list_objects", {
      subject: `agent:${agent.did}`,
      relation: "read",
      type: "task",
    });
    expect(listed).toEqual({ objects: [`task:${task.taskId}`] });
    const stranger = { ...question, subject: "user:mallory" };
    expect(await result(operator, "authz/check", stranger)).toEqual({ allowed: false });
    const contextualTuples = [
      { object: `task:${task.taskId}`, relation: "owner", subject: "user:mallory" },
      { object: `tenant:${agent.tenantId}`, relation: "member", subject: "user:mallory" },
    ];
    expect(await result(operator, "authz/check", { ...stranger, contextualTuples })).toEqual({ allowed: true });
    expect(await codeOf(operator, "authz/check", { ...question, relation: "rule" })).toBe("PROXY_BAD_REQUEST");
  });

  test("lets a group in a group in, and out again with the next call after its tuple is gone", async () => {
    const reader = await register({ ownerDid: agent.ownerDid });
    const task = await createTask(operator, { agentDid: agent.did });
    const writes = [
      { object: `task:${task.taskId}`, relation: "viewer", subject: "group:outer#member" },
      { object: "group:outer", relation: "member", subject: "group:inner#member" },
      { object: "group:inner", relation: "member", subject: `agent:${reader.did}` },
    ];
    await result(operator, "authz/write", { writes });
    expect((await result(reader, "task/get", { taskId: task.taskId }))["task"]).toEqual(task);
    await result(operator, "authz/write", { deletes: writes.slice(1, 2) });
    expect(await codeOf(reader, "task/get", { taskId: task.taskId })).toBe("PROXY_NOT_FOUND");
  });
});

describe("what is not there", () => {
  test.each([
    ["authz/check", { subject: "agent:worker", relation: "read", object: "agent:worker" }],
    ["authz/explain", { subject: "agent:worker", relation: "read", object: "agent:worker" }],
    ["authz/explain", { subject: "user:anne", relation: "read", object: "task:01JDA00000000000000000000A" }],
    ["authz/list_objects", { subject: "service_account:none", relation: "read", type: "task" }],
    ["authz/enforce", { tenantId: "foo", enforce: true }],
    ["authz/enforce", { tenantId: "foo", enforce: false }],
  ])("is said to be that by %s: %j", async (method, params) => {
    expect(await codeOf(operator, method, params)).toBe("PROXY_NOT_FOUND");
    expect(await rows("SELECT 1 FROM tenant_enforcement WHERE tenant_id = 'foo'")).toEqual([]);
  });

  test("is there where a contextual tuple says so, and a person without a tuple is one who may do nothing", async () => {
    const task = { subject: "user:mallory", relation: "owner", object: "task:draft" };
    const contextualTuples = [{ object: "task:draft", relation: "viewer", subject: "user:anne" }];
    expect(await result(operator, "authz/check", { ...task, contextualTuples })).toEqual({ allowed: false });
    const ofAgent = { subject: "user:mallory", relation: "read", object: `agent:${agent.did}` };
    expect(await result(operator, "authz/explain", ofAgent)).toMatchObject({ allowed: false });
  });
});

describe("the audit of relationships", () => {
  const entries = (action: string) =>
    rows<{ result: string; details: string }>(
      "SELECT result, details FROM audit WHERE action = ?1 ORDER BY rowid",
      action,
    );

  test("names each tuple of a call, however many", async () => {
    const writes = Array.from({ length: 60 }, (_, i) => ({
      object: "group:audited",
      relation: "member",
      subject: `user:a${i}`,
    }));
    await result(operator, "authz/write", { writes });
    const details = JSON.parse((await entries("authz.write")).at(-1)?.details ?? "{}") as { writes: string };
    expect(details.writes.split(" ")).toEqual(writes.map(({ subject }) => `group:audited#member@${subject}`));
  });

  test("says whether enforcement was changed or refused", async () => {
    const one = await register();
    await result(operator, "authz/enforce", { tenantId: one.tenantId, enforce: true });
    const { taskId } = await createTask(one, { agentDid: one.did });
    await env.DB.prepare("DELETE FROM relationships WHERE object_id = ?1").bind(taskId).run();
    await codeOf(operator, "authz/enforce", { tenantId: one.tenantId, enforce: true });
    expect((await entries("authz.enforce")).slice(-2).map((entry) => entry.result)).toEqual(["ok", "refused"]);
    await result(operator, "authz/reconcile", { dryRun: false });
  });
});

describe("reconciliation", () => {
  test("reports what is due without doing test, does it, and then finds nothing", async () => {
    const key = await apiKeyOf(agent, ["tasks:write"]);
    const task = await createTask(agent, { agentDid: agent.did });
    const byKey = await createTask(key, { agentDid: agent.did });
    const nobodys = await createTask(operator, { agentDid: agent.did });
    for (const { taskId } of [task, byKey, nobodys])
      await env.DB.prepare("DELETE FROM relationships WHERE object_id = ?1").bind(taskId).run();
    await env.DB.prepare("DELETE FROM relationships WHERE subject_id = ?1").bind(key.serviceAccountId).run();
    await result(operator, "authz/write", {
      writes: [{ object: "task:ghost", relation: "viewer", subject: "user:anne" }],
    });

    const unattributable = (
      await rows("SELECT 1 FROM tasks WHERE creator_user_id IS NULL AND creator_service_account_id IS NULL")
    ).length;
    const due = await result(operator, "authz/reconcile", { dryRun: true });
    expect(due).toMatchObject({ repaired: 4, removed: 1, drift: 5, unattributable });
    expect(await tuplesOf(`task:${task.taskId}`)).toEqual([]);
    expect(
      (await rpc(operator, "authz/enforce", { tenantId: agent.tenantId, enforce: true })).error?.data,
    ).toMatchObject({ code: "PROXY_CONFLICT", drift: 4 });

    expect(await result(operator, "authz/reconcile", { dryRun: false })).toMatchObject({ repaired: 4, removed: 1 });
    expect(await result(operator, "authz/reconcile", { dryRun: true })).toMatchObject({
      repaired: 0,
      removed: 0,
      drift: 0,
      unattributable,
    });
    expect(await tuplesOf(`task:${task.taskId}`)).toEqual(
      [`owner@user:${agent.ownerDid}`, `parent@agent:${agent.did}`, `tenant@tenant:${agent.tenantId}`].toSorted(),
    );
    expect(await tuplesOf(`task:${byKey.taskId}`)).toContain(`owner@service_account:${key.serviceAccountId}`);
    expect(await tuplesOf("task:ghost")).toEqual([]);
    expect(await tuplesOf(`agent:${agent.did}`)).toContain(`executor@service_account:${key.serviceAccountId}`);
    expect(await result(operator, "authz/enforce", { tenantId: agent.tenantId, enforce: true })).toEqual({
      tenantId: agent.tenantId,
      enforce: true,
      drift: 0,
    });
  });
});

describe("enforcement of a tenant", () => {
  test.each([
    ["membership", (of: Agent) => ({ object: `tenant:${of.tenantId}`, relation: "member" })],
    ["executor", (of: Agent) => ({ object: `agent:${of.did}`, relation: "executor" })],
  ])("is refused while a service account without a key has a grant: %s", async (_name, grant) => {
    const [one, other] = [await register(), await register()];
    const subject = `service_account:${newUlid(Date.now())}`;
    await result(operator, "authz/write", { writes: [{ ...grant(one), subject }] });
    const enforce = (of: Agent) => rpc(operator, "authz/enforce", { tenantId: of.tenantId, enforce: true });
    expect((await enforce(one)).error?.data).toMatchObject({ code: "PROXY_CONFLICT", drift: 1 });
    expect((await enforce(other)).result).toMatchObject({ drift: 0 });
    expect(await result(operator, "authz/reconcile", { dryRun: false })).toMatchObject({ removed: 1 });
    expect((await enforce(one)).result).toMatchObject({ drift: 0 });
  });

  test("is not held up by grants of keys, nor by service accounts that the operator named", async () => {
    const tenant = await register();
    await apiKeyOf(tenant, ["tasks:read"]);
    await result(operator, "authz/write", {
      writes: [
        { object: `tenant:${tenant.tenantId}`, relation: "member", subject: "service_account:builds" },
        { object: `agent:${tenant.did}`, relation: "executor", subject: "service_account:builds" },
      ],
    });
    expect(await result(operator, "authz/enforce", { tenantId: tenant.tenantId, enforce: true })).toMatchObject({
      drift: 0,
    });
  });
});

describe("a tenant that the graph does not decide for", () => {
  test("is decided by creator and agent owner alone", async () => {
    const old = await register();
    const sibling = await register({ ownerDid: old.ownerDid, tenantId: old.tenantId });
    const key = await apiKeyOf(old, ["tasks:read", "tasks:write"]);
    const task = await createTask(key, { agentDid: old.did });
    const viewer = { object: `task:${task.taskId}`, relation: "viewer", subject: `agent:${agent.did}` };
    await result(operator, "authz/write", {
      writes: [viewer, { object: `tenant:${old.tenantId}`, relation: "member", subject: `agent:${agent.did}` }],
    });
    expect(await codeOf(sibling, "task/get", { taskId: task.taskId })).toBe("PROXY_NOT_FOUND");
    expect((await result(agent, "task/get", { taskId: task.taskId }))["task"]).toEqual(task);

    await result(operator, "authz/enforce", { tenantId: old.tenantId, enforce: false });
    expect((await result(sibling, "task/get", { taskId: task.taskId }))["task"]).toEqual(task);
    expect((await result(key, "task/get", { taskId: task.taskId }))["task"]).toEqual(task);
    expect(await codeOf(agent, "task/get", { taskId: task.taskId })).toBe("PROXY_NOT_FOUND");
    expect((await result(sibling, "task/list", {}))["tasks"]).toEqual([task]);
  });
});
