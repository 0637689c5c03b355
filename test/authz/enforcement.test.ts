/** A tenant for which the graph decides, and whose writes do not reach it: nothing is made that nobody could reach. */
import { env } from "cloudflare:workers";
import { beforeAll, expect, test } from "vitest";
import type { Reply } from "../../src/call/reply.ts";
import { findUnwrittenTenants } from "../../src/authz/enforcement.ts";
import { reconcilePage } from "../../src/housekeeping/graph-maintenance.ts";
import { runtimeOf } from "../../src/runtime.ts";
import type { Log } from "../../src/telemetry/log.ts";
import { contextOf } from "../support/db-spy.ts";
import { type Agent, operator, register, result, rows } from "../support/world.ts";

let agent: Agent;
let other: Agent;
/** Dual write was on when the graph was set to decide, and is switched off later. */
const OFF = {
  ...env,
  FGAC_ENFORCE: "off",
  FGAC_TASKS_DUAL_WRITE: "off",
  FGAC_AGENT_API_KEYS_DUAL_WRITE: "off",
} as unknown as Env;

beforeAll(async () => {
  agent = await register();
  other = await register();
  await result(operator, "authz/enforce", { tenantId: agent.tenantId, enforce: true });
  await result(operator, "authz/enforce", { tenantId: other.tenantId, enforce: false });
});

async function call(by: Agent, method: string, params: unknown): Promise<Reply> {
  return runtimeOf(OFF).dispatcher.dispatch(await contextOf(by, env.DB, { settings: OFF }), "rpc", method, params);
}

test.each([
  ["task/create", "FGAC_TASKS_DUAL_WRITE", {}],
  ["apikey/create", "FGAC_AGENT_API_KEYS_DUAL_WRITE", { name: "k", scopes: ["tasks:read"] }],
])("%s is refused by the name of the setting %s, and nothing is made", async (method, setting, params) => {
  const before = await rows("SELECT task_id FROM tasks UNION ALL SELECT api_key_id FROM api_keys");
  const refused = await call(agent, method, { agentDid: agent.did, ...params });
  expect(refused).toMatchObject({ ok: false, code: "PROXY_CONFLICT" });
  expect(refused.ok ? "" : refused.message).toContain(setting);
  expect(await rows("SELECT task_id FROM tasks UNION ALL SELECT api_key_id FROM api_keys")).toEqual(before);
  expect(await call(other, method, { agentDid: other.did, ...params })).toMatchObject({ ok: true });
});

test("housekeeping names the tenant in the log, and a list of tenants counts for each", async () => {
  const logged: [string, unknown][] = [];
  const log: Log = {
    info() {},
    warn() {},
    error: (...line) => void logged.push(line as [string, unknown]),
    with: () => log,
  };
  const { config } = runtimeOf(OFF);
  await reconcilePage({ db: env.DB, config, now: Date.now, log });
  expect(logged).toEqual([
    ["authz.enforced_without_dual_write", expect.objectContaining({ tenants: agent.tenantId, count: 1 }) as unknown],
  ]);
  const both = { fgacTasksDualWrite: [agent.tenantId], fgacAgentApiKeysDualWrite: [agent.tenantId] };
  expect(await findUnwrittenTenants(env.DB, { ...config, ...both })).toEqual({ tenantIds: [], isAll: true });
});

test("housekeeping goes on page after page, and rests for nine times as long as a pass took", async () => {
  let nowMs = Date.now();
  const log: Log = { info() {}, warn() {}, error() {}, with: () => log };
  const deps = { db: env.DB, config: runtimeOf(env).config, now: () => nowMs, log };
  const begun = await reconcilePage(
    { ...deps, now: () => nowMs },
    { cursor: "tasks:", drift: 0, begunAtMs: nowMs - 60_000 },
  );
  expect(begun).toEqual({ cursor: null, drift: 0, restUntilMs: nowMs + 9 * 60_000 });
  nowMs += 9 * 60_000 - 1;
  expect(await reconcilePage(deps, begun)).toBe(begun);
  nowMs += 2;
  expect(await reconcilePage(deps, begun)).not.toBe(begun);
});
