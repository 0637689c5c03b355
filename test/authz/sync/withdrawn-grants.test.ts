/** What an operator took stays taken: nobody hands it on, and nothing gives it back by itself. */
import { env } from "cloudflare:workers";
import { beforeEach, describe, expect, test } from "vitest";
import { agentGrants } from "../../../src/authz/grants.ts";
import { registerExternalAgent } from "../../../src/authz/external-agents.ts";
import type { Tuple } from "../../../src/authz/engine/tuple.ts";
import type { Principal } from "../../../src/authority/principal.ts";
import { reconcile } from "../../../src/authz/sync/reconcile.ts";
import { runtimeOf } from "../../../src/runtime.ts";
import { newDid } from "../../../src/wire/did.ts";
import { newUlid } from "../../../src/wire/ulid.ts";
import { contextOf } from "../../support/db-spy.ts";
import {
  type Agent,
  apiKeyOf,
  codeOf,
  createTask,
  type Holder,
  operator,
  pairDevice,
  register,
  result,
  rows,
  tuplesOf,
} from "../../support/world.ts";

const newAgentDid = (): string => newDid("registry.example.com", "agent", newUlid(Date.now()));

let agent: Agent;
beforeEach(async () => {
  agent = await register();
});

const take = (...deletes: Tuple[]): Promise<unknown> => result(operator, "authz/write", { deletes });
const give = (...writes: Tuple[]): Promise<unknown> => result(operator, "authz/write", { writes });
const memberOf = (tenantId: string, subject: string): Tuple => ({
  object: `tenant:${tenantId}`,
  relation: "member",
  subject,
});
const executorOf = (did: string, subject: string): Tuple => ({ object: `agent:${did}`, relation: "executor", subject });
const repairAll = (): Promise<unknown> => result(operator, "authz/reconcile", { dryRun: false });
const grantsOfKey = async ({ serviceAccountId }: Holder): Promise<string[]> =>
  (
    await rows<{ grant: string }>(
      "SELECT object_type || '#' || relation AS grant FROM relationships WHERE subject_id = ?1 AND object_type <> 'task' ORDER BY 1",
      serviceAccountId,
    )
  ).map(({ grant }) => grant);
const wanted = (of: Agent) => ({ agentDid: of.did });

describe("an API key", () => {
  test("may do what its maker may: member and executor by default", async () => {
    const key = await apiKeyOf(agent, ["tasks:write"], agent);
    expect(await grantsOfKey(key)).toEqual(["agent#executor", "tenant#member"]);
    expect(await result(key, "task/create", wanted(agent))).toHaveProperty("task");
  });

  test("of an agent that was taken out makes no task, and reconciliation does not change that", async () => {
    const self = `agent:${agent.did}`;
    await take(memberOf(agent.tenantId, self), executorOf(agent.did, self));
    const key = await apiKeyOf(agent, ["tasks:write"], agent);
    expect(await grantsOfKey(key)).toEqual([]);
    expect(await codeOf(key, "task/create", wanted(agent))).toBe("PROXY_NOT_FOUND");
    await repairAll();
    expect(await grantsOfKey(key)).toEqual([]);
    expect(await result(operator, "authz/reconcile", { dryRun: true })).toMatchObject({ repaired: 0 });
  });

  test("of an agent that is no executor any more is a member, and no executor", async () => {
    await take(executorOf(agent.did, `agent:${agent.did}`));
    const key = await apiKeyOf(agent, ["tasks:write"], agent);
    expect(await grantsOfKey(key)).toEqual(["tenant#member"]);
    expect(await codeOf(key, "task/create", wanted(agent))).toBe("PROXY_NOT_FOUND");
  });

  test("of a key that lost its grants has none, nor has one that this makes", async () => {
    const first = await apiKeyOf(agent, ["tasks:write", "admin"], agent);
    const subject = `service_account:${first.serviceAccountId}`;
    await take(memberOf(agent.tenantId, subject), executorOf(agent.did, subject));
    const second = await apiKeyOf(agent, ["tasks:write", "admin"], first);
    const third = await apiKeyOf(agent, ["tasks:write"], second);
    expect([await grantsOfKey(second), await grantsOfKey(third)]).toEqual([[], []]);
  });

  test("of a device whose owner was taken out of the tenant has none", async () => {
    const device = await pairDevice(agent, ["admin", "tasks:write"]);
    await take(memberOf(agent.tenantId, `user:${agent.ownerDid}`));
    const key = await apiKeyOf(agent, ["tasks:write"], device);
    expect(await grantsOfKey(key)).toEqual([]);
  });

  test("of the operator has both, and what the operator gives later is given", async () => {
    await take(memberOf(agent.tenantId, `agent:${agent.did}`));
    expect(await grantsOfKey(await apiKeyOf(agent, ["tasks:write"], operator))).toHaveLength(2);
    const key = await apiKeyOf(agent, ["tasks:write"], agent);
    const subject = `service_account:${key.serviceAccountId}`;
    await give(memberOf(agent.tenantId, subject), executorOf(agent.did, subject));
    expect(await result(key, "task/create", wanted(agent))).toHaveProperty("task");
  });

  test("made where the graph does not decide has nothing that was taken from its maker, when the graph decides", async () => {
    await result(operator, "authz/enforce", { tenantId: agent.tenantId, enforce: false });
    await take(executorOf(agent.did, `agent:${agent.did}`));
    const key = await apiKeyOf(agent, ["tasks:write"], agent);
    await result(operator, "authz/enforce", { tenantId: agent.tenantId, enforce: true });
    expect(await codeOf(key, "task/create", wanted(agent))).toBe("PROXY_NOT_FOUND");
  });
});

describe("a person who was taken out of the tenant", () => {
  test("is not a member again by a new agent of theirs", async () => {
    await take(memberOf(agent.tenantId, `user:${agent.ownerDid}`));
    const next = await register({ ownerDid: agent.ownerDid, tenantId: agent.tenantId });
    expect(await tuplesOf(`tenant:${agent.tenantId}`)).not.toContain(`member@user:${agent.ownerDid}`);
    expect(await tuplesOf(`agent:${next.did}`)).toContain(`owner@user:${agent.ownerDid}`);
    await give(memberOf(agent.tenantId, `user:${agent.ownerDid}`));
    expect(await tuplesOf(`tenant:${agent.tenantId}`)).toContain(`member@user:${agent.ownerDid}`);
  });

  test("is not one by the first call of an agent of an external registry, nor is that agent", async () => {
    const ownerDid = newDid("registry.example.com", "human", newUlid(Date.now()));
    const [first, second] = [newAgentDid(), newAgentDid()];
    const tenantId = await joined(first, ownerDid);
    expect(await tuplesOf(`tenant:${tenantId}`)).toEqual([`member@agent:${first}`, `member@user:${ownerDid}`]);
    await take(memberOf(tenantId, `user:${ownerDid}`));
    expect(await joined(second, ownerDid)).toBe(tenantId);
    expect(await tuplesOf(`tenant:${tenantId}`)).toEqual([`member@agent:${first}`]);
  });
});

/** The first call of an agent of another registry. @returns the tenant that it is in afterwards */
async function joined(did: string, ownerDid: string): Promise<string> {
  const context = await contextOf(agent, env.DB);
  const principal = {
    kind: "agent",
    agentDid: did,
    ownerDid,
    jti: "j",
    expMs: 9e15,
    keyX: "x",
  } as unknown as Principal;
  expect(await registerExternalAgent({ ...context, principal })).toBe(true);
  const [tenant] = await rows<{ id: string }>(
    "SELECT subject_id AS id FROM relationships WHERE object_id = ?1 AND relation = 'tenant'",
    did,
  );
  return tenant?.id ?? "";
}

describe("reconciliation repairs exactly what it found missing", () => {
  test("a task whose parent was changed keeps the one it has", async () => {
    const other = await register({ ownerDid: agent.ownerDid, tenantId: agent.tenantId });
    const { taskId } = await createTask(agent, wanted(agent));
    await env.DB.prepare("UPDATE relationships SET subject_id = ?2 WHERE object_id = ?1 AND relation = 'parent'")
      .bind(taskId, other.did)
      .run();
    await env.DB.prepare("DELETE FROM relationships WHERE object_id = ?1 AND relation = 'tenant'").bind(taskId).run();
    expect(await repairAll()).toMatchObject({ repaired: 1 });
    expect((await tuplesOf(`task:${taskId}`)).filter((tuple) => tuple.startsWith("parent"))).toEqual([
      `parent@agent:${other.did}`,
    ]);
    expect(await tuplesOf(`task:${taskId}`)).toContain(`tenant@tenant:${agent.tenantId}`);
  });

  test("a task whose owner an operator took has none again, and is no drift", async () => {
    const { taskId } = await createTask(agent, wanted(agent));
    const owners = (await tuplesOf(`task:${taskId}`)).filter((tuple) => tuple.startsWith("owner@"));
    await take(
      ...owners.map((tuple) => ({
        object: `task:${taskId}`,
        relation: "owner",
        subject: tuple.slice("owner@".length),
      })),
    );
    expect(await repairAll()).toMatchObject({ repaired: 0 });
    expect((await tuplesOf(`task:${taskId}`)).filter((tuple) => tuple.startsWith("owner@"))).toEqual([]);
  });

  test("an agent that lost everything gets back what was not taken from it", async () => {
    const executor = executorOf(agent.did, `agent:${agent.did}`);
    await take(executor);
    await env.DB.prepare("DELETE FROM relationships WHERE object_id = ?1 OR subject_id = ?1").bind(agent.did).run();
    await repairAll();
    const { did, ownerDid, tenantId } = agent;
    const expected = agentGrants({ agentDid: did, ownerDid, tenantId }).filter(
      ({ object, relation }) => object === `agent:${did}` && relation !== "executor",
    );
    expect(await tuplesOf(`agent:${did}`)).toEqual(
      expected.map(({ relation, subject }) => `${relation}@${subject}`).toSorted(),
    );
  });

  test("tuples that are younger than the pass leaves alone stay, though older ones of the same object go", async () => {
    const ghost = "task:0000000000000000000000GH0S";
    await give({ object: ghost, relation: "viewer", subject: "user:anne" });
    await env.DB.prepare("UPDATE relationships SET created_at_ms = 1 WHERE object_id = ?1").bind(ghost.slice(5)).run();
    await give({ object: ghost, relation: "viewer", subject: "user:bob" });
    const context = await contextOf(operator, env.DB);
    await reconcile(
      { ...context, config: runtimeOf(env).config },
      { dryRun: false, cursor: null, graceMs: 600_000, tenants: { tasks: null, keys: null } },
    );
    expect(await tuplesOf(ghost)).toEqual(["viewer@user:bob"]);
  });
});
