/** What a list reads: its own rows, however many there are of others. */
import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import { runtimeOf } from "../../src/runtime.ts";
import {
  type Agent,
  apiKeyOf,
  type Caller,
  createTask,
  type Device,
  type Holder,
  pairDevice,
  register,
  type Task,
} from "../support/world.ts";
import { contextOf } from "../support/db-spy.ts";

let agent: Agent;
let device: Device;
let key: Holder;

beforeAll(async () => {
  agent = await register();
  device = await pairDevice(agent, ["tasks:read"]);
  key = await apiKeyOf(agent, ["tasks:read", "tasks:write"]);
  for (const by of [agent, key, agent, key]) {
    // oxlint-disable-next-line no-await-in-loop -- in order
    await createTask(by, { agentDid: agent.did });
  }
});

const CALLERS: [string, () => Caller, has: number][] = [
  ["an agent", () => agent, 4],
  ["a device", () => device, 4],
  ["a service account", () => key, 2],
];
const PAGES: [string, () => Record<string, unknown>][] = [
  ["a whole list", () => ({})],
  ["a list of one agent", () => ({ agentDid: agent.did })],
];

/** Makes a list and counts what its statements read. */
async function costOf(caller: Caller, params: unknown, settings: Env): Promise<{ ids: string[]; rowsRead: number }> {
  const asked: [sql: string, values: unknown[]][] = [];
  const db = new Proxy(env.DB, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name);
      if (name !== "withSession") return typeof member === "function" ? (member.bind(target) as unknown) : member;
      return () => {
        const session = target.withSession("first-primary");
        const prepare = (sql: string) => ({
          bind(...values: unknown[]) {
            asked.push([sql, values]);
            return session.prepare(sql).bind(...values);
          },
        });
        return { prepare, getBookmark: () => session.getBookmark() };
      };
    },
  });
  const ctx = await contextOf(caller, db, { settings });
  const reply = await runtimeOf(settings).dispatcher.dispatch(ctx, "rpc", "task/list", params);
  if (!reply.ok) throw new Error(reply.message);
  let rowsRead = 0;
  for (const [sql, values] of asked) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    const { meta } = await env.DB.prepare(sql)
      .bind(...values)
      .all();
    rowsRead += meta.rows_read;
  }
  return { ids: (reply.result as { tasks: Task[] }).tasks.map(({ taskId }) => taskId), rowsRead };
}

/** Tasks of others: of another tenant, and of another agent and owner in the same tenant. */
async function addOthers(): Promise<void> {
  const other = agent.did.replace(/.{26}$/, "01JDA00000000000000000000Z");
  const insert = `INSERT INTO tasks (task_id, tenant_id, agent_did, status, params, metadata, created_at_ms, updated_at_ms, creator_user_id)
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    SELECT ?3 || printf('%020d', i), ?1, ?2, 'running', '{}', '{}', 0, 0, 'did:cdi:x.example:human:01JDA00000000000000000000Z' FROM n`;
  await env.DB.batch([
    env.DB.prepare(insert).bind("another-tenant", other, "01JDA0"),
    env.DB.prepare(insert).bind(agent.tenantId, other, "01JDA1"),
    env.DB.prepare(
      `INSERT INTO tenant_enforcement (tenant_id, enforce, changed_at_ms)
       WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT 'tenant-' || i, 1, 0 FROM n`,
    ),
  ]);
}

describe.each([
  ["the graph decides", "on"],
  ["creators decide", "off"],
])("while %s", (_name, enforce) => {
  const settings = { ...env, FGAC_ENFORCE: enforce } as unknown as Env;

  test.each(CALLERS)("%s pays for its own tasks alone", async (_caller, caller, has) => {
    for (const [name, params] of PAGES) {
      // oxlint-disable-next-line no-await-in-loop -- what is counted must not overlap
      await env.DB.batch([
        env.DB.prepare("DELETE FROM tasks WHERE task_id < '01JDB'"),
        env.DB.prepare("DELETE FROM tenant_enforcement"),
      ]);
      // oxlint-disable-next-line no-await-in-loop
      const before = await costOf(caller(), params(), settings);
      expect(before.ids, name).toHaveLength(has);
      // oxlint-disable-next-line no-await-in-loop
      await addOthers();
      // oxlint-disable-next-line no-await-in-loop
      const after = await costOf(caller(), params(), settings);
      expect(after.ids, name).toEqual(before.ids);
      // Where one's own rows end, the next one is looked at.
      expect(after.rowsRead, name).toBeLessThanOrEqual(before.rowsRead + 5);
    }
  });
});

test.each(CALLERS)("a short page for %s reads no more of its own tasks than it shows", async (_caller, caller) => {
  const settings = { ...env, FGAC_ENFORCE: "off" } as unknown as Env;
  const own = await env.DB.prepare("SELECT COUNT(*) AS n FROM tasks WHERE agent_did = ?1").bind(agent.did).first("n");
  if (own === 4) {
    await env.DB.prepare(
      `INSERT INTO tasks (task_id, tenant_id, agent_did, status, params, metadata, created_at_ms, updated_at_ms,
         creator_user_id, creator_service_account_id)
       WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
       SELECT '01JDA2' || printf('%020d', i), ?1, ?2, 'running', '{}', '{}', 0, 0, IIF(i % 2, ?3, NULL), IIF(i % 2, NULL, ?4) FROM n`,
    )
      .bind(agent.tenantId, agent.did, agent.ownerDid, key.serviceAccountId)
      .run();
  }
  const { ids, rowsRead } = await costOf(caller(), { limit: 2 }, settings);
  expect(ids).toHaveLength(2);
  expect(rowsRead).toBeLessThan(100);
});
