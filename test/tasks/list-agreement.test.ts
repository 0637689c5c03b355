/** A list and a look at one task are decided by the same rule, whatever is turned on where: tried on random worlds. */
import { env } from "cloudflare:workers";
import * as fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { type BatchItem, runBatch } from "../../src/database/batch.ts";
import { writeTuples } from "../../src/authz/store/tuples.ts";
import { runtimeOf } from "../../src/runtime.ts";
import { newUlid } from "../../src/wire/ulid.ts";
import {
  type Agent,
  apiKeyOf,
  type Caller,
  codeOf,
  createTask,
  type Device,
  operator,
  pairDevice,
  register,
  result,
  rows,
  type Task,
} from "../support/world.ts";
import { contextOf } from "../support/db-spy.ts";

const idsOf = (answer: Record<string, unknown>): string[] => (answer["tasks"] as Task[]).map(({ taskId }) => taskId);

describe("a list across tenants of which the graph decides for one", () => {
  let off: Agent;
  let on: Agent;

  beforeAll(async () => {
    off = await register();
    on = await register();
    await result(operator, "authz/enforce", { tenantId: off.tenantId, enforce: false });
  });

  test("shows a device nothing that was taken from its owner where the graph decides", async () => {
    const second = await register({ ownerDid: off.ownerDid, tenantId: on.tenantId });
    const device = await pairDevice(off, ["tasks:read"]);
    const { taskId } = await createTask(second, { agentDid: second.did, params: { secret: 1 } });
    expect(idsOf(await result(device, "task/list", {}))).toEqual([taskId]);
    const owner = `user:${off.ownerDid}`;
    await result(operator, "authz/write", {
      deletes: [
        { object: `tenant:${on.tenantId}`, relation: "member", subject: owner },
        { object: `task:${taskId}`, relation: "owner", subject: owner },
      ],
    });
    expect(await codeOf(device, "task/get", { taskId })).toBe("PROXY_NOT_FOUND");
    expect(idsOf(await result(device, "task/list", {}))).toEqual([]);
  });

  test("shows an agent nothing that the graph grants where it does not decide", async () => {
    const { taskId } = await createTask(off, { agentDid: off.did, params: { secret: 1 } });
    const subject = `agent:${on.did}`;
    await result(operator, "authz/write", {
      writes: [
        { object: `tenant:${off.tenantId}`, relation: "member", subject },
        { object: `task:${taskId}`, relation: "viewer", subject },
      ],
    });
    expect(await codeOf(on, "task/get", { taskId })).toBe("PROXY_NOT_FOUND");
    expect(idsOf(await result(on, "task/list", {}))).toEqual([]);
  });
});

/** A world: for three tenants what decides, who is a member besides, and tasks with who made them and whom they are shared with. */
const arbitraryWorld = fc.record({
  byDefault: fc.boolean(),
  enforce: fc.array(fc.constantFrom(null, 0, 1), { minLength: 3, maxLength: 3 }),
  /** Memberships that an operator gave or took, by tenant and subject. */
  members: fc.array(fc.record({ tenant: fc.nat(2), subject: fc.nat(6), stands: fc.boolean() }), { maxLength: 6 }),
  tasks: fc.array(
    fc.record({
      agent: fc.nat(3),
      /** A tenant other than its agent's: the agent has been moved since. */
      tenant: fc.option(fc.nat(2), { freq: 4 }),
      creator: fc.option(fc.nat(2)),
      owners: fc.uniqueArray(fc.nat(6), { maxLength: 2 }),
      shares: fc.uniqueArray(fc.nat(6), { maxLength: 2 }),
      hasTuples: fc.boolean(),
    }),
    { minLength: 1, maxLength: 8 },
  ),
  limit: fc.integer({ min: 1, max: 4 }),
  /** Whose tasks alone are listed. */
  of: fc.option(fc.nat(3)),
});
type World = typeof arbitraryWorld extends fc.Arbitrary<infer W> ? W : never;

describe("in any world", () => {
  let agents: Agent[];
  let callers: [string, Caller, subject: string][];
  let tenants: string[];
  let devices: Device[];

  beforeAll(async () => {
    const one = await register();
    // Two of one owner in two tenants, another owner beside the first, and one alone.
    const two = await register({ ownerDid: one.ownerDid, tenantId: `${one.tenantId}-two` });
    const beside = await register({ tenantId: one.tenantId });
    const alone = await register();
    agents = [one, two, beside, alone];
    tenants = [one.tenantId, two.tenantId, alone.tenantId];
    devices = [await pairDevice(one, ["tasks:read"]), await pairDevice(alone, ["tasks:read"])];
    const key = await apiKeyOf(one, ["tasks:read", "tasks:write"]);
    callers = [
      ["an agent", one, `agent:${one.did}`],
      ["an agent of the same owner elsewhere", two, `agent:${two.did}`],
      ["an agent beside it", beside, `agent:${beside.did}`],
      ["an agent alone", alone, `agent:${alone.did}`],
      ["a device", devices[0] as Device, `user:${one.ownerDid}`],
      ["a device of somebody else", devices[1] as Device, `user:${alone.ownerDid}`],
      ["a service account", key, `service_account:${key.serviceAccountId}`],
    ];
  });

  test("a list holds, page after page, what the caller may get, in order and once", async () => {
    await fc.assert(
      fc.asyncProperty(arbitraryWorld, async (world) => {
        const ids = await build(world);
        const settings = world.byDefault ? env : ({ ...env, FGAC_ENFORCE: "off" } as unknown as Env);
        const { dispatch } = runtimeOf(settings).dispatcher;
        const of = world.of === null ? null : (agents[world.of]?.did ?? null);
        for (const [name, caller] of callers) {
          // oxlint-disable-next-line no-await-in-loop -- one caller after the other
          const ctx = await contextOf(caller, env.DB, { settings });
          // oxlint-disable-next-line no-await-in-loop
          const looked = await Promise.all(ids.map((taskId) => dispatch(ctx, "rpc", "task/get", { taskId })));
          const expected = looked
            .flatMap((reply) => (reply.ok ? [(reply.result as { task: Task }).task] : []))
            .filter(({ agentDid }) => of === null || agentDid === of)
            .map(({ taskId }) => taskId);
          const listed: string[] = [];
          let cursor: string | undefined;
          let pages = 0;
          do {
            // oxlint-disable-next-line no-await-in-loop -- page after page
            const reply = await dispatch(ctx, "rpc", "task/list", {
              limit: world.limit,
              ...(of === null ? {} : { agentDid: of }),
              ...(cursor === undefined ? {} : { cursor }),
            });
            if (!reply.ok) throw new Error(`${name}: ${reply.message}`);
            const page = reply.result as { tasks: Task[]; nextCursor?: string };
            expect(page.tasks.length).toBeLessThanOrEqual(world.limit);
            listed.push(...page.tasks.map(({ taskId }) => taskId));
            cursor = page.nextCursor;
            pages += 1;
          } while (cursor !== undefined && pages < 30);
          expect(listed, name).toEqual(expected.toSorted());
        }
      }),
      { numRuns: 25 },
    );
  }, 120_000);

  async function build({ enforce, members, tasks }: World): Promise<string[]> {
    const nowMs = Date.now();
    const subjectOf = (index: number): string => callers[index]?.[2] ?? "";
    const memberOf = (subject: string, tenant: string) => ({ object: `tenant:${tenant}`, relation: "member", subject });
    const homes = agents.flatMap((agent) => [
      memberOf(`agent:${agent.did}`, agent.tenantId),
      memberOf(`user:${agent.ownerDid}`, agent.tenantId),
    ]);
    await runBatch(env.DB, [
      env.DB.prepare("DELETE FROM tasks"),
      env.DB.prepare("DELETE FROM relationships WHERE object_type IN ('task', 'tenant')"),
      env.DB.prepare("DELETE FROM tenant_enforcement"),
      ...writeTuples([...homes, memberOf(subjectOf(6), tenants[0] ?? "")], { nowMs }),
    ]);
    const ids: string[] = [];
    const statements: BatchItem[] = members.map(({ tenant, subject, stands }) =>
      stands
        ? env.DB.prepare("INSERT OR IGNORE INTO relationships VALUES ('tenant', ?1, 'member', ?2, ?3, '', 0)").bind(
            tenants[tenant],
            ...partsOf(subjectOf(subject)),
          )
        : env.DB.prepare(
            `DELETE FROM relationships WHERE object_type = 'tenant' AND object_id = ?1 AND subject_type = ?2 AND subject_id = ?3`,
          ).bind(tenants[tenant], ...partsOf(subjectOf(subject))),
    );
    for (const [index, setting] of enforce.entries()) {
      if (setting === null) continue;
      statements.push(
        env.DB.prepare("INSERT INTO tenant_enforcement VALUES (?1, ?2, 0)").bind(tenants[index], setting),
      );
    }
    for (const task of tasks) {
      const agent = agents[task.agent] as Agent;
      const taskId = newUlid(nowMs);
      const tenant = task.tenant === null ? agent.tenantId : (tenants[task.tenant] ?? "");
      const user = task.creator === null ? null : ([agent.ownerDid, agents[3]?.ownerDid][task.creator] ?? null);
      const account = task.creator === 2 ? partsOf(subjectOf(6))[1] : null;
      ids.push(taskId);
      statements.push(
        env.DB.prepare(
          `INSERT INTO tasks (task_id, tenant_id, agent_did, status, params, metadata, created_at_ms, updated_at_ms,
             creator_user_id, creator_service_account_id) VALUES (?1, ?2, ?3, 'running', '{}', '{}', 0, 0, ?4, ?5)`,
        ).bind(taskId, tenant, agent.did, user, account),
      );
      if (!task.hasTuples) continue;
      const object = `task:${taskId}`;
      statements.push(
        ...writeTuples(
          [
            { object, relation: "tenant", subject: `tenant:${tenant}` },
            { object, relation: "parent", subject: `agent:${agent.did}` },
            ...task.owners.map((owner) => ({ object, relation: "owner", subject: subjectOf(owner) })),
            ...task.shares.map((with_) => ({ object, relation: "viewer", subject: subjectOf(with_) })),
          ],
          { nowMs },
        ),
      );
    }
    await runBatch(env.DB, statements);
    expect(await rows("SELECT task_id FROM tasks")).toHaveLength(tasks.length);
    return ids;
  }
});

function partsOf(subject: string): [type: string, id: string] {
  const colon = subject.indexOf(":");
  return [subject.slice(0, colon), subject.slice(colon + 1)];
}
