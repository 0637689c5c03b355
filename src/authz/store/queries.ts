/**
 * The SQL of the graph: one recursive statement that reads everything a check depends on, and one that finds what a subject
 * may be related to and reads what those checks depend on. The model's plans are written into the text as constants, so a
 * statement is the same text for every question.
 *
 * Each way of following a tuple is a branch of its own with equality on an index prefix (an OR over them makes SQLite scan),
 * and joins are CROSS JOIN so that they run in the order they are written: from what is known to what it leads to. A `+` keeps
 * SQLite from building an index over a handful of steps, which costs more than it saves. Parameters are numbered, since most
 * are used many times.
 */
import { type SQL, sql } from "drizzle-orm";
import { alias } from "drizzle-orm/sqlite-core";
import { relationships } from "../../database/schema.ts";
import { reversePlan, type ExpansionPlan, type ForwardPlan, type TupleGuard } from "../engine/expansion.ts";
import type { Model } from "../engine/model.ts";
import { isUnexpired } from "./expiries.ts";

/**
 * A row as it comes back: a tuple, or with `kind` `c` a candidate's id, with `n` how many nodes were followed for
 * the checks, with `r` how many were reached from the subject, with `m` how many tuples named a candidate, and the last id that they named.
 */
export type GraphRow = [
  kind: "t" | "c" | "n" | "r" | "m",
  objectType: string | null,
  objectId: string | number | null,
  relation: string | null,
  subjectType: string | null,
  subjectId: string | null,
  subjectRelation: string | null,
];

/** The tuple that is followed; the tuple that names an object's guard, and the guard's own. */
const e = alias(relationships, "e");
const p = alias(relationships, "p");
const g = alias(relationships, "g");
const TUPLE = sql`${e.objectType}, ${e.objectId}, ${e.relation}, ${e.subjectType}, ${e.subjectId}, ${e.subjectRelation}`;

const [ROOTS, SUBJECT_TYPE, SUBJECT_ID, SUBJECT_RELATION, NODES_MAX, ROWS_MAX, SEEDS, AFTER, CANDIDATES, NAMED] = [
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
].map((position) => sql.raw(`?${position}`));

/**
 * Reads what checks of some `[type, id, relation]` roots depend on.
 *
 * Parameters: ?1 roots as JSON, ?2 ?3 ?4 the subject's type, id and relation, ?5 the most nodes to follow, ?6 the most rows.
 */
export function checkSql(plan: ForwardPlan): SQL {
  return sql`WITH RECURSIVE ${commas([
    ...forwardSteps(plan),
    nodes(sql`SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(${ROOTS})`),
  ])} ${nodeRows(holdersIn(plan))} LIMIT ${ROWS_MAX}`;
}

/**
 * Finds the next candidates of a list, in the order of their ids, and reads what their checks depend on.
 *
 * Parameters: ?1 further `[type, id, relation]` nodes to read for (contextual tuples lead there), ?2 ?3 ?4 the subject, ?5 the
 * most nodes to follow, ?6 the most rows, ?7 `[type, id, relation]` nodes known to be reached, ?8 the id after which to go
 * on, ?9 how many candidates, ?10 how many tuples that name one. One object may be named by several, so either may end the
 * statement first; where the second does, it is as if there were more. Nothing is sorted but the best ?10. What the guard keeps
 * out is no candidate: nothing is followed for it.
 */
export function listSql(
  model: Model,
  type: string,
  relation: string,
  { forward, guard }: { forward: ForwardPlan; guard: TupleGuard | null },
): SQL {
  const plan = reversePlan(model, type, relation);
  const isTarget = (step: { type: string; relation: string }): boolean =>
    !plan.targetIsRecursive && step.type === type && step.relation === relation;
  const inner: ExpansionPlan = {
    direct: plan.direct.filter((step) => !isTarget(step)),
    from: plan.from.filter((step) => !isTarget(step)),
  };
  const last: ExpansionPlan = { direct: plan.direct.filter(isTarget), from: plan.from.filter(isTarget) };
  const holders = holdersIn(forward);
  const reached = sql`reached(t, i, r) AS (
      SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(${SEEDS})
      UNION ${sql.join(reverseHops("inner", sql`${e.objectType}, ${e.objectId}, s.r`, holders, sql`TRUE`), sql` UNION `)}
      LIMIT ${NODES_MAX})`;
  const named = sql`named(i) AS MATERIALIZED (
      SELECT i FROM reached WHERE t = ${text(type)} AND r = ${text(relation)} AND i > ${AFTER}
      UNION ALL ${sql.join(reverseHops("last", sql`${e.objectId}`, holders, sql`${e.objectId} > ${AFTER}`), sql` UNION ALL `)}
      ORDER BY 1 LIMIT ${NAMED})`;
  return sql`WITH RECURSIVE ${commas([
    ...forwardSteps(forward),
    ...reverseSteps("inner", inner),
    ...reverseSteps("last", last),
    reached,
    named,
    sql`candidate(i) AS MATERIALIZED (SELECT DISTINCT i FROM named${passes(type, guard)} ORDER BY i LIMIT ${CANDIDATES})`,
    nodes(sql`SELECT ${text(type)}, i, ${text(relation)} FROM candidate
      UNION SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(${ROOTS})`),
  ])}
    SELECT * FROM (SELECT 'c', NULL, i, NULL, NULL, NULL, NULL FROM candidate ORDER BY i)
    UNION ALL SELECT 'r', NULL, count(*), NULL, NULL, NULL, NULL FROM reached
    UNION ALL SELECT 'm', NULL, count(*), max(i), NULL, NULL, NULL FROM named
    UNION ALL SELECT * FROM (${nodeRows(holders)} LIMIT ${ROWS_MAX})`;
}

/** The forward plan as tables: `own` reads subjects, `groups` follows usersets, `jump` follows a tupleset. */
function forwardSteps(plan: ForwardPlan): SQL[] {
  return [
    table(
      "own(t, r, d)",
      plan.own.map((step) => [step.type, step.relation, step.direct]),
    ),
    table(
      "groups(t, r, d)",
      plan.groups.map((step) => [step.type, step.relation, step.direct]),
    ),
    table(
      "jump(t, r, d, n)",
      plan.from.map((step) => [step.type, step.relation, step.tupleset, step.next]),
    ),
  ];
}

function reverseSteps(name: "inner" | "last", plan: ExpansionPlan): SQL[] {
  return [
    table(
      `own_${name}(t, r, d)`,
      plan.direct.map((step) => [step.type, step.relation, step.direct]),
    ),
    table(
      `jump_${name}(t, r, d, n)`,
      plan.from.map((step) => [step.type, step.relation, step.tupleset, step.next]),
    ),
  ];
}

const AT_NODE = sql`${e.objectType} = node.t AND ${e.objectId} = node.i AND ${e.relation} = s.d`;
/** The index is named so that a group of a million single members is never passed. */
const GROUPS_AT_NODE = sql`node CROSS JOIN groups AS s ON +s.t = node.t AND +s.r = node.r
        CROSS JOIN ${relationships} AS e INDEXED BY relationships_usersets ON ${AT_NODE} AND ${e.subjectRelation} <> ''`;
const PARENTS_OF_NODE = sql`node CROSS JOIN jump AS s ON +s.t = node.t AND +s.r = node.r
        CROSS JOIN ${relationships} AS e ON ${AT_NODE} AND ${e.subjectRelation} = ''`;

/** The nodes that the roots depend on. */
function nodes(roots: SQL): SQL {
  return sql`node(t, i, r) AS (
      ${roots}
      UNION SELECT ${e.subjectType}, ${e.subjectId}, ${e.subjectRelation} FROM ${GROUPS_AT_NODE}
      UNION SELECT ${e.subjectType}, ${e.subjectId}, s.n FROM ${PARENTS_OF_NODE}
      LIMIT ${NODES_MAX})`;
}

/** The tuples at the nodes: the subject's own (and everyone's), the usersets, the tuplesets. */
function nodeRows(holders: SQL): SQL {
  return sql`SELECT 'n', NULL, count(*), NULL, NULL, NULL, NULL FROM node
    UNION ALL SELECT 't', ${TUPLE} FROM node CROSS JOIN own AS s ON +s.t = node.t AND +s.r = node.r
      CROSS JOIN ${relationships} AS e ON ${AT_NODE} AND ${isSubject(holders)} AND ${isUnexpired(e)}
    UNION ALL SELECT 't', ${TUPLE} FROM ${GROUPS_AT_NODE} AND ${isUnexpired(e)}
    UNION ALL SELECT 't', ${TUPLE} FROM ${PARENTS_OF_NODE}`;
}

function passes(type: string, guard: TupleGuard | null): SQL {
  if (guard === null) return sql``;
  return sql` WHERE EXISTS (SELECT 1 FROM ${relationships} AS p CROSS JOIN ${relationships} AS g
        ON ${g.objectType} = ${p.subjectType} AND ${g.objectId} = ${p.subjectId} AND ${g.relation} = ${text(guard.relation)}
        AND ${g.subjectType} = ${SUBJECT_TYPE} AND ${g.subjectId} = ${SUBJECT_ID} AND ${g.subjectRelation} = ${SUBJECT_RELATION}
      WHERE ${p.objectType} = ${text(type)} AND ${p.objectId} = named.i AND ${p.relation} = ${text(guard.tupleset)}
        AND ${p.subjectRelation} = '')`;
}

/** From the subject, and from what has been reached, to the objects whose tuples name them. */
function reverseHops(plan: "inner" | "last", columns: SQL, holders: SQL, condition: SQL): SQL[] {
  const own = sql.raw(`own_${plan}`);
  const bySubject = sql`${relationships} AS e INDEXED BY relationships_by_subject`;
  const asStep = sql`${e.objectType} = s.t AND ${e.relation} = s.d AND ${condition}`;
  const isReached = sql`${e.subjectType} = f.t AND ${e.subjectId} = f.i`;
  return [
    sql`SELECT ${columns} FROM ${own} AS s CROSS JOIN ${bySubject} ON ${isSubject(holders)} AND ${asStep}`,
    sql`SELECT ${columns} FROM reached AS f CROSS JOIN ${own} AS s
        CROSS JOIN ${bySubject} ON ${isReached} AND ${e.subjectRelation} = f.r AND ${asStep}`,
    sql`SELECT ${columns} FROM reached AS f CROSS JOIN ${sql.raw(`jump_${plan}`)} AS s ON s.n = f.r
        CROSS JOIN ${bySubject} ON ${isReached} AND ${e.subjectRelation} = '' AND ${asStep}`,
  ];
}

/** @param holders see {@link holdersIn} */
function isSubject(holders: SQL): SQL {
  return sql`${e.subjectType} = ${SUBJECT_TYPE} AND ${e.subjectId} ${holders} AND ${e.subjectRelation} = ${SUBJECT_RELATION}`;
}

/** Who holds the subject's own tuples: the subject, and everyone of its type where the plan takes that. */
function holdersIn(plan: ForwardPlan): SQL {
  return plan.everyone ? sql`IN (${SUBJECT_ID}, '*')` : sql`= ${SUBJECT_ID}`;
}

/** @param head its name and columns */
function table(head: string, rows: readonly (readonly string[])[]): SQL {
  const values = rows.map((row) => sql`(${commas(row.map(text))})`);
  const none = head.split(",").map(() => sql.raw("NULL"));
  return sql`${sql.raw(head)} AS (${rows.length === 0 ? sql`SELECT ${commas(none)} WHERE FALSE` : sql`VALUES ${commas(values)}`})`;
}

function commas(parts: readonly SQL[]): SQL {
  return sql.join([...parts], sql`, `);
}

/** A name of the model as an SQL literal. */
function text(name: string): SQL {
  return sql.raw(`'${name.replaceAll("'", "''")}'`);
}
