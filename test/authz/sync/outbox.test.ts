/** The outbox of a remote graph when calls overlap: what was taken back is not granted again, and nothing else is held up. */
import { env } from "cloudflare:workers";
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { drainOutbox } from "../../../src/authz/sync/drain.ts";
import { createRemoteGraph } from "../../../src/authz/sync/service.ts";
import type { GraphChange } from "../../../src/authz/sync/remote-call.ts";
import type { Reply } from "../../../src/call/reply.ts";
import { runtimeOf } from "../../../src/runtime.ts";
import type { Log } from "../../../src/telemetry/log.ts";
import { contextOf } from "../../support/db-spy.ts";
import { admit, type Agent, type Caller, operator, register, rows } from "../../support/world.ts";

type Body = {
  principal: string | null;
  resource: { type: string; selector: string };
  relation?: string;
  operation?: string;
  version: number;
};
type Told = Pick<GraphChange, "op" | "object" | "principal">;

let agent: Agent;
let settings: Env;
let told: Told[];
/** What the service holds, and the versions that it was told. */
let granted: Set<string>;
let versions: number[];
/** What the service answers; it may take its time, and other calls may come meanwhile. */
let answer: (change: Told) => number | Promise<number>;
let clockMs: number;
const now = (): number => Date.now() + clockMs;
let logged: [string, unknown][];
const log: Log = {
  info() {},
  warn: (event, fields) => void logged.push([event, fields]),
  error: (event, fields) => void logged.push([event, fields]),
  with: () => log,
};

beforeAll(async () => {
  agent = await register();
  await admit(agent, "user:amy", "user:bob", "user:carl", "user:eve");
}, 60_000);

beforeEach(async () => {
  // Another environment has another isolate's memory: a breaker of its own.
  settings = { ...env, AUTHZ_GRAPH: "https://authz.example" } as unknown as Env;
  told = [];
  granted = new Set();
  versions = [];
  logged = [];
  answer = () => 200;
  clockMs = 0;
  vi.stubGlobal("fetch", async (url: string, init: RequestInit): Promise<Response> => {
    const { principal, resource, relation, operation, version } = JSON.parse(init.body as string) as Body;
    const op = url.slice(url.lastIndexOf("/") + 1);
    const object = `${resource.type}:${resource.selector}`;
    if (op !== "register" && op !== "deregister") {
      // A parent reads what anybody stands on; a key may be made by everybody.
      const allowed =
        operation === "create_task" ||
        [...granted].some(
          (each) =>
            each.startsWith(`${object}#`) && (operation === "read" || each === `${object}#${operation}@${principal}`),
        );
      return Response.json({ allowed });
    }
    const change: Told = { op, object, principal };
    told.push(change);
    versions.push(version);
    const status = await answer(change);
    if (status === 200) {
      if (op === "register") granted.add(`${object}#${relation ?? "owner"}@${principal}`);
      for (const each of granted) {
        if (
          op === "deregister" &&
          (principal === null
            ? each.startsWith(`${object}#`)
            : each === `${object}#${relation ?? "owner"}@${principal}`)
        )
          granted.delete(each);
      }
    }
    return new Response(null, { status });
  });
  await env.DB.prepare("DELETE FROM authz_outbox").run();
});
afterEach(() => {
  vi.unstubAllGlobals();
});

async function call(caller: Caller, method: string, params: unknown): Promise<Reply> {
  const context = { ...(await contextOf(caller, env.DB, { settings })), now, log };
  return runtimeOf(settings).dispatcher.dispatch(context, "rpc", method, params);
}

async function made(): Promise<string> {
  const reply = await call(operator, "task/create", { agentDid: agent.did });
  if (!reply.ok) throw new Error(JSON.stringify(reply));
  return (reply.result as { task: { taskId: string } }).task.taskId;
}

const share = (taskId: string, subject: string): Promise<Reply> =>
  call(operator, "task/share", { taskId, subject, relation: "viewer" });
const unshare = (taskId: string, subject: string): Promise<Reply> =>
  call(operator, "task/unshare", { taskId, subject, relation: "viewer" });

const waiting = (): Promise<Told[]> =>
  rows("SELECT op, object, principal FROM authz_outbox WHERE accepted_at_ms IS NULL ORDER BY rowid");

/** A round of housekeeping. */
async function drain(): Promise<void> {
  await drainOutbox({ db: env.DB, graph: service(), now, log });
}

function service() {
  return createRemoteGraph({
    url: "https://authz.example",
    settings: { breakerFailures: 5, breakerWindowMs: 60_000, breakerOpenMs: 30_000 },
    fetch: (url, init) => fetch(url, init),
    now,
    pause: async () => {},
    random: () => 0,
    log,
    count() {},
  });
}

/** The last thing that the service was told of a principal. */
const lastOf = (object: string, principal: string): string | undefined =>
  told.findLast((each) => each.object === object && (each.principal === principal || each.principal === null))?.op;

describe("a share that is taken back while others are sent", () => {
  test("is not granted again by a round that had read it before", async () => {
    const [slow, revoked] = [await made(), await made()];
    answer = () => 500;
    await share(slow, "user:amy");
    await share(revoked, "user:bob");
    clockMs += 20_000;
    told = [];
    answer = async ({ principal }) => {
      if (principal !== "user:amy") return 200;
      // This one took longer than the round holds what it has read.
      clockMs += 60_000;
      answer = () => 200;
      expect(await unshare(revoked, "user:bob")).toMatchObject({ ok: true });
      return 200;
    };
    await drain();
    expect(lastOf(`task:${revoked}`, "user:bob")).toBe("deregister");
    expect(told.filter(({ principal }) => principal === "user:bob")).toHaveLength(1);
    expect(await waiting()).toEqual([]);
  });
});

describe("a task that is deleted while its owners are still registered", () => {
  test("is not registered again by the call that made it", async () => {
    answer = async ({ op, object }) => {
      if (op === "deregister") return 200;
      clockMs += 60_000;
      answer = () => 200;
      expect(await call(operator, "task/delete", { taskId: object.slice("task:".length) })).toMatchObject({ ok: true });
      return 200;
    };
    await call(agent, "task/create", { agentDid: agent.did });
    expect(told.map(({ op, principal }) => [op, principal])).toEqual([
      ["register", `agent:${agent.did}`],
      ["deregister", null],
    ]);
    expect(await waiting()).toEqual([]);
  });
});

const UNAVAILABLE = (taskId: string) => ({ ok: false, code: "AUTHZ_UNAVAILABLE", data: { taskId } });

describe("a share or its end", () => {
  test("that the service was not told is no success, and stands in the outbox", async () => {
    const taskId = await made();
    expect(await share(taskId, "user:bob")).toMatchObject({ ok: true });
    answer = () => 500;
    expect(await share(taskId, "user:amy")).toMatchObject(UNAVAILABLE(taskId));
    expect(await unshare(taskId, "user:bob")).toMatchObject(UNAVAILABLE(taskId));
    expect(await waiting()).toEqual([
      { op: "register", object: `task:${taskId}`, principal: "user:amy" },
      { op: "deregister", object: `task:${taskId}`, principal: "user:bob" },
    ]);
  });

  test("waits behind an earlier share that waits, and says so", async () => {
    const taskId = await made();
    answer = () => 500;
    await share(taskId, "user:amy");
    answer = () => 200;
    told = [];
    expect(await share(taskId, "user:carl")).toMatchObject(UNAVAILABLE(taskId));
    expect(told).toEqual([]);
    clockMs += 20_000;
    await drain();
    await drain();
    expect(told.map(({ principal }) => principal)).toEqual(["user:amy", "user:carl"]);
    expect(await waiting()).toEqual([]);
  });

  test("is taken back at once, whatever else of the task waits", async () => {
    const taskId = await made();
    await share(taskId, "user:bob");
    answer = () => 500;
    await share(taskId, "user:amy");
    answer = () => 200;
    told = [];
    expect(await unshare(taskId, "user:bob")).toMatchObject({ ok: true });
    expect(told).toEqual([{ op: "deregister", object: `task:${taskId}`, principal: "user:bob" }]);
  });

  test("is not answered with success while the share itself is on its way, and is told after it", async () => {
    const taskId = await made();
    answer = () => 500;
    await share(taskId, "user:bob");
    clockMs += 20_000;
    told = [];
    answer = async () => {
      answer = () => 200;
      expect(await unshare(taskId, "user:bob")).toMatchObject(UNAVAILABLE(taskId));
      return 200;
    };
    await drain();
    await drain();
    expect(told.map(({ op }) => op)).toEqual(["register", "deregister"]);
    expect(await waiting()).toEqual([]);
  });

  test("may be repeated: only the last word is kept and told", async () => {
    const taskId = await made();
    await share(taskId, "user:bob");
    answer = () => 500;
    for (const each of [unshare, share, unshare, unshare]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expect(await each(taskId, "user:bob")).toMatchObject(UNAVAILABLE(taskId));
    }
    expect(await waiting()).toEqual([{ op: "deregister", object: `task:${taskId}`, principal: "user:bob" }]);
    answer = () => 200;
    expect(await unshare(taskId, "user:bob")).toMatchObject({ ok: true });
    expect(await waiting()).toEqual([]);
  });
});

/** A service that refuses one subject for good. */
const refusing =
  (subject: string, status = 400) =>
  ({ principal }: Told): number =>
    principal === subject ? status : 200;
const attempts = (): Promise<{ attempts: number }[]> => rows("SELECT attempts FROM authz_outbox");
const parkedRows = (): Promise<unknown[]> => rows("SELECT 1 FROM authz_outbox WHERE parked_at_ms IS NOT NULL");

describe("a share that the service refuses for good", () => {
  test("is kept, logged and reported, and tried once an hour", async () => {
    const taskId = await made();
    answer = refusing("user:eve");
    expect(await share(taskId, "user:eve")).toMatchObject(UNAVAILABLE(taskId));
    expect(logged.filter(([event]) => event === "authz.outbox_parked")).toHaveLength(1);
    expect(await call(operator, "authz/reconcile", { dryRun: true })).toMatchObject({ result: { parked: 1 } });
    told = [];
    clockMs += 1_800_000;
    await drain();
    expect(told).toEqual([]);
    clockMs += 1_900_000;
    await drain();
    expect(told).toHaveLength(1);
    expect(await parkedRows()).toHaveLength(1);
    clockMs += 3_700_000;
    answer = () => 200;
    await drain();
    expect(await waiting()).toEqual([]);
    expect(await call(operator, "authz/reconcile", { dryRun: true })).not.toHaveProperty("result.parked");
  });

  test("holds up no later share of the task, and no end of one", async () => {
    const taskId = await made();
    await share(taskId, "user:bob");
    answer = refusing("user:eve");
    await share(taskId, "user:eve");
    told = [];
    expect(await share(taskId, "user:carl")).toMatchObject({ ok: true });
    expect(await unshare(taskId, "user:bob")).toMatchObject({ ok: true });
    expect(told.map(({ op, principal }) => [op, principal])).toEqual([
      ["register", "user:carl"],
      ["deregister", "user:bob"],
    ]);
  });

  test("is forgotten when it is taken back", async () => {
    const taskId = await made();
    answer = refusing("user:eve");
    await share(taskId, "user:eve");
    answer = () => 200;
    expect(await unshare(taskId, "user:eve")).toMatchObject({ ok: true });
    expect(await waiting()).toEqual([]);
  });

  test.each([408, 429])("is not one that it answers with %i: that is tried again soon", async (status) => {
    const taskId = await made();
    answer = refusing("user:eve", status);
    await share(taskId, "user:eve");
    expect(await parkedRows()).toEqual([]);
    clockMs += 20_000;
    answer = () => 200;
    await drain();
    expect(await waiting()).toEqual([]);
  });
});

describe("many rows that fail", () => {
  test("do not starve a fresh one", async () => {
    await env.DB.prepare(
      `INSERT INTO authz_outbox (id, op, object, principal, created_at_ms, due_at_ms)
       WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
       SELECT 'bad-' || i, 'deregister', 'task:bad' || i, 'user:eve', 0, ?1 FROM n`,
    )
      .bind(now())
      .run();
    answer = refusing("user:eve", 500);
    await drain();
    const fresh = await made();
    answer = ({ principal }) => (principal === "user:eve" || principal === "user:carl" ? 500 : 200);
    await share(fresh, "user:carl");
    answer = refusing("user:eve", 500);
    told = [];
    for (let round = 0; round < 2; round += 1) {
      clockMs += 15_000;
      // oxlint-disable-next-line no-await-in-loop -- round after round
      await drain();
    }
    expect(told).toContainEqual({ op: "register", object: `task:${fresh}`, principal: "user:carl" });
    expect((await attempts()).every((row) => row.attempts > 0)).toBe(true);
  });
});

/** Rows that a database reads and writes for what is done with it, and the statements. */
function metered(): { db: D1Database; costs: () => { statements: number; read: number; most: number } } {
  let statements = 0;
  let read = 0;
  let most = 0;
  const count = (result: D1Result): void => {
    statements += 1;
    read += result.meta.rows_read;
    most = Math.max(most, result.meta.rows_read);
  };
  const raw = new WeakMap<D1PreparedStatement, D1PreparedStatement>();
  const wrapped = (statement: D1PreparedStatement): D1PreparedStatement => {
    const proxy = new Proxy(statement, {
      get(target, name) {
        if (name === "bind") return (...values: unknown[]) => wrapped(target.bind(...values));
        const member: unknown = Reflect.get(target, name);
        if (typeof member !== "function") return member;
        return async (...values: unknown[]) => {
          const result = (await Reflect.apply(member, target, values)) as D1Result;
          if (name === "all" || name === "run") count(result);
          return result;
        };
      },
    });
    raw.set(proxy, statement);
    return proxy;
  };
  const around = (target: D1Database | D1DatabaseSession) => ({
    prepare: (sql: string) => wrapped(target.prepare(sql)),
    async batch(list: D1PreparedStatement[]) {
      const results = await target.batch(list.map((each) => raw.get(each) ?? each));
      for (const result of results) count(result);
      return results;
    },
  });
  const db = { ...around(env.DB), withSession: (constraint: string) => around(env.DB.withSession(constraint)) };
  return { db: db as unknown as D1Database, costs: () => ({ statements, read, most }) };
}

async function insertRows(howMany: number, columns: { op: string; object: string; principal: string; tenant: string }) {
  await env.DB.prepare(
    `INSERT INTO authz_outbox (id, op, object, principal, relation, tenant_id, version, created_at_ms, due_at_ms)
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
     SELECT ?3 || '-' || ?6 || '-' || i, ?2, ?3, ?4 || i, 'executor', ?6, 1, 0, ?5 FROM n`,
  )
    .bind(howMany, columns.op, columns.object, columns.principal, now() - 1_000, columns.tenant)
    .run();
}

describe("many rows of one object", () => {
  const ofOneAgent = { op: "deregister", object: "agent:revoked", principal: "service_account:", tenant: "one" };

  test("cost a round the same, whether there are 4,000, 8,000 or 16,000", async () => {
    const costs: { statements: number; read: number; most: number }[] = [];
    for (const howMany of [4_000, 8_000, 16_000]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await env.DB.prepare("DELETE FROM authz_outbox").run();
      // oxlint-disable-next-line no-await-in-loop -- the same
      await insertRows(howMany, ofOneAgent);
      told = [];
      const { db, costs: of } = metered();
      // oxlint-disable-next-line no-await-in-loop -- the same
      await drainOutbox({ db, graph: service(), now, log });
      expect(told).toHaveLength(80);
      costs.push(of());
    }
    const [small, , large] = costs;
    expect(large?.statements).toBe(small?.statements);
    // What is pending is counted up to 10,000, which reads each row thrice; everything else is the same.
    expect((large?.read ?? 0) - (small?.read ?? 0)).toBeLessThanOrEqual(3 * 6_000 + 500);
    expect(large?.most).toBeLessThanOrEqual(3 * 10_000 + 100);
  });

  test("cost a row so many statements and rows until all of them are sent", async () => {
    await insertRows(400, ofOneAgent);
    const { db, costs } = metered();
    for (let round = 0; round < 6; round += 1) {
      // oxlint-disable-next-line no-await-in-loop -- round after round
      await drainOutbox({ db, graph: service(), now, log });
    }
    expect(new Set(told.map(({ principal }) => principal)).size).toBe(400);
    expect(told).toHaveLength(400);
    expect(costs().statements).toBeLessThan(400 * 6);
    expect(costs().read).toBeLessThan(400 * 60);
  });

  test("that are registers go in their order, many in a round, and none before the first", async () => {
    await insertRows(150, { ...ofOneAgent, op: "register" });
    answer = ({ principal }) => (principal === "service_account:1" ? 503 : 200);
    await drain();
    expect(new Set(told.map(({ principal }) => principal))).toEqual(new Set(["service_account:1"]));
    told = [];
    answer = () => 200;
    clockMs += 20_000;
    for (let round = 0; round < 200 && told.length < 150; round += 1) {
      // oxlint-disable-next-line no-await-in-loop -- round after round
      await drain();
    }
    expect(told.map(({ principal }) => principal)).toEqual(
      Array.from({ length: 150 }, (_, i) => `service_account:${i + 1}`),
    );
  });

  test("hold up no other tenant, and removals go before grants", async () => {
    await insertRows(2_000, ofOneAgent);
    await insertRows(2_000, { ...ofOneAgent, op: "register", object: "agent:busy", tenant: "two" });
    await insertRows(3, { ...ofOneAgent, object: "agent:other", tenant: "three" });
    await insertRows(1, { ...ofOneAgent, op: "register", object: "agent:quiet", tenant: "four" });
    await drain();
    expect(told.filter(({ object }) => object === "agent:other")).toHaveLength(3);
    expect(told.filter(({ object }) => object === "agent:quiet")).toHaveLength(1);
    const ops = told.map(({ op }) => op);
    expect(ops.lastIndexOf("deregister")).toBeLessThan(ops.indexOf("register"));
  });

  test("take turns by tenant: with more tenants than a round has rows each is served", async () => {
    for (let tenant = 0; tenant < 130; tenant += 1) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await insertRows(1, { ...ofOneAgent, op: "register", object: `agent:of-${tenant}`, tenant: `t${tenant}` });
    }
    for (let round = 0; round < 4; round += 1) {
      // oxlint-disable-next-line no-await-in-loop -- round after round
      await drain();
    }
    expect(new Set(told.map(({ object }) => object)).size).toBe(130);
  });
});

describe("a removal", () => {
  test("is not done by a 404, as during a deploy: it is tried until the service says that the grant is gone", async () => {
    const taskId = await made();
    await share(taskId, "user:bob");
    answer = () => 404;
    expect(await unshare(taskId, "user:bob")).toMatchObject(UNAVAILABLE(taskId));
    expect(await waiting()).toHaveLength(1);
    clockMs += 60_000;
    answer = () => 200;
    await drain();
    expect([...granted]).not.toContain(`task:${taskId}#viewer@user:bob`);
    expect(await waiting()).toEqual([]);
  });

  test("of a share whose register lands late is made again", async () => {
    const taskId = await made();
    answer = () => 503;
    await share(taskId, "user:bob");
    answer = () => 200;
    expect(await unshare(taskId, "user:bob")).toMatchObject({ ok: true });
    // The register that timed out is carried out by the service now.
    granted.add(`task:${taskId}#viewer@user:bob`);
    told = [];
    clockMs += 15_000;
    await drain();
    expect(told).toEqual([{ op: "deregister", object: `task:${taskId}`, principal: "user:bob" }]);
    expect([...granted]).not.toContain(`task:${taskId}#viewer@user:bob`);
    clockMs += 60_000;
    await drain();
    clockMs += 60_000;
    await drain();
    expect(await rows("SELECT 1 FROM authz_outbox")).toEqual([]);
    expect(told).toHaveLength(1);
  });

  test("is no concern any more once the task is shared again", async () => {
    const taskId = await made();
    await share(taskId, "user:bob");
    await unshare(taskId, "user:bob");
    expect(await share(taskId, "user:bob")).toMatchObject({ ok: true });
    expect(await rows("SELECT 1 FROM authz_outbox")).toEqual([]);
  });

  test("carries a version above that of every change before it", async () => {
    const taskId = await made();
    await share(taskId, "user:bob");
    await unshare(taskId, "user:bob");
    await share(taskId, "user:bob");
    expect(versions).toEqual(versions.toSorted((a, b) => a - b));
    expect(new Set(versions).size).toBe(4);
  });
});
