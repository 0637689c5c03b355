import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import { runtimeOf } from "../../src/runtime.ts";
import { registerExternalAgent } from "../../src/authz/external-agents.ts";
import {
  type Agent,
  apiKeyOf,
  createTask,
  type Holder,
  operator,
  register,
  result,
  rpcResponse,
  type Task,
  tuplesOf,
} from "../support/world.ts";
import { contextOf, readsOf } from "../support/db-spy.ts";

let agent: Agent;
let sibling: Agent;
let key: Holder;
const own: Task[] = [];
const theirs: Task[] = [];

const idsOf = (answer: Record<string, unknown>): string[] => (answer["tasks"] as Task[]).map(({ taskId }) => taskId);

beforeAll(async () => {
  agent = await register();
  sibling = await register({ ownerDid: agent.ownerDid, tenantId: agent.tenantId });
  key = await apiKeyOf(agent, ["tasks:read", "tasks:write"]);
  for (let i = 0; i < 5; i += 1) {
    own.push(await createTask(key, { agentDid: agent.did }));
    theirs.push(await createTask(sibling, { agentDid: sibling.did }));
  }
}, 60_000);

describe("a list", () => {
  test("shows what the caller may read, and pages through it without a gap or a repeat", async () => {
    const seen: string[] = [];
    let cursor: string | undefined;
    let pages = 0;
    do {
      const page = await result(key, "task/list", { limit: 2, ...(cursor === undefined ? {} : { cursor }) });
      expect(idsOf(page).length).toBeLessThanOrEqual(2);
      seen.push(...idsOf(page));
      cursor = page["nextCursor"] as string | undefined;
      pages += 1;
    } while (cursor !== undefined && pages < 10);
    expect(seen).toEqual(own.map(({ taskId }) => taskId).toSorted());
  });

  test("shows an agent what it is made to do, by whomever", async () => {
    expect(idsOf(await result(agent, "task/list", {}))).toEqual(own.map(({ taskId }) => taskId).toSorted());
  });

  test("of one agent shows its tasks alone", async () => {
    const mine = await createTask(sibling, { agentDid: sibling.did });
    theirs.push(mine);
    expect(idsOf(await result(sibling, "task/list", { agentDid: sibling.did }))).toEqual(
      theirs.map(({ taskId }) => taskId).toSorted(),
    );
    expect(idsOf(await result(sibling, "task/list", { agentDid: agent.did }))).toEqual([]);
  });

  test("costs three round trips at most", async () => {
    expect(await readsOf(agent, "task/list", { limit: 3 })).toBeLessThanOrEqual(3);
    expect(await readsOf(agent, "task/list", { agentDid: agent.did })).toBeLessThanOrEqual(3);
  });

  test("sees the caller's own writes by the bookmark that they answered with, and refuses what is none", async () => {
    const made = await rpcResponse(agent, "task/create", { agentDid: agent.did });
    const bookmark = made.headers.get("X-Sallyport-Bookmark") ?? "";
    const { task } = (await made.json<{ result: { task: Task } }>()).result;
    const listed = await rpcResponse(agent, "task/list", {}, { headers: { "X-Sallyport-Bookmark": bookmark } });
    expect(listed.headers.get("X-Sallyport-Bookmark")).toMatch(/^[0-9a-f-]{59}$/);
    expect(await listed.text()).toContain(task.taskId);
    for (const bad of ["x", "first-unconstrained", `${bookmark}0`]) {
      const refused = await rpcResponse(agent, "task/list", {}, { headers: { "X-Sallyport-Bookmark": bad } });
      expect(refused.status).toBe(400);
    }
  });
});

describe("an agent of an external registry", () => {
  test("gets its tuples at its first verified call, and the same at the next", async () => {
    const settings = { ...env, REGISTRY_URL: "https://registry.example" } as unknown as Env;
    const stranger: Agent = { ...agent, did: agent.did.replace(/.{26}$/, "01JDA00000000000000000000Z") };
    const ctx = await contextOf(stranger, env.DB, { settings });
    const grants = [
      `executor@agent:${stranger.did}`,
      `owner@user:${agent.ownerDid}`,
      `tenant@tenant:${agent.tenantId}`,
    ];
    expect(await registerExternalAgent(ctx)).toBe(true);
    expect(await tuplesOf(`agent:${stranger.did}`)).toEqual(grants.toSorted());
    expect(await registerExternalAgent(ctx)).toBe(true);
    expect(await tuplesOf(`agent:${stranger.did}`)).toEqual(grants.toSorted());
    const made = await runtimeOf(settings).dispatcher.dispatch(ctx, "rpc", "task/create", { agentDid: stranger.did });
    expect(made).toMatchObject({
      ok: true,
      result: { task: { tenantId: agent.tenantId, creatorUserId: agent.ownerDid } },
    });
  });

  test("that the operator placed in a tenant before joins that one, with its owner, and no other", async () => {
    const settings = { ...env, REGISTRY_URL: "https://registry.example" } as unknown as Env;
    const placed: Agent = { ...agent, did: agent.did.replace(/.{26}$/, "01JDA00000000000000000000X") };
    await result(operator, "authz/write", {
      writes: [{ object: `agent:${placed.did}`, relation: "tenant", subject: "tenant:acme" }],
    });
    const ctx = await contextOf(placed, env.DB, { settings });
    expect(await registerExternalAgent(ctx)).toBe(true);
    expect(await tuplesOf(`agent:${placed.did}`)).toEqual(
      [`executor@agent:${placed.did}`, `owner@user:${agent.ownerDid}`, "tenant@tenant:acme"].toSorted(),
    );
    expect(await tuplesOf("tenant:acme")).toEqual(
      [`member@agent:${placed.did}`, `member@user:${agent.ownerDid}`].toSorted(),
    );
    expect(await tuplesOf(`tenant:${agent.tenantId}`)).not.toContain(`member@agent:${placed.did}`);
    const made = await runtimeOf(settings).dispatcher.dispatch(ctx, "rpc", "task/create", { agentDid: placed.did });
    expect(made).toMatchObject({ ok: true, result: { task: { tenantId: "acme" } } });
  });

  test("whose authority has ended meanwhile gets none", async () => {
    const stranger: Agent = { ...agent, did: agent.did.replace(/.{26}$/, "01JDA00000000000000000000Y") };
    expect(await registerExternalAgent(await contextOf(stranger, env.DB, { ended: true }))).toBe(false);
    expect(await tuplesOf(`agent:${stranger.did}`)).toEqual([]);
  });
});
