/**
 * The SQL of the graph: one recursive statement that reads everything a check depends on, and one that finds what a subject
 * may be related to and reads what those checks depend on. The model's plans are written into the text as constants, so a
 * statement is the same text for every question.
 *
 * Each way of following a tuple is a branch of its own with equality on an index prefix (an OR over them makes SQLite scan),
 * and joins are CROSS JOIN so that they run in the order they are written: from what is known to what it leads to. A `+` keeps
 * SQLite from building an index over a handful of steps, which costs more than it saves.
 */
import { reversePlan, type ExpansionPlan, type ForwardPlan, type TupleGuard } from "../engine/expansion.ts";
import type { Model } from "../engine/model.ts";

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

/**
 * Reads what checks of some `[type, id, relation]` roots depend on.
 *
 * Parameters: ?1 roots as JSON, ?2 ?3 ?4 the subject's type, id and relation, ?5 the most nodes to follow, ?6 the most rows.
 */
export function checkSql(plan: ForwardPlan): string {
  return `WITH RECURSIVE
    ${forwardSteps(plan)},
    ${nodes("SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1)")}
    ${nodeRows(holdersIn(plan))} LIMIT ?6`;
}

/**
 * Finds the next candidates of a list, in the order of their ids, and reads what their checks depend on.
 *
 * Parameters: ?1 further `[type, id, relation]` nodes to read for (contextual tuples lead there), ?2 ?3 ?4 the subject, ?5 the
 * most nodes to follow, ?6 the most rows, ?7 `[type, id, relation]` nodes known to be reached, ?8 the id after which to go
 * on, ?9 how many candidates, ?10 how many tuples that name one. One object may be named by several, so either may end the
 * statement first; where the second does, it is as if there were more. Nothing is sorted but the best ?10. What the gate keeps
 * out is no candidate: nothing is followed for it.
 */
export function listSql(
  model: Model,
  type: string,
  relation: string,
  { forward, gate }: { forward: ForwardPlan; gate: TupleGuard | null },
): string {
  const plan = reversePlan(model, type, relation);
  const isTarget = (step: { type: string; relation: string }): boolean =>
    !plan.targetIsRecursive && step.type === type && step.relation === relation;
  const inner: ExpansionPlan = {
    direct: plan.direct.filter((step) => !isTarget(step)),
    from: plan.from.filter((step) => !isTarget(step)),
  };
  const last: ExpansionPlan = {
    direct: plan.direct.filter(isTarget),
    from: plan.from.filter(isTarget),
  };
  const holders = holdersIn(forward);
  return `WITH RECURSIVE
    ${forwardSteps(forward)},
    ${reverseSteps("inner", inner)},
    ${reverseSteps("last", last)},
    reached(t, i, r) AS (
      SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?7)
      UNION ${reverseHops("inner", "e.object_type, e.object_id, s.r", holders, "TRUE").join(" UNION ")}
      LIMIT ?5
    ),
    named(i) AS MATERIALIZED (
      SELECT i FROM reached WHERE t = ${text(type)} AND r = ${text(relation)} AND i > ?8
      UNION ALL ${reverseHops("last", "e.object_id", holders, "e.object_id > ?8").join(" UNION ALL ")}
      ORDER BY 1 LIMIT ?10
    ),
    candidate(i) AS MATERIALIZED (SELECT DISTINCT i FROM named${passes(type, gate)} ORDER BY i LIMIT ?9),
    ${nodes(`SELECT ${text(type)}, i, ${text(relation)} FROM candidate
      UNION SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1)`)}
    SELECT * FROM (SELECT 'c', NULL, i, NULL, NULL, NULL, NULL FROM candidate ORDER BY i)
    UNION ALL SELECT 'r', NULL, count(*), NULL, NULL, NULL, NULL FROM reached
    UNION ALL SELECT 'm', NULL, count(*), max(i), NULL, NULL, NULL FROM named
    UNION ALL SELECT * FROM (${nodeRows(holders)} LIMIT ?6)`;
}

/** The forward plan as tables: `own` reads subjects, `groups` follows usersets, `jump` follows a tupleset. */
function forwardSteps(plan: ForwardPlan): string {
  return [
    table(
      "own",
      "t, r, d",
      plan.own.map((step) => [step.type, step.relation, step.direct]),
    ),
    table(
      "groups",
      "t, r, d",
      plan.groups.map((step) => [step.type, step.relation, step.direct]),
    ),
    table(
      "jump",
      "t, r, d, n",
      plan.from.map((step) => [step.type, step.relation, step.tupleset, step.next]),
    ),
  ].join(",\n    ");
}

function reverseSteps(name: string, plan: ExpansionPlan): string {
  return [
    table(
      `own_${name}`,
      "t, r, d",
      plan.direct.map((step) => [step.type, step.relation, step.direct]),
    ),
    table(
      `jump_${name}`,
      "t, r, d, n",
      plan.from.map((step) => [step.type, step.relation, step.tupleset, step.next]),
    ),
  ].join(",\n    ");
}

/** The nodes that the roots depend on. The index is named so that a group of a million single members is never passed. */
function nodes(roots: string): string {
  return `node(t, i, r) AS (
      ${roots}
      UNION SELECT e.subject_type, e.subject_id, e.subject_relation
        FROM node CROSS JOIN groups AS s ON +s.t = node.t AND +s.r = node.r
        CROSS JOIN relationships AS e INDEXED BY relationships_usersets
          ON e.object_type = node.t AND e.object_id = node.i AND e.relation = s.d AND e.subject_relation <> ''
      UNION SELECT e.subject_type, e.subject_id, s.n
        FROM node CROSS JOIN jump AS s ON +s.t = node.t AND +s.r = node.r
        CROSS JOIN relationships AS e
          ON e.object_type = node.t AND e.object_id = node.i AND e.relation = s.d AND e.subject_relation = ''
      LIMIT ?5
    )`;
}

/** The tuples at the nodes: the subject's own (and everyone's), the usersets, the tuplesets. */
function nodeRows(holders: string): string {
  return `SELECT 'n', NULL, count(*), NULL, NULL, NULL, NULL FROM node
    UNION ALL SELECT 't', e.object_type, e.object_id, e.relation, e.subject_type, e.subject_id, e.subject_relation
      FROM node CROSS JOIN own AS s ON +s.t = node.t AND +s.r = node.r
      CROSS JOIN relationships AS e
        ON e.object_type = node.t AND e.object_id = node.i AND e.relation = s.d
        AND e.subject_type = ?2 AND e.subject_id ${holders} AND e.subject_relation = ?4
    UNION ALL SELECT 't', e.object_type, e.object_id, e.relation, e.subject_type, e.subject_id, e.subject_relation
      FROM node CROSS JOIN groups AS s ON +s.t = node.t AND +s.r = node.r
      CROSS JOIN relationships AS e INDEXED BY relationships_usersets
        ON e.object_type = node.t AND e.object_id = node.i AND e.relation = s.d AND e.subject_relation <> ''
    UNION ALL SELECT 't', e.object_type, e.object_id, e.relation, e.subject_type, e.subject_id, e.subject_relation
      FROM node CROSS JOIN jump AS s ON +s.t = node.t AND +s.r = node.r
      CROSS JOIN relationships AS e
        ON e.object_type = node.t AND e.object_id = node.i AND e.relation = s.d AND e.subject_relation = ''`;
}

function passes(type: string, gate: TupleGuard | null): string {
  if (gate === null) return "";
  return ` WHERE EXISTS (SELECT 1 FROM relationships AS p CROSS JOIN relationships AS g
        ON g.object_type = p.subject_type AND g.object_id = p.subject_id AND g.relation = ${text(gate.relation)}
        AND g.subject_type = ?2 AND g.subject_id = ?3 AND g.subject_relation = ?4
      WHERE p.object_type = ${text(type)} AND p.object_id = named.i AND p.relation = ${text(gate.tupleset)}
        AND p.subject_relation = '')`;
}

/** From the subject, and from what has been reached, to the objects whose tuples name them. */
function reverseHops(plan: string, columns: string, holders: string, condition: string): string[] {
  return [
    `SELECT ${columns}
        FROM own_${plan} AS s CROSS JOIN relationships AS e INDEXED BY relationships_by_subject
          ON e.subject_type = ?2 AND e.subject_id ${holders} AND e.subject_relation = ?4
          AND e.object_type = s.t AND e.relation = s.d AND ${condition}`,
    `SELECT ${columns}
        FROM reached AS f CROSS JOIN own_${plan} AS s
        CROSS JOIN relationships AS e INDEXED BY relationships_by_subject
          ON e.subject_type = f.t AND e.subject_id = f.i AND e.subject_relation = f.r
          AND e.object_type = s.t AND e.relation = s.d AND ${condition}`,
    `SELECT ${columns}
        FROM reached AS f CROSS JOIN jump_${plan} AS s ON s.n = f.r
        CROSS JOIN relationships AS e INDEXED BY relationships_by_subject
          ON e.subject_type = f.t AND e.subject_id = f.i AND e.subject_relation = ''
          AND e.object_type = s.t AND e.relation = s.d AND ${condition}`,
  ];
}

/** Who holds the subject's own tuples: the subject, and everyone of its type where the plan takes that. */
function holdersIn(plan: ForwardPlan): string {
  return plan.everyone ? "IN (?3, '*')" : "= ?3";
}

function table(name: string, columns: string, rows: readonly (readonly string[])[]): string {
  const values =
    rows.length === 0
      ? `SELECT ${columns
          .split(", ")
          .map(() => "NULL")
          .join(", ")} WHERE FALSE`
      : `VALUES ${rows.map((row) => `(${row.map(text).join(", ")})`).join(", ")}`;
  return `${name}(${columns}) AS (${values})`;
}

/** A name of the model as an SQL literal. */
function text(name: string): string {
  return `'${name.replaceAll("'", "''")}'`;
}
