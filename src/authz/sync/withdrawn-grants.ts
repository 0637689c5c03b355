/**
 * What an operator took by hand. It is recorded in the commit that takes it, tuple by tuple, so that nothing gives it back by
 * itself: not reconciliation, to which a grant that was taken looks like one that was lost, nor a registration, nor an agent's
 * first call. What its maker did not hold when an API key was made is recorded for the key in the same way.
 */
import { type SQL, sql } from "drizzle-orm";
import { alias } from "drizzle-orm/sqlite-core";
import { names } from "../../database/columns.ts";
import { grantsTaken, relationships, withdrawnGrants } from "../../database/schema.ts";
import { query, type Statement } from "../../database/statement.ts";
import { parseTuple, type Tuple } from "../engine/tuple.ts";
import { assertAllowed, columnsOf, TUPLE_KEY, TUPLE_OF_JSON } from "../store/tuples.ts";

const r = alias(relationships, "r");
const w = alias(withdrawnGrants, "w");
const KEY_NAMES = names(
  withdrawnGrants.objectType,
  withdrawnGrants.objectId,
  withdrawnGrants.relation,
  withdrawnGrants.subjectType,
  withdrawnGrants.subjectId,
  withdrawnGrants.subjectRelation,
);

/** Relations of which tuples stand by themselves (see grants.ts), and so could come back by themselves. */
const BY_THEMSELVES: Readonly<Record<string, readonly string[]>> = {
  tenant: ["member"],
  agent: ["tenant", "owner", "executor"],
  task: ["tenant", "parent", "owner"],
};

/** A tuple in SQL: each part an expression. */
export type TupleSql = {
  objectType: string;
  objectId: SQL;
  relation: string;
  subjectType: SQL;
  subjectId: SQL;
};

/** @returns whether a grant was withdrawn, as an SQL condition */
export function isWithdrawn(tuple: TupleSql): SQL {
  return sql`EXISTS (SELECT 1 FROM ${withdrawnGrants} AS w
    WHERE ${w.objectType} = ${literal(tuple.objectType)} AND ${w.objectId} = ${tuple.objectId}
      AND ${w.relation} = ${literal(tuple.relation)} AND ${w.subjectType} = ${tuple.subjectType}
      AND ${w.subjectId} = ${tuple.subjectId} AND ${w.subjectRelation} = '')`;
}

/** @returns whether an earlier version recorded that a grant was taken from a subject, as an SQL condition. @param id its id */
export function isTaken(type: "agent" | "service_account", id: SQL): SQL {
  return sql`EXISTS (SELECT 1 FROM ${grantsTaken}
    WHERE ${grantsTaken.subjectType} = ${literal(type)} AND ${grantsTaken.subjectId} = ${id})`;
}

/** A grant that stands by itself; one with `backedBy` is not given while that other one is withdrawn. */
export type Grant = Tuple & { readonly backedBy?: Tuple };

/**
 * @returns the statement that writes grants, but for those that an operator took
 * @throws TupleNotAllowed when the model refuses one
 */
export function grantStatement(grants: readonly Grant[], nowMs: number): Statement<D1Result> {
  assertAllowed(grants);
  const rows = JSON.stringify(
    grants.map((grant) => [...columnsOf(grant), ...(grant.backedBy === undefined ? [] : columnsOf(grant.backedBy))]),
  );
  return query
    .insert(relationships)
    .select(
      sql`SELECT ${TUPLE_OF_JSON}, ${nowMs} FROM json_each(${rows})
        WHERE NOT EXISTS (${withdrawnOf(0)}) AND NOT EXISTS (${withdrawnOf(6)})`,
    )
    .onConflictDoNothing({ target: [...TUPLE_KEY] });
}

/** The withdrawal of the tuple that begins at a position of a row of `json_each`. */
function withdrawnOf(first: number): SQL {
  const part = (at: number): SQL => sql.raw(`value ->> ${first + at}`);
  return sql`SELECT 1 FROM ${withdrawnGrants} AS w
    WHERE ${w.objectType} = ${part(0)} AND ${w.objectId} = ${part(1)} AND ${w.relation} = ${part(2)}
      AND ${w.subjectType} = ${part(3)} AND ${w.subjectId} = ${part(4)} AND ${w.subjectRelation} = ${part(5)}`;
}

/** @returns the statement that records what a delete takes; it goes before the delete, and records only what stands */
export function withdrawStatement(deletes: readonly Tuple[], nowMs: number): Statement<D1Result> {
  return record(deletes.filter(standsByItself), nowMs, sql`EXISTS (${standing()})`);
}

/** @returns the statement that records what was to be granted and was not; it goes after the grants of the same batch */
export function notGrantedStatement(grants: readonly Tuple[], nowMs: number): Statement<D1Result> {
  return record(grants, nowMs, sql`NOT EXISTS (${standing()})`);
}

/**
 * Forgets what was taken of what is given again; goes after the deletes of the same call. An object that is given a tenant is
 * placed anew: what was its tenant before was left, and not taken.
 */
export function restoreStatements(writes: readonly Tuple[]): Statement<D1Result>[] {
  const given = json(writes.filter(standsByItself));
  return [
    query.run(sql`DELETE FROM ${withdrawnGrants} WHERE
      (${KEY_NAMES}) IN (SELECT ${TUPLE_OF_JSON} FROM json_each(${given}))`),
    query.run(sql`DELETE FROM ${withdrawnGrants} WHERE ${withdrawnGrants.relation} = 'tenant'
      AND (${withdrawnGrants.objectType}, ${withdrawnGrants.objectId}) IN
        (SELECT value ->> 0, value ->> 1 FROM json_each(${given}) WHERE value ->> 2 = 'tenant')`),
    query.run(sql`DELETE FROM ${grantsTaken} WHERE (${grantsTaken.subjectType}, ${grantsTaken.subjectId}) IN
      (SELECT value ->> 3, value ->> 4 FROM json_each(${given}) WHERE value ->> 0 <> 'task'
        UNION SELECT value ->> 0, value ->> 1 FROM json_each(${given})
          WHERE value ->> 0 = 'agent' AND value ->> 2 IN ('tenant', 'owner'))`),
  ];
}

/** @returns the statement that forgets all that was taken of an object, which is deleted */
export function forgetWithdrawnStatement(type: string, id: string): Statement<D1Result> {
  return query.run(
    sql`DELETE FROM ${withdrawnGrants} WHERE ${withdrawnGrants.objectType} = ${type} AND ${withdrawnGrants.objectId} = ${id}`,
  );
}

function record(tuples: readonly Tuple[], nowMs: number, condition: SQL): Statement<D1Result> {
  return query
    .insert(withdrawnGrants)
    .select(sql`SELECT ${TUPLE_OF_JSON}, ${nowMs} FROM json_each(${json(tuples)}) WHERE ${condition}`)
    .onConflictDoNothing();
}

/** The tuple of a row of `json_each`, where it stands. */
function standing(): SQL {
  return sql`SELECT 1 FROM ${relationships} AS r
    WHERE ${r.objectType} = value ->> 0 AND ${r.objectId} = value ->> 1 AND ${r.relation} = value ->> 2
      AND ${r.subjectType} = value ->> 3 AND ${r.subjectId} = value ->> 4 AND ${r.subjectRelation} = value ->> 5`;
}

function standsByItself(tuple: Tuple): boolean {
  const parsed = parseTuple(tuple);
  if (!parsed.ok) return false;
  const { object, relation, subject } = parsed.value;
  return subject.relation === "" && (BY_THEMSELVES[object.type] ?? []).includes(relation);
}

function json(tuples: readonly Tuple[]): string {
  return JSON.stringify(tuples.map(columnsOf));
}

/** A type's or a relation's name as an SQL literal. */
function literal(name: string): SQL {
  return sql.raw(`'${name.replaceAll("'", "''")}'`);
}
