/** The relationship graph in D1: every decision is one statement, read at the primary, evaluated in memory. */
import { err, ok, type Result } from "../../wire/result.ts";
import {
  checkRequestProblem,
  decide,
  filterAllowed,
  listRequestProblem,
  verdictOf,
  withContext,
  type AuthzError,
  type CheckRequest,
  type ListObjectsRequest,
} from "../engine/check.ts";
import { explainDecision, type Explanation } from "../engine/explain.ts";
import type { Model } from "../engine/model.ts";
import { indexTuples, typeOf } from "../engine/tuple-index.ts";
import { type Budget, createBudget } from "./budget.ts";
import { listPage, type LoadTuples, type ObjectPage } from "./list-objects.ts";
import { contextRoots, nodeOf, subjectKindOf, subjectParts } from "./roots.ts";
import { MAX_NODES, MAX_TUPLES, readRows } from "./rows.ts";
import type { GraphRow } from "./queries.ts";
import { SALLYPORT_MODEL } from "./sallyport-model.ts";
import { createStatements } from "./statements.ts";
import type { TupleStore } from "./tuples.ts";

/** A database is read at its primary; a session is read as its maker chose. */
export type GraphStore = D1Database | D1DatabaseSession;

export type Graph = {
  /** Answers one check in one round trip, whatever its depth. */
  check(db: GraphStore, request: CheckRequest): Promise<Result<boolean, AuthzError>>;
  /**
   * Objects of a type to which the subject is related, by id, `limit` (≤ 1,000) after `cursor`: one round trip, as
   * long as no more than a few candidates are refused. A short page with a `nextCursor` is possible. Candidates that are too
   * complex together are checked in parts; one that is too complex alone is an error, or with `lenient` not listed. What all
   * of it may read is the `budget`, one for several pages of a call; where it ends before anything was decided it is an error.
   */
  listObjects(
    db: GraphStore,
    request: ListObjectsRequest,
    page?: { limit?: number; cursor?: string; lenient?: boolean; budget?: Budget },
  ): Promise<Result<ObjectPage, AuthzError>>;
  /** Like `check`, and says why: the tuples that allowed, or what would have been needed. */
  explain(db: GraphStore, request: CheckRequest): Promise<Result<Explanation, AuthzError>>;
};

/**
 * The graph of one model. Decisions read `first-primary`; lists may use a replica with the caller's bookmark.
 */
export function createGraph(model: Model): Graph {
  const statements = createStatements(model);

  const load: LoadTuples = async (db, request, objects, budget) => {
    if (!budget.isLeft()) return err(budget.exceeded());
    const context = contextRoots(model, request.contextualTuples);
    const text = statements.textOf({
      kind: "check",
      type: typeOf(objects[0]),
      relation: request.relation,
      subjectKind: subjectKindOf(request.subject),
      context: context?.kinds ?? null,
    });
    const roots = [...objects.map((object) => nodeOf(object, request.relation)), ...(context?.roots ?? [])];
    const rows = await db
      .prepare(text)
      .bind(JSON.stringify(roots), ...subjectParts(request.subject), MAX_NODES, MAX_TUPLES + 1)
      .raw<GraphRow>();
    const { tuples, entries, problem } = readRows(rows);
    budget.spend(entries);
    if (problem !== null) return err(problem);
    return ok(withContext(model, indexTuples(model, tuples), request.contextualTuples));
  };

  const decideOne = async (db: GraphStore, request: CheckRequest) => {
    const problem = checkRequestProblem(model, request);
    if (problem !== null) return err(problem);
    const tuples = await load(atPrimary(db), request, [request.object], createBudget());
    return tuples.ok ? decide(model, tuples.value, request.subject, [request]) : tuples;
  };

  return {
    async check(db, request) {
      const decided = await decideOne(db, request);
      return decided.ok ? verdictOf(decided.value.evaluation, 0) : decided;
    },

    async explain(db, request) {
      const decided = await decideOne(db, request);
      if (!decided.ok) return decided;
      const { graph, evaluation } = decided.value;
      const verdict = verdictOf(evaluation, 0);
      return verdict.ok ? ok(explainDecision(graph, evaluation, request.subject)) : verdict;
    },

    async listObjects(db, request, page = {}) {
      const problem = listRequestProblem(model, request);
      if (problem !== null) return err(problem);
      const around = { model, statements, store: atPrimary(db), load, filter: filterAllowed };
      return listPage(around, request, { ...page, budget: page.budget ?? createBudget() });
    },
  };
}

/** Decisions never come from a replica unless the caller made a session that says so. */
function atPrimary(db: GraphStore): TupleStore {
  return "withSession" in db ? db.withSession("first-primary") : db;
}

/** The graph of this product. */
export const sallyportGraph: Graph = createGraph(SALLYPORT_MODEL);
