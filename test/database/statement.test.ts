/** Statements are values until they are given a database, and their text is written from the schema. */
import { env } from "cloudflare:workers";
import { eq, gte, sql } from "drizzle-orm";
import { expect, test } from "vitest";
import { excluded, names, type RowOf, selected } from "../../src/database/columns.ts";
import { auditRetention, authorityEpochs, crlState } from "../../src/database/schema.ts";
import { bind, preparedStatement, query, type Statement } from "../../src/database/statement.ts";

async function run<T>(statement: Statement<T>): Promise<T> {
  const { on, result } = bind(env.DB, statement);
  return result(await on.all());
}

const raise = (authority: string, epoch: number) =>
  query
    .insert(authorityEpochs)
    .values({ authority, epoch })
    .onConflictDoUpdate({
      target: authorityEpochs.authority,
      set: { epoch: sql`MAX(${authorityEpochs.epoch}, ${excluded(authorityEpochs.epoch)})` },
    });

test("statement: runs on the database that it is bound to, rows under the names of the schema", async () => {
  const { meta } = await run(raise("agent:one", 3));
  expect(meta.changes).toBe(1);
  await run(raise("agent:one", 3));
  expect(await run(query.select().from(authorityEpochs).where(eq(authorityEpochs.authority, "agent:one")))).toEqual([
    { authority: "agent:one", epoch: 3 },
  ]);
});

test("statement: runs on a session as on the database", async () => {
  await run(raise("agent:session", 1));
  const session = env.DB.withSession("first-primary");
  const { on, result } = bind(session, query.select({ epoch: authorityEpochs.epoch }).from(authorityEpochs).limit(1));
  expect(result(await on.all())).toHaveLength(1);
  expect(session.getBookmark()).not.toBeNull();
});

test("statement: one that awaits itself is refused, so that no error repeats bound values", async () => {
  await expect(query.select().from(authorityEpochs).get()).rejects.toThrow("never by itself");
  await expect(query.delete(authorityEpochs)).rejects.toThrow("never by itself");
});

test("statement: a prepared one is written once and takes its values each time", async () => {
  let built = 0;
  const above = preparedStatement(() => {
    built += 1;
    return query
      .select({ authority: authorityEpochs.authority })
      .from(authorityEpochs)
      .where(gte(authorityEpochs.epoch, sql.placeholder("epoch")));
  });
  await run(raise("agent:nine", 9));
  expect(await run(above({ epoch: 9 }))).toEqual([{ authority: "agent:nine" }]);
  expect(await run(above({ epoch: 10 }))).toEqual([]);
  expect(built).toBe(1);
});

test("statement: sql by hand names columns by the schema and returns rows under its keys", async () => {
  const shown = { deleteBeforeMs: auditRetention.deleteBeforeMs, twice: sql<number>`${auditRetention.id} * 2` };
  const [inserted] = await run(
    query.all<RowOf<typeof shown>>(
      sql`INSERT INTO ${auditRetention} (${names(auditRetention.id, auditRetention.deleteBeforeMs)}) VALUES (1, ${7})
        ON CONFLICT (${names(auditRetention.id)}) DO UPDATE SET ${names(auditRetention.deleteBeforeMs)} = ${excluded(auditRetention.deleteBeforeMs)}
        RETURNING ${selected(shown)}`,
    ),
  );
  expect(inserted).toEqual({ deleteBeforeMs: 7, twice: 2 });
});

test("statement: a join that returns two columns of one name is refused rather than mixed up", async () => {
  await run(query.insert(crlState).values({ id: 1, revision: "r", lastIat: 5 }));
  await run(
    query
      .insert(auditRetention)
      .values({ id: 1, deleteBeforeMs: 7 })
      .onConflictDoUpdate({ target: auditRetention.id, set: { deleteBeforeMs: 7 } }),
  );
  const joined = query
    .select({ one: crlState.id, revision: crlState.revision, other: auditRetention.id })
    .from(crlState)
    .innerJoin(auditRetention, eq(auditRetention.id, crlState.id));
  await expect(run(joined)).rejects.toThrow("two columns of a statement have one name");
  const named = query
    .select({ one: crlState.id, other: sql<number>`${auditRetention.id}`.as("other") })
    .from(crlState)
    .innerJoin(auditRetention, eq(auditRetention.id, crlState.id));
  expect(await run(named)).toEqual([{ one: 1, other: 1 }]);
});
