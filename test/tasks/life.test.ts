/** A task's states: its own agent says what becomes of it, and what is final stays. */
import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import {
  admit,
  type Agent,
  apiKeyOf,
  type Caller,
  codeOf,
  createTask,
  operator,
  pairDevice,
  register,
  result,
  rows,
  rpc,
  rpcResponse,
  type Task,
} from "../support/world.ts";

let agent: Agent;
let creator: Agent;
let stranger: Agent;

beforeAll(async () => {
  agent = await register();
  creator = await register({ ownerDid: agent.ownerDid, tenantId: agent.tenantId });
  stranger = await register();
  await admit(agent, `agent:${creator.did}`);
}, 60_000);

const make = (by: Caller = agent): Promise<Task> => createTask(by, { agentDid: agent.did });
const taskOf = async (caller: Caller, method: string, params: Record<string, unknown>): Promise<Task> =>
  (await result(caller, method, params))["task"] as Task;
const statusOf = async ({ taskId }: Task): Promise<string> => (await taskOf(agent, "task/get", { taskId })).status;

describe("task/update", () => {
  test.each(["completed", "failed", "rejected"])("ends a task as %s, with result, words and time", async (status) => {
    const { taskId } = await make();
    const ended = await taskOf(agent, "task/update", {
      taskId,
      status,
      statusMessage: "so it is",
      result: { n: 1 },
    });
    expect(ended).toMatchObject({ taskId, status, statusMessage: "so it is", result: { n: 1 } });
    expect(ended["endedAtMs"]).toBe(ended["updatedAtMs"]);
    expect(await taskOf(agent, "task/get", { taskId })).toEqual(ended);
    expect(
      await rows("SELECT details FROM audit WHERE subject = ? AND action = 'task.update'", `task:${taskId}`),
    ).toEqual([{ details: JSON.stringify({ name: null, status }) }]);
  });

  test("keeps a result to the byte", async () => {
    const { taskId } = await make();
    const response = await rpcResponse(agent, "task/update", { taskId, status: "completed", result: 0 });
    expect(response.status).toBe(200);
    const text = '{"a": 1.0, "a":1e2,"z":12345678901234567890}';
    await env.DB.prepare("UPDATE tasks SET result = ? WHERE task_id = ?").bind(text, taskId).run();
    expect(await (await rpcResponse(agent, "task/get", { taskId })).text()).toContain(`"result":${text}`);
  });

  test("leaves what it does not name, and goes to and fro between running and input_required", async () => {
    const { taskId } = await make();
    await taskOf(agent, "task/update", { taskId, status: "input_required", statusMessage: "which room?" });
    const going = await taskOf(agent, "task/update", { taskId, status: "running" });
    expect(going).toMatchObject({ status: "running", statusMessage: "which room?" });
    expect(going).not.toHaveProperty("endedAtMs");
  });

  test("takes 256 KiB of result and 4 096 code points of words, and not one more", async () => {
    const { taskId } = await make();
    const text = "x".repeat(262_142);
    const update = (extra: Record<string, unknown>) =>
      rpc(agent, "task/update", { taskId, status: "running", ...extra });
    expect((await update({ result: `${text}x` })).error?.code).toBe(-32_602);
    expect((await update({ statusMessage: "😀".repeat(4_097) })).error?.code).toBe(-32_602);
    expect((await update({ result: text, statusMessage: "😀".repeat(4_096) })).error).toBeUndefined();
  });

  test.each(["paused", "canceled", "interrupted", "", null])("refuses the state %s", async (status) => {
    const { taskId } = await make();
    expect((await rpc(agent, "task/update", { taskId, status })).error?.code).toBe(-32_602);
  });

  test("is for a device and a key of the task's agent too", async () => {
    const device = await pairDevice(agent, ["tasks:write"]);
    const key = await apiKeyOf(agent, ["tasks:write"]);
    for (const caller of [device, key]) {
      const { taskId } = await make();
      expect((await taskOf(caller, "task/update", { taskId, status: "completed" })).status).toBe("completed");
    }
  });

  test("is refused to the creator, who reads it, and to a stranger as if there were no such task", async () => {
    const { taskId } = await make(operator);
    await result(operator, "authz/write", {
      writes: [{ object: `task:${taskId}`, relation: "owner", subject: `agent:${creator.did}` }],
    });
    const refused = await rpc(creator, "task/update", { taskId, status: "completed" });
    expect(refused.error?.data).toMatchObject({ code: "PROXY_AUTH_FORBIDDEN", permission: "agent" });
    const bytes = async (id: string) =>
      (await rpcResponse(stranger, "task/update", { taskId: id, status: "completed" })).text();
    expect(await bytes(taskId)).toBe(await bytes("0".repeat(26)));
    expect(await bytes(taskId)).toContain("PROXY_NOT_FOUND");
    expect(await codeOf(operator, "task/update", { taskId, status: "completed" })).toBe("PROXY_AUTH_FORBIDDEN");
    expect(await statusOf({ taskId } as Task)).toBe("running");
  });

  test("counts results and words in the tenant's bytes, and takes them back with the task", async () => {
    const { taskId, tenantId } = await make();
    const used = async () =>
      (await rows<{ bytes: number }>("SELECT bytes FROM quota_usage WHERE holder = ?", `tenant:${tenantId}`))[0]
        ?.bytes ?? 0;
    const audited = async () =>
      (
        await rows<{ n: number }>(
          "SELECT COALESCE(SUM(512 + octet_length(details)), 0) AS n FROM audit WHERE agent_did = ?",
          agent.did,
        )
      )[0]?.n ?? 0;
    const [before, auditedBefore] = [await used(), await audited()];
    await taskOf(agent, "task/update", { taskId, status: "running", result: "x".repeat(998), statusMessage: "ä" });
    expect((await used()) - before - ((await audited()) - auditedBefore)).toBe(1_002);
    await taskOf(agent, "task/delete", { taskId });
    expect((await used()) - before - ((await audited()) - auditedBefore)).toBe(-2_048 - 4);
  });

  test("is refused beyond the tenant's bytes, and changes nothing then", async () => {
    const full = await register();
    const { taskId } = await createTask(full, { agentDid: full.did });
    await env.DB.prepare("UPDATE quota_usage SET bytes = 1073741824 - 2000 WHERE holder = ?")
      .bind(`tenant:${full.tenantId}`)
      .run();
    const update = { taskId, status: "completed", result: "x".repeat(2_000) };
    expect(await codeOf(full, "task/update", update)).toBe("PROXY_QUOTA_EXCEEDED");
    expect((await taskOf(full, "task/get", { taskId })).status).toBe("running");
    expect((await taskOf(full, "task/update", { ...update, result: "x" })).status).toBe("completed");
  });
});

describe("what is final stays", () => {
  test.each(["completed", "failed", "rejected", "canceled"])("after %s", async (status) => {
    const { taskId } = await make();
    const ended =
      status === "canceled"
        ? await taskOf(agent, "task/cancel", { taskId })
        : await taskOf(agent, "task/update", { taskId, status });
    expect(ended["endedAtMs"]).toBeTypeOf("number");
    for (const next of ["running", "input_required", "completed", "failed", "rejected"])
      expect(await codeOf(agent, "task/update", { taskId, status: next })).toBe("PROXY_CONFLICT");
    expect(await codeOf(agent, "task/interrupt", { taskId })).toBe("PROXY_CONFLICT");
    if (status !== "canceled") expect(await codeOf(agent, "task/cancel", { taskId })).toBe("PROXY_CONFLICT");
    await result(agent, "message/send", { taskId, content: "on" });
    expect(await taskOf(agent, "task/get", { taskId })).toEqual(ended);
  });

  test("of 20 endings at once one wins, and the others are told", async () => {
    const { taskId } = await make();
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        rpc(agent, "task/update", { taskId, status: ["completed", "failed", "rejected"][n % 3], result: n }),
      ),
    );
    const won = answers.filter(({ error }) => error === undefined);
    expect(won).toHaveLength(1);
    const codes = answers.flatMap(({ error }) => (error === undefined ? [] : [error.data?.code]));
    expect(codes).toEqual(Array.from({ length: 19 }, () => "PROXY_CONFLICT"));
    expect(await taskOf(agent, "task/get", { taskId })).toEqual((won[0]?.result as { task: Task } | undefined)?.task);
    expect(
      await rows("SELECT id FROM audit WHERE subject = ? AND action = 'task.update'", `task:${taskId}`),
    ).toHaveLength(1);
  });

  test("and a task that an older version canceled is canceled", async () => {
    const { taskId } = await make();
    await taskOf(agent, "task/update", { taskId, status: "input_required" });
    await env.DB.prepare("UPDATE tasks SET status = 'canceled' WHERE task_id = ?").bind(taskId).run();
    expect(await statusOf({ taskId } as Task)).toBe("canceled");
    expect(await codeOf(agent, "task/update", { taskId, status: "completed" })).toBe("PROXY_CONFLICT");
  });
});

describe("task/interrupt", () => {
  test("stops a task until a message continues it; an event does not, nor does its agent", async () => {
    const { taskId } = await make();
    expect((await taskOf(agent, "task/interrupt", { taskId })).status).toBe("interrupted");
    expect((await taskOf(agent, "task/interrupt", { taskId })).status).toBe("interrupted");
    expect(await codeOf(agent, "task/update", { taskId, status: "running" })).toBe("PROXY_CONFLICT");
    await result(agent, "event/send", { taskId, content: 1 });
    expect(await statusOf({ taskId } as Task)).toBe("interrupted");
    await result(agent, "message/send", { taskId, content: 1 });
    expect(await statusOf({ taskId } as Task)).toBe("running");
  });

  test("may be followed by an end", async () => {
    const { taskId } = await make();
    await taskOf(agent, "task/interrupt", { taskId });
    expect((await taskOf(agent, "task/update", { taskId, status: "completed" })).status).toBe("completed");
  });
});

test("task/list shows the tasks in one state alone, to whoever asks", async () => {
  const mine = await register();
  const made = await Promise.all(Array.from({ length: 6 }, () => createTask(mine, { agentDid: mine.did })));
  const ids = made.map(({ taskId }) => taskId).toSorted();
  await taskOf(mine, "task/update", { taskId: ids[1], status: "completed" });
  await taskOf(mine, "task/update", { taskId: ids[4], status: "completed" });
  await taskOf(mine, "task/cancel", { taskId: ids[2] });
  const listed = async (caller: Caller, status: string) =>
    ((await result(caller, "task/list", { agentDid: mine.did, status }))["tasks"] as Task[]).map(
      ({ taskId }) => taskId,
    );
  for (const caller of [mine, operator]) {
    expect(await listed(caller, "completed")).toEqual([ids[1], ids[4]]);
    expect(await listed(caller, "canceled")).toEqual([ids[2]]);
    expect(await listed(caller, "running")).toEqual([ids[0], ids[3], ids[5]]);
    expect(await listed(caller, "failed")).toEqual([]);
  }
  const first = await result(mine, "task/list", { status: "running", limit: 1 });
  expect((first["tasks"] as Task[]).map(({ taskId }) => taskId)).toEqual([ids[0]]);
  expect((await rpc(mine, "task/list", { status: "paused" })).error?.code).toBe(-32_602);
});
