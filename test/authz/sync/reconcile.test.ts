import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { agentGrants, apiKeyGrants } from "../../../src/authz/grants.ts";
import { reconcile } from "../../../src/authz/sync/reconcile.ts";
import type { Tuple } from "../../../src/authz/engine/tuple.ts";
import { type GraphDeps, type Progress, reconcilePage } from "../../../src/housekeeping/graph-maintenance.ts";
import { runtimeOf } from "../../../src/runtime.ts";
import {
  type Agent,
  apiKeyOf,
  codeOf,
  createTask,
  operator,
  register,
  result,
  rows,
  tuplesOf,
} from "../../support/world.ts";
import { silentLog } from "../../support/silent-log.ts";

const HOUR_MS = 3_600_000;

// The installation's own housekeeping reconciles too, in its first round, and would repair what a test expects broken.
beforeAll(() =>
  runInDurableObject(env.HOUSEKEEPING.getByName("main"), (_object, { storage }) =>
    storage.kv.put("turn reconciliation", { atMs: Date.now(), failures: 0, more: false }),
  ),
);

let agent: Agent;
beforeEach(async () => {
  agent = await register();
});

const depsFor = (settings: Record<string, string> = {}, laterMs = 0): GraphDeps => ({
  db: env.DB,
  config: runtimeOf({ ...env, ...settings }).config,
  now: () => Date.now() + laterMs,
  log: silentLog,
});

const byNobody = () => ({ ...depsFor(), principal: null, origin: null, requestId: null });

/** A task whose tuples were lost. */
async function bareTask(of: Agent): Promise<string> {
  const { taskId } = await createTask(of, { agentDid: of.did });
  await env.DB.prepare("DELETE FROM relationships WHERE object_id = ?1").bind(taskId).run();
  return taskId;
}

async function wholePass(deps: GraphDeps): Promise<void> {
  let progress: Progress | undefined;
  do {
    // oxlint-disable-next-line no-await-in-loop -- page after page
    progress = await reconcilePage(deps, progress);
  } while (progress.cursor !== null);
}

describe("housekeeping", () => {
  test("gives tasks their tuples back, and takes tuples without a row when they are old enough", async () => {
    const taskId = await bareTask(agent);
    await result(operator, "authz/write", {
      writes: [{ object: "task:early", relation: "viewer", subject: "user:anne" }],
    });
    await wholePass(depsFor());
    expect(await tuplesOf(`task:${taskId}`)).toContain(`owner@user:${agent.ownerDid}`);
    expect(await tuplesOf("task:early")).toEqual(["viewer@user:anne"]);
    await wholePass(depsFor({}, HOUR_MS));
    expect(await tuplesOf("task:early")).toEqual([]);
  });

  test("leaves tenants alone whose writes do not go to the graph", async () => {
    const other = await register();
    const [mine, theirs] = [await bareTask(agent), await bareTask(other)];
    await wholePass(depsFor({ FGAC_TASKS_DUAL_WRITE: "off", FGAC_ENFORCE: "off" }));
    expect(await tuplesOf(`task:${mine}`)).toEqual([]);
    await wholePass(
      depsFor({ FGAC_TASKS_DUAL_WRITE: agent.tenantId, FGAC_AGENT_API_KEYS_DUAL_WRITE: "off", FGAC_ENFORCE: "off" }),
    );
    expect(await tuplesOf(`task:${mine}`)).not.toEqual([]);
    expect(await tuplesOf(`task:${theirs}`)).toEqual([]);
  });

  test("does not give back what the operator took from a service account that is in the graph", async () => {
    const key = await apiKeyOf(agent, ["tasks:write"]);
    const executor = {
      object: `agent:${agent.did}`,
      relation: "executor",
      subject: `service_account:${key.serviceAccountId}`,
    };
    await result(operator, "authz/write", { deletes: [executor] });
    await wholePass(depsFor());
    expect(await tuplesOf(`agent:${agent.did}`)).not.toContain(`executor@${executor.subject}`);
  });
});

/** Everything that registering an agent grants. */
const grantsOf = ({ did, ownerDid, tenantId }: Agent) => agentGrants({ agentDid: did, ownerDid, tenantId });
const take = (deletes: Tuple[]): Promise<unknown> => result(operator, "authz/write", { deletes });
const give = (writes: Tuple[]): Promise<unknown> => result(operator, "authz/write", { writes });
/** Loses the grants of an agent as no operator would. */
async function lose({ did }: Agent): Promise<void> {
  await env.DB.prepare(
    `DELETE FROM relationships WHERE (object_type = 'agent' AND object_id = ?1 AND relation IN ('tenant', 'owner'))
       OR (subject_type = 'agent' AND subject_id = ?1 AND relation IN ('member', 'executor'))`,
  )
    .bind(did)
    .run();
}
const standing = async ({ did, tenantId }: Agent): Promise<string[]> => [
  ...(await tuplesOf(`agent:${did}`)),
  ...(await tuplesOf(`tenant:${tenantId}`)),
];

describe("what an operator took by hand stays taken", () => {
  test("from an agent that keeps a grant", async () => {
    const kept = `executor@agent:${agent.did}`;
    await take(grantsOf(agent).filter(({ relation }) => relation !== "executor"));
    await wholePass(depsFor());
    expect(await standing(agent)).toEqual([kept]);
    expect(await codeOf(agent, "task/create", { agentDid: agent.did })).toBe("PROXY_NOT_FOUND");
  });

  test("from an agent that keeps none", async () => {
    await take(grantsOf(agent));
    await wholePass(depsFor());
    expect(await standing(agent)).toEqual([]);
    expect(await result(operator, "authz/reconcile", { dryRun: true })).toMatchObject({ repaired: 0 });
  });

  test("from an API key that keeps none", async () => {
    const key = await apiKeyOf(agent, ["tasks:write"]);
    await take(apiKeyGrants({ serviceAccountId: key.serviceAccountId, agentDid: agent.did, tenantId: agent.tenantId }));
    await wholePass(depsFor());
    expect((await standing(agent)).join()).not.toContain(key.serviceAccountId);
    expect(await codeOf(key, "task/create", { agentDid: agent.did })).toBe("PROXY_NOT_FOUND");
  });

  test("until the operator gives one again: then what is lost is given back as before", async () => {
    const grants = grantsOf(agent);
    await take(grants);
    await give(grants.slice(0, 1));
    await wholePass(depsFor());
    expect(await standing(agent)).toEqual([`tenant@tenant:${agent.tenantId}`]);
    await give(grants);
    await lose(agent);
    await wholePass(depsFor());
    expect(await standing(agent)).toHaveLength(grants.length);
  });

  test("but an agent that is moved to another tenant in one call is not remembered as taken out", async () => {
    const tenant = { object: `agent:${agent.did}`, relation: "tenant" };
    await result(operator, "authz/write", {
      deletes: [{ ...tenant, subject: `tenant:${agent.tenantId}` }],
      writes: [{ ...tenant, subject: "tenant:elsewhere" }],
    });
    await lose(agent);
    await wholePass(depsFor());
    expect(await standing(agent)).toHaveLength(grantsOf(agent).length);
  });
});

describe("an agent that lost its grants", () => {
  test("gets all of them back, though others were granted on it and it was shared a task", async () => {
    const key = await apiKeyOf(agent, ["tasks:write"]);
    const { taskId } = await createTask(agent, { agentDid: agent.did });
    await give([
      { object: `agent:${agent.did}`, relation: "viewer", subject: "user:anne" },
      { object: `task:${taskId}`, relation: "viewer", subject: `agent:${agent.did}` },
    ]);
    await lose(agent);
    await wholePass(depsFor());
    expect(await tuplesOf(`agent:${agent.did}`)).toEqual(
      [
        `executor@agent:${agent.did}`,
        `executor@service_account:${key.serviceAccountId}`,
        `owner@user:${agent.ownerDid}`,
        `tenant@tenant:${agent.tenantId}`,
        "viewer@user:anne",
      ].toSorted(),
    );
    expect(await tuplesOf(`tenant:${agent.tenantId}`)).toContain(`member@agent:${agent.did}`);
  });
});

type Entry = { actor: string; details: string };
const entries = (): Promise<Entry[]> =>
  rows<Entry>("SELECT actor, details FROM audit WHERE action = 'authz.reconcile' ORDER BY rowid");

describe("what a reconciliation does is in the audit", () => {
  test("with whom it was done to, by the operator or by the proxy itself, and nothing where nothing was done", async () => {
    await wholePass(depsFor());
    const before = (await entries()).length;
    const tasks = [await bareTask(agent), await bareTask(agent)];
    await result(operator, "authz/reconcile", { dryRun: true });
    expect(await entries()).toHaveLength(before);
    await result(operator, "authz/reconcile", { dryRun: false });
    await result(operator, "authz/reconcile", { dryRun: false });
    await lose(agent);
    await wholePass(depsFor());
    await wholePass(depsFor());
    const made = (await entries()).slice(before);
    expect(made.map(({ actor, details }) => [actor, JSON.parse(details)])).toEqual([
      ["operator", { phase: "tasks", repaired: 2, removed: 0, of: tasks.toSorted().join(" ") }],
      ["sallyport", { phase: "agents", repaired: 1, removed: 0, of: agent.did }],
    ]);
  });

  test("or is not done", async () => {
    const taskId = await bareTask(agent);
    const noAudit = new Proxy(env.DB, {
      get(target, name) {
        if (name === "prepare") {
          return (sql: string) => target.prepare(sql.replace(`into "audit"`, "into no_such_table"));
        }
        const member: unknown = Reflect.get(target, name);
        return typeof member === "function" ? (member.bind(target) as unknown) : member;
      },
    });
    await expect(wholePass({ ...depsFor(), db: noAudit })).rejects.toThrow();
    expect(await tuplesOf(`task:${taskId}`)).toEqual([]);
  });
});

describe("a reconciliation", () => {
  test("can be stopped anywhere and resumed, and then has seen and done the same", async () => {
    const bare = [await bareTask(agent), await bareTask(agent), await bareTask(agent)];
    const options = { dryRun: true, graceMs: 0, tenants: { tasks: null, keys: null } };
    const whole = await reconcile(byNobody(), { ...options, cursor: null });
    const total = { scanned: 0, repaired: 0, removed: 0, unattributable: 0, drift: 0 };
    let cursor: string | null = null;
    let pages = 0;
    do {
      // oxlint-disable-next-line no-await-in-loop -- page after page
      const page: Awaited<ReturnType<typeof reconcile>> = await reconcile(byNobody(), { ...options, cursor, limit: 2 });
      for (const name of Object.keys(total) as (keyof typeof total)[]) total[name] += page[name];
      cursor = page.nextCursor ?? null;
      pages += 1;
    } while (cursor !== null && pages < 1_000);
    expect(total).toEqual(whole);
    expect(total.repaired).toBeGreaterThanOrEqual(bare.length);
    expect(pages).toBeGreaterThan(2);
  });

  test("refuses a cursor that is none", async () => {
    const options = { dryRun: true, graceMs: 0, tenants: { tasks: null, keys: null } };
    await expect(reconcile(byNobody(), { ...options, cursor: "elsewhere:1" })).rejects.toThrow(RangeError);
  });
});
