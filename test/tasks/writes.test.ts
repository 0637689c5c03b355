/** Row and tuples together or neither, and every write batch under an authority that can be revoked begins with its fence. */
import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import type { Reply } from "../../src/call/reply.ts";
import { runtimeOf } from "../../src/runtime.ts";
import { contextOf, FENCE, watch } from "../support/db-spy.ts";
import {
  admit,
  type Agent,
  apiKeyOf,
  type Caller,
  createTask,
  type Device,
  type Holder,
  operator,
  pairDevice,
  register,
  rows,
  tuplesOf,
} from "../support/world.ts";

let agent: Agent;
let device: Device;
let key: Holder;

beforeAll(async () => {
  agent = await register();
  await admit(agent, "user:anne");
  device = await pairDevice(agent, ["tasks:read", "tasks:write"]);
  key = await apiKeyOf(agent, ["tasks:read", "tasks:write", "admin"]);
}, 60_000);

const CALLERS: [string, () => Caller][] = [
  ["an agent", () => agent],
  ["a device", () => device],
  ["a service account", () => key],
];

/** Each method that writes, with parameters that fit; made anew for each try. */
const WRITES: [string, (caller: Caller) => Promise<Record<string, unknown>>][] = [
  ["task/create", async () => ({ agentDid: agent.did, name: crypto.randomUUID() })],
  ["task/cancel", async (caller) => ({ taskId: (await createTask(caller, { agentDid: agent.did })).taskId })],
  ["task/interrupt", async (caller) => ({ taskId: (await createTask(caller, { agentDid: agent.did })).taskId })],
  [
    "task/update",
    async (caller) => ({
      taskId: (await createTask(caller, { agentDid: agent.did })).taskId,
      status: "completed",
      result: { n: 1 },
    }),
  ],
  ["task/delete", async (caller) => ({ taskId: (await createTask(caller, { agentDid: agent.did })).taskId })],
  [
    "task/share",
    async (caller) => ({
      taskId: (await createTask(caller, { agentDid: agent.did })).taskId,
      subject: "user:anne",
      relation: "viewer",
    }),
  ],
  [
    "task/unshare",
    async (caller) => ({
      taskId: (await createTask(caller, { agentDid: agent.did })).taskId,
      subject: "user:anne",
      relation: "viewer",
    }),
  ],
];
const ADMIN_WRITES: [string, () => Promise<Record<string, unknown>>][] = [
  ["apikey/create", async () => ({ agentDid: agent.did, name: "k", scopes: ["tasks:read"] })],
  ["apikey/delete", async () => ({ apiKeyId: (await apiKeyOf(agent, ["tasks:read"])).apiKeyId })],
];

type Tried = { reply: Reply; batches: string[][] };

async function attempt(
  caller: Caller,
  method: string,
  params: unknown,
  around: { ended?: boolean; fail?: number } = {},
): Promise<Tried> {
  const { db, trips } = watch(env.DB, () => around.fail ?? null);
  const ctx = await contextOf(caller, db, { ended: around.ended === true });
  const reply = await runtimeOf(env).dispatcher.dispatch(ctx, "rpc", method, params);
  return { reply, batches: trips.filter((trip) => trip.some((sql) => /^\s*(insert|update|delete)/i.test(sql))) };
}

/** Everything that these methods can change. */
const everything = async (): Promise<string> =>
  JSON.stringify(
    await Promise.all([
      rows("SELECT * FROM tasks ORDER BY task_id"),
      rows("SELECT api_key_id, key_hash FROM api_keys ORDER BY api_key_id"),
      rows("SELECT * FROM relationships ORDER BY 1, 2, 3, 4, 5, 6"),
      rows("SELECT id FROM audit WHERE action LIKE 'task%' OR action LIKE 'apikey%' ORDER BY id"),
      rows("SELECT * FROM authz_outbox"),
    ]),
  );

describe.each(CALLERS)("%s", (_name, caller) => {
  test.each(WRITES)(
    "%s writes one batch that begins with the fence, and nothing where the fence has risen",
    async (method, paramsFor) => {
      const params = await paramsFor(caller());
      const before = await everything();
      const ended = await attempt(caller(), method, params, { ended: true });
      expect(ended.reply).toMatchObject({ ok: false, code: "PROXY_AUTH_REVOKED" });
      expect(await everything()).toBe(before);
      const { reply, batches } = await attempt(caller(), method, params);
      expect(reply).toMatchObject({ ok: true });
      expect(batches).toHaveLength(1);
      expect(batches[0]?.[0]).toBe(FENCE);
    },
  );

  test.each(WRITES)("%s is undone whole, whichever of its statements fails", async (method, paramsFor) => {
    const params = await paramsFor(caller());
    const before = await everything();
    let statements = 1;
    for (let fail = 0; fail < statements; fail += 1) {
      const { reply, batches } = await attempt(caller(), method, params, { fail });
      statements = batches[0]?.length ?? 0;
      expect(reply).toMatchObject({ ok: false, code: "PROXY_AUTH_DEPENDENCY_UNAVAILABLE" });
      expect(await everything()).toBe(before);
    }
    expect(statements).toBeGreaterThan(1);
  });
});

describe("an agent's keys", () => {
  test.each(ADMIN_WRITES)(
    "%s writes batches that begin with the fence, and nothing where the fence has risen",
    async (method, paramsFor) => {
      const params = await paramsFor();
      const before = await everything();
      expect((await attempt(agent, method, params, { ended: true })).reply).toMatchObject({
        ok: false,
        code: "PROXY_AUTH_REVOKED",
      });
      expect(await everything()).toBe(before);
      const { reply, batches } = await attempt(agent, method, params);
      expect(reply).toMatchObject({ ok: true });
      for (const batch of batches) expect(batch[0]).toBe(FENCE);
    },
  );

  test.each(ADMIN_WRITES)("%s is undone whole, whichever of its statements fails", async (method, paramsFor) => {
    const params = await paramsFor();
    const before = await everything();
    for (let fail = 0; fail < 4; fail += 1) {
      expect((await attempt(agent, method, params, { fail })).reply).toMatchObject({ ok: false });
      expect(await everything()).toBe(before);
    }
  });
});

describe("the operator", () => {
  test("is above every authority and writes without a fence", async () => {
    const { reply, batches } = await attempt(operator, "task/create", { agentDid: agent.did });
    expect(reply.ok).toBe(true);
    expect(batches[0]).not.toContain(FENCE);
  });
});

describe("while the flag is off", () => {
  test("a task has its creator and no tuple, and is decided by creator and owner", async () => {
    const settings = {
      ...env,
      FGAC_TASKS_DUAL_WRITE: "off",
      FGAC_AGENT_API_KEYS_DUAL_WRITE: "off",
      FGAC_ENFORCE: "off",
    } as unknown as Env;
    const call = async (method: string, params: unknown): Promise<Reply> =>
      runtimeOf(settings).dispatcher.dispatch(await contextOf(agent, env.DB, { settings }), "rpc", method, params);
    const made = await call("task/create", { agentDid: agent.did, name: "off" });
    const task = made.ok ? (made.result as { task: { taskId: string; creatorUserId: string } }).task : null;
    expect(task?.creatorUserId).toBe(agent.ownerDid);
    expect(await tuplesOf(`task:${task?.taskId}`)).toEqual([]);
    expect(await call("task/get", { taskName: "off" })).toMatchObject({ ok: true });
    const on = await call("task/get", { taskName: "missing" });
    const graph = runtimeOf(env).dispatcher.dispatch(await contextOf(agent, env.DB), "rpc", "task/get", {
      taskName: "missing",
    });
    expect(on).toEqual(await graph);
    const keyMade = await call("apikey/create", { agentDid: agent.did, name: "off", scopes: ["tasks:read"] });
    const account = keyMade.ok ? (keyMade.result as { serviceAccountId: string }).serviceAccountId : "";
    expect(await rows("SELECT 1 FROM relationships WHERE subject_id = ?1", account)).toEqual([]);
    await env.DB.prepare("DELETE FROM tasks WHERE name = 'off'").run();
  });
});
