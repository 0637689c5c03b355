/** Grants that end by themselves: when, kept beside their tuples. An expired one is none in the same moment, by SQLite's clock. */
import { type SQL, sql } from "drizzle-orm";
import { alias, type SQLiteColumn } from "drizzle-orm/sqlite-core";
import { names } from "../../database/columns.ts";
import { runBatch } from "../../database/batch.ts";
import { readAll } from "../../database/read.ts";
import { relationshipExpiries, relationships } from "../../database/schema.ts";
import { query, type Statement } from "../../database/statement.ts";
import { parseTuple, type Tuple } from "../engine/tuple.ts";

/** Expired grants that one call removes. */
export const EXPIRED_AT_ONCE = 500;

const x = alias(relationshipExpiries, "x");
const KEY = names(
  relationshipExpiries.objectType,
  relationshipExpiries.objectId,
  relationshipExpiries.relation,
  relationshipExpiries.subjectType,
  relationshipExpiries.subjectId,
  relationshipExpiries.subjectRelation,
);
const NOW_MS = sql`CAST(unixepoch('subsec') * 1000 AS INTEGER)`;

type Row = Record<
  "objectType" | "objectId" | "relation" | "subjectType" | "subjectId" | "subjectRelation",
  SQLiteColumn
>;

/** @returns whether a row of the relationships stands at this moment, as an SQL condition */
export function isUnexpired(e: Row): SQL {
  return sql`NOT EXISTS (SELECT 1 FROM ${relationshipExpiries} AS x WHERE ${x.objectType} = ${e.objectType}
    AND ${x.objectId} = ${e.objectId} AND ${x.relation} = ${e.relation} AND ${x.subjectType} = ${e.subjectType}
    AND ${x.subjectId} = ${e.subjectId} AND ${x.subjectRelation} = ${e.subjectRelation} AND ${x.expiresAtMs} <= ${NOW_MS})`;
}

/** @returns the statement that says when a tuple ends; null: not by itself. For the batch that writes the tuple */
export function expiryStatement(tuple: Tuple, expiresAtMs: number | null): Statement<D1Result> {
  const parsed = parseTuple(tuple);
  if (!parsed.ok) throw new RangeError(parsed.error);
  const { object, relation, subject } = parsed.value;
  const key = sql`${object.type}, ${object.id}, ${relation}, ${subject.type}, ${subject.id}, ${subject.relation}`;
  if (expiresAtMs === null)
    return query.run(sql`DELETE FROM ${relationshipExpiries} WHERE (${KEY}) IN (VALUES (${key}))`);
  return query.run(sql`INSERT INTO ${relationshipExpiries} (${KEY}, ${names(relationshipExpiries.expiresAtMs)})
    VALUES (${key}, ${expiresAtMs}) ON CONFLICT (${KEY}) DO UPDATE SET ${names(relationshipExpiries.expiresAtMs)} = ${expiresAtMs}`);
}

/** @returns the statement that lets tuples stand for good; for a batch that writes them without an end */
export function withoutExpiry(tuples: readonly Tuple[]): Statement<D1Result> {
  return query.run(sql`DELETE FROM ${relationshipExpiries}
    WHERE (${KEY}) IN (SELECT ${VALUES} FROM json_each(${keysOf(tuples)}))`);
}

/** @returns those of some tuples that stand at the primary and have no end */
export async function unendingAmong(db: D1Database, tuples: readonly Tuple[]): Promise<Tuple[]> {
  const select = query.all<{ n: number }>(sql`SELECT key AS n FROM json_each(${keysOf(tuples)})
    WHERE EXISTS (SELECT 1 FROM ${relationships} WHERE (${KEY}) = (${VALUES}))
      AND NOT EXISTS (SELECT 1 FROM ${relationshipExpiries} WHERE (${KEY}) = (${VALUES}))`);
  const standing = new Set((await readAll(db.withSession("first-primary"), select)).map(({ n }) => n));
  return tuples.filter((_, index) => standing.has(index));
}

const VALUES = sql.raw("value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5");

function keysOf(tuples: readonly Tuple[]): string {
  const keys = tuples.map((tuple) => {
    const parsed = parseTuple(tuple);
    if (!parsed.ok) throw new RangeError(parsed.error);
    const { object, relation, subject } = parsed.value;
    return [object.type, object.id, relation, subject.type, subject.id, subject.relation];
  });
  return JSON.stringify(keys);
}

/** Removes what has expired, {@link EXPIRED_AT_ONCE} at most. @returns how many grants that were */
export async function removeExpired({ db, now }: { db: D1Database; now: () => number }): Promise<number> {
  const untilMs = now();
  const due = sql`SELECT ${KEY} FROM ${relationshipExpiries} WHERE ${relationshipExpiries.expiresAtMs} <= ${untilMs}
    ORDER BY ${relationshipExpiries.expiresAtMs} LIMIT ${EXPIRED_AT_ONCE}`;
  const found = await readAll(
    db.withSession("first-primary"),
    query.all<{ n: number }>(sql`SELECT COUNT(*) AS n FROM (${due})`),
  );
  const count = found[0]?.n ?? 0;
  if (count === 0) return 0;
  await runBatch(db, [
    query.run(sql`DELETE FROM ${relationships} WHERE (${KEY}) IN (${due})`),
    query.run(sql`DELETE FROM ${relationshipExpiries} WHERE (${KEY}) IN (${due})`),
  ]);
  return count;
}
