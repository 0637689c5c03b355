/** A batch under an authority: whole or not at all, fence first, and why it was undone. */
import { env } from "cloudflare:workers";
import { eq, sql } from "drizzle-orm";
import { expect, test } from "vitest";
import { commitFenced, type Fence, mostChanged, runBatch, violates } from "../../src/database/batch.ts";
import { type FencingToken, raiseForStatement, raiseStatements } from "../../src/database/fencing.ts";
import { guard } from "../../src/database/guard.ts";
import { execute, readAll, readFirst } from "../../src/database/read.ts";
import { authorityEpochs, crlState, fence, tasks, tenantEnforcement } from "../../src/database/schema.ts";
import { query } from "../../src/database/statement.ts";
import { ProxyError } from "../../src/wire/problem.ts";

const under = (...tokens: FencingToken[]): Fence => ({ assertCurrent() {}, fence: () => tokens });
const epochOf = async (authority: string): Promise<number | undefined> =>
  (await readFirst(env.DB, query.select().from(authorityEpochs).where(eq(authorityEpochs.authority, authority))))
    ?.epoch;
const enforce = (tenantId: string) => query.insert(tenantEnforcement).values({ tenantId, enforce: 1, changedAtMs: 1 });
const tenants = async (): Promise<string[]> =>
  (await readAll(env.DB, query.select({ id: tenantEnforcement.tenantId }).from(tenantEnforcement))).map(({ id }) => id);
const task = (taskId: string, name: string | null) =>
  query.insert(tasks).values({
    taskId,
    tenantId: "t",
    name,
    agentDid: "did:cdi:registry.example.com:agent:01K00000000000000000000001" as never,
    status: "running",
    params: "{}",
    metadata: "{}",
    createdAtMs: 1,
    updatedAtMs: 1,
  });

test("fencing: an authority is raised and never lowered, as many in one statement as an agent has", async () => {
  const many = Array.from({ length: 5_001 }, (_, at) => ({ authority: `device:x/${at}`, epoch: 2 }));
  const statements = raiseStatements(many);
  expect(statements).toHaveLength(2);
  await runBatch(env.DB, statements);
  await runBatch(env.DB, raiseStatements([{ authority: "device:x/0", epoch: 1 }]));
  expect([await epochOf("device:x/0"), await epochOf("device:x/5000")]).toEqual([2, 2]);
  await execute(
    env.DB,
    raiseForStatement(
      sql`SELECT 'of:' || ${authorityEpochs.authority}, 7 FROM ${authorityEpochs} WHERE ${eq(authorityEpochs.authority, "device:x/0")}`,
    ),
  );
  expect(await epochOf("of:device:x/0")).toBe(7);
});

test("fencing: nothing to raise is no statement", () => {
  expect(raiseStatements([])).toEqual([]);
});

test("commitFenced: commits under the current epoch, and answers what each statement came to", async () => {
  await runBatch(env.DB, raiseStatements([{ authority: "agent:a", epoch: 3 }]));
  const committed = await commitFenced(env.DB, under({ authority: "agent:a", epoch: 3 }), [
    enforce("committed"),
    query.select({ enforce: tenantEnforcement.enforce }).from(tenantEnforcement),
    env.DB.prepare("SELECT 1 AS one"),
  ]);
  if (!committed.ok) throw new Error("undone");
  const [inserted, selected, prepared] = committed.value;
  expect(inserted.meta.changes).toBe(1);
  expect(selected).toEqual([{ enforce: 1 }]);
  expect(prepared.results).toEqual([{ one: 1 }]);
});

test("commitFenced: undone whole once the authority was raised above the epoch it was begun with", async () => {
  await runBatch(env.DB, raiseStatements([{ authority: "agent:b", epoch: 3 }]));
  const undone = await commitFenced(env.DB, under({ authority: "agent:b", epoch: 2 }), [enforce("fenced")]);
  expect(undone).toEqual({ ok: false, error: "authority-ended" });
  expect(await tenants()).not.toContain("fenced");
  expect(await readAll(env.DB, query.select().from(fence))).toEqual([]);
});

test("commitFenced: a missing row is epoch 0", async () => {
  expect((await commitFenced(env.DB, under({ authority: "agent:new", epoch: 0 }), [enforce("new")])).ok).toBe(true);
});

test("commitFenced: looks at the authority before it asks D1 anything", async () => {
  const ended: Fence = {
    assertCurrent() {
      throw new ProxyError("PROXY_AUTH_REVOKED");
    },
    fence: () => [],
  };
  const nowhere = new Proxy(env.DB, {
    get() {
      throw new Error("D1 was asked");
    },
  });
  await expect(commitFenced(nowhere, ended, [enforce("never")])).rejects.toMatchObject({ code: "PROXY_AUTH_REVOKED" });
});

test("commitFenced: undone whole where a guard does not hold at commit", async () => {
  const holds = guard(sql`EXISTS (SELECT 1 FROM ${crlState} WHERE ${eq(crlState.revision, "seen")})`);
  expect(await commitFenced(env.DB, null, [holds, enforce("guarded")])).toEqual({
    ok: false,
    error: { guard: "registry_is_as_read" },
  });
  expect(await tenants()).not.toContain("guarded");
  await execute(env.DB, query.insert(crlState).values({ id: 1, revision: "seen", lastIat: 1 }));
  expect((await commitFenced(env.DB, null, [holds, enforce("guarded")])).ok).toBe(true);
});

test("commitFenced: says which columns have to be unique", async () => {
  await execute(env.DB, task("one", "name"));
  const byName = await commitFenced(env.DB, null, [enforce("unique"), task("two", "name")]);
  if (byName.ok) throw new Error("committed");
  expect(violates(byName.error, tasks.name, tasks.tenantId)).toBe(true);
  expect(violates(byName.error, tasks.taskId)).toBe(false);
  const byId = await commitFenced(env.DB, null, [task("one", null)]);
  if (byId.ok) throw new Error("committed");
  expect(violates(byId.error, tasks.taskId)).toBe(true);
  expect(await tenants()).not.toContain("unique");
});

test("commitFenced: any other failure of D1 is a 503, and its cause is D1's own error without bound values", async () => {
  const failing = commitFenced(env.DB, null, [
    query.insert(crlState).values({ id: 2, revision: "s3cret", lastIat: 1 }),
  ]);
  const error = await failing.then(
    () => null,
    (thrown: unknown) => thrown as ProxyError,
  );
  expect(error).toMatchObject({ code: "PROXY_AUTH_DEPENDENCY_UNAVAILABLE" });
  expect(String(error?.cause)).not.toContain("s3cret");
});

test("runBatch: says how many rows the statement changed that changed most", async () => {
  await runBatch(env.DB, [task("m1", null), task("m2", null)]);
  const deleted = await runBatch(env.DB, [
    query.delete(tasks).where(eq(tasks.taskId, "m1")),
    query.delete(tasks).where(eq(tasks.tenantId, "t")),
  ]);
  expect(mostChanged(deleted)).toBeGreaterThan(1);
});

test("readFirst: null where there is no row", async () => {
  expect(await readFirst(env.DB, query.select().from(tasks).where(eq(tasks.taskId, "none")))).toBeNull();
});
