/** Tasks and keys beside a remote graph: what it hears, what stands when it hears nothing, and what the outbox makes good. */
import { env } from "cloudflare:workers";
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { drainOutbox } from "../../../src/authz/sync/drain.ts";
import { createRemoteGraph } from "../../../src/authz/sync/service.ts";
import type { Reply } from "../../../src/call/reply.ts";
import { runtimeOf } from "../../../src/runtime.ts";
import { contextOf } from "../../support/db-spy.ts";
import { type Agent, type Caller, operator, register, rows } from "../../support/world.ts";
import { silentLog } from "../../support/silent-log.ts";

type Told = { op: string; principal: string | null; object: string };

let agent: Agent;
let settings: Env;
let told: Told[];
/** What the service answers; the last answer goes on for ever. */
let answers: (number | "reset")[];

beforeAll(async () => {
  agent = await register();
}, 60_000);

beforeEach(async () => {
  // Another environment has another isolate's memory: a breaker of its own.
  settings = { ...env, AUTHZ_GRAPH: "https://authz.example" } as unknown as Env;
  told = [];
  answers = [200];
  vi.stubGlobal("fetch", async (url: string, init: RequestInit): Promise<Response> => {
    const body = JSON.parse(init.body as string) as {
      principal: string | null;
      resource: { type: string; selector: string };
      operation?: string;
    };
    if (isReadBack(body)) return Response.json({ allowed: false });
    told.push({
      op: url.slice(url.lastIndexOf("/") + 1),
      principal: body.principal,
      object: `${body.resource.type}:${body.resource.selector}`,
    });
    const answer = answers.length > 1 ? answers.shift() : answers[0];
    if (answer === "reset") throw new TypeError("connection reset");
    if (answer === 200 && body.operation !== undefined) return Response.json({ allowed: true });
    return new Response(null, { status: answer ?? 200 });
  });
  await env.DB.prepare("DELETE FROM authz_outbox").run();
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

/** A removal is read back by its relation, or by whether the agent may still read the task. */
function isReadBack({ principal, operation }: { principal: string | null; operation?: string }): boolean {
  if (operation === "read") return told.at(-1)?.op === "deregister" && principal === `agent:${agent.did}`;
  return operation !== undefined && operation !== "create_task";
}

async function call(caller: Caller, method: string, params: unknown): Promise<Reply> {
  return runtimeOf(settings).dispatcher.dispatch(await contextOf(caller, env.DB, { settings }), "rpc", method, params);
}

async function made(caller: Caller = operator): Promise<string> {
  const reply = await call(caller, "task/create", { agentDid: agent.did });
  if (!reply.ok) throw new Error(JSON.stringify(reply));
  return (reply.result as { task: { taskId: string } }).task.taskId;
}

const outbox = (): Promise<{ op: string; object: string; principal: string | null }[]> =>
  rows("SELECT op, object, principal FROM authz_outbox WHERE accepted_at_ms IS NULL ORDER BY rowid");

/** A round of housekeeping, as late as every row is due. */
async function drain(): Promise<void> {
  await env.DB.prepare("UPDATE authz_outbox SET due_at_ms = 0, lease_until_ms = 0").run();
  const graph = createRemoteGraph({
    url: "https://authz.example",
    settings: { breakerFailures: 5, breakerWindowMs: 60_000, breakerOpenMs: 30_000 },
    fetch: (url, init) => fetch(url, init),
    now: Date.now,
    pause: async () => {},
    random: () => 0,
    log: silentLog,
    count() {},
  });
  await drainOutbox({ db: env.DB, graph, now: Date.now, log: silentLog });
}

describe("a task", () => {
  test("is told to the graph after its commit, each owner, and leaves nothing in the outbox", async () => {
    const taskId = await made(agent);
    expect(told).toEqual([
      { op: "check", principal: `agent:${agent.did}`, object: `agent:${agent.did}` },
      { op: "register", principal: `agent:${agent.did}`, object: `task:${taskId}` },
      { op: "register", principal: `user:${agent.ownerDid}`, object: `task:${taskId}` },
    ]);
    expect(await outbox()).toEqual([]);
  });

  test.each([502, 503, 504, "reset"] as const)("is told again after %s", async (answer) => {
    answers = [answer, 200];
    const taskId = await made();
    expect(told.map(({ op }) => op)).toEqual(["register", "register"]);
    expect(await rows("SELECT 1 FROM tasks WHERE task_id = ?1", taskId)).toHaveLength(1);
    expect(await outbox()).toEqual([]);
  });

  test("stands when the graph is out of reach, is named in the error, and the outbox makes it good", async () => {
    answers = [503];
    const reply = await call(operator, "task/create", { agentDid: agent.did, name: "kept" });
    const [row] = await rows<{ task_id: string }>("SELECT task_id FROM tasks WHERE name = 'kept'");
    expect(reply).toMatchObject({ ok: false, code: "AUTHZ_UNAVAILABLE", data: { taskId: row?.task_id } });
    expect(told).toHaveLength(4);
    expect(await outbox()).toEqual([{ op: "register", object: `task:${row?.task_id}`, principal: null }]);
    answers = [200];
    await drain();
    expect(told).toHaveLength(5);
    expect(await outbox()).toEqual([]);
  });

  test("is not told again after a refusal for good; the outbox keeps it", async () => {
    answers = [400];
    expect(await call(operator, "task/create", { agentDid: agent.did })).toMatchObject({
      ok: false,
      code: "AUTHZ_UNAVAILABLE",
    });
    expect(told).toHaveLength(1);
    expect(await outbox()).toHaveLength(1);
  });

  test("that is deleted is deregistered after its row, and by the outbox where the graph is down", async () => {
    const [first, second] = [await made(), await made()];
    told = [];
    expect(await call(operator, "task/delete", { taskId: first })).toMatchObject({ ok: true });
    expect(told).toEqual([{ op: "deregister", principal: null, object: `task:${first}` }]);
    expect(await outbox()).toEqual([]);

    told = [];
    answers = [503];
    expect(await call(operator, "task/delete", { taskId: second })).toMatchObject({ ok: true });
    expect(told).toHaveLength(4);
    expect(await rows("SELECT 1 FROM tasks WHERE task_id = ?1", second)).toEqual([]);
    expect(await outbox()).toEqual([{ op: "deregister", object: `task:${second}`, principal: null }]);
    answers = [200];
    await drain();
    expect(await outbox()).toEqual([]);
  });

  test("that is not there is the native answer, with the graph up or down, and the graph is not told", async () => {
    const missing = { taskName: "nobody made this" };
    const native = await runtimeOf(env).dispatcher.dispatch(
      await contextOf(operator, env.DB),
      "rpc",
      "task/delete",
      missing,
    );
    expect(native).toMatchObject({ ok: false, code: "PROXY_NOT_FOUND" });
    expect(await call(operator, "task/delete", missing)).toEqual(native);
    answers = [503];
    expect(await call(operator, "task/delete", missing)).toEqual(native);
    expect(told).toEqual([]);
  });

  test("whose registration still waits is deregistered behind it, and not registered any more", async () => {
    answers = [503];
    await call(operator, "task/create", { agentDid: agent.did, name: "short-lived" });
    const [row] = await rows<{ task_id: string }>("SELECT task_id FROM tasks WHERE name = 'short-lived'");
    answers = [200];
    told = [];
    await call(operator, "task/delete", { taskId: row?.task_id });
    await drain();
    expect(told).toEqual([{ op: "deregister", principal: null, object: `task:${row?.task_id}` }]);
    expect(await outbox()).toEqual([]);
  });

  test("is granted to nobody while the graph is down", async () => {
    const taskId = await made(agent);
    answers = [503];
    expect(await call(agent, "task/get", { taskId })).toMatchObject({ ok: false, code: "AUTHZ_UNAVAILABLE" });
    answers = [403];
    const denied = await call(agent, "task/get", { taskId });
    expect(denied).toMatchObject({ ok: false, code: "PROXY_NOT_FOUND" });
    expect(await call(agent, "task/get", { taskId: "01JDA00000000000000000000A" })).toEqual(denied);
    answers = [200];
    expect(await call(agent, "task/get", { taskId })).toMatchObject({ ok: true });
  });

  test("of another tenant stays unknown, though the graph says yes to everything", async () => {
    const stranger = await register();
    const taskId = await made(agent);
    expect(await call(stranger, "task/get", { taskId })).toMatchObject({ ok: false, code: "PROXY_NOT_FOUND" });
    expect(await call(stranger, "task/create", { agentDid: agent.did })).toMatchObject({
      ok: false,
      code: "PROXY_NOT_FOUND",
    });
  });
});

const wanted = () => ({ agentDid: agent.did, name: "remote", scopes: ["tasks:read"] });

describe("an API key", () => {
  test("is granted first, and is not made where the grant fails", async () => {
    const before = await rows("SELECT api_key_id FROM api_keys");
    answers = [503];
    expect(await call(agent, "apikey/create", wanted())).toMatchObject({ ok: false, code: "AUTHZ_UNAVAILABLE" });
    expect(await rows("SELECT api_key_id FROM api_keys")).toEqual(before);
    expect(await outbox()).toEqual([]);
    answers = [200];
    expect(await call(agent, "apikey/create", wanted())).toMatchObject({ ok: true });
  });

  test("is deleted though the graph is down; the outbox takes the grant back", async () => {
    const reply = await call(agent, "apikey/create", wanted());
    const { apiKeyId, serviceAccountId } = (reply.ok ? reply.result : {}) as {
      apiKeyId: string;
      serviceAccountId: string;
    };
    answers = [503];
    expect(await call(agent, "apikey/delete", { apiKeyId })).toMatchObject({ ok: true });
    expect(await rows("SELECT 1 FROM api_keys WHERE api_key_id = ?1", apiKeyId)).toEqual([]);
    expect(await outbox()).toEqual([
      { op: "deregister", object: `agent:${agent.did}`, principal: `service_account:${serviceAccountId}` },
    ]);
  });
});

describe("two rounds of housekeeping at the same moment", () => {
  test("send each change once", async () => {
    answers = [503];
    await call(operator, "task/create", { agentDid: agent.did });
    answers = [200];
    told = [];
    await env.DB.prepare("UPDATE authz_outbox SET due_at_ms = 0").run();
    const graph = () =>
      createRemoteGraph({
        url: "https://authz.example",
        settings: { breakerFailures: 5, breakerWindowMs: 60_000, breakerOpenMs: 30_000 },
        fetch: (url, init) => fetch(url, init),
        now: Date.now,
        pause: async () => {},
        random: () => 0,
        log: silentLog,
        count() {},
      });
    const deps = { db: env.DB, now: Date.now, log: silentLog };
    await Promise.all([drainOutbox({ ...deps, graph: graph() }), drainOutbox({ ...deps, graph: graph() })]);
    expect(told).toHaveLength(1);
  });
});
