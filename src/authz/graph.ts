/** The relationship graph in D1: every decision is one statement, read at the primary, evaluated in memory. */
import { err, ok, type Result } from "../wire/result.ts";
import {
  checkRequestProblem,
  decide,
  filterAllowed,
  listRequestProblem,
  tooComplex,
  verdictOf,
  withContext,
  type AuthzError,
  type CheckRequest,
  type ListObjectsRequest,
} from "./engine.ts";
import { forwardPlan, reversePlan } from "./expansion-plan.ts";
import { explainDecision, type Explanation } from "./explain.ts";
import { checkSql, listSql, type GraphRow } from "./graph-sql.ts";
import type { Model } from "./model.ts";
import { formatObject, formatSubject, parseSubject, WILDCARD, type Tuple } from "./tuple.ts";
import { indexTuples, typeOf, type TupleIndex } from "./tuple-index.ts";
import type { TupleStore } from "./tuples.ts";

/** The most `object#relation` nodes one statement follows, and the most tuples it returns; beyond either it is an error. */
export const MAX_NODES = 20_000;
export const MAX_TUPLES = 50_000;
/** The most objects one page of a list holds. */
export const MAX_PAGE = 1_000;
/** How often a page goes on looking when candidates turn out not to be allowed. */
const MAX_ROUNDS = 8;

/** One page of a list: `nextCursor`, where there may be more, is the id after which to go on. */
export type ObjectPage = { objects: string[]; nextCursor?: string };

export type Graph = {
  /** Answers one check in one round trip, whatever its depth. */
  check(db: D1Database | D1DatabaseSession, request: CheckRequest): Promise<Result<boolean, AuthzError>>;
  /**
   * Objects of a type to which the subject is related, by id, `limit` (≤ {@link MAX_PAGE}) after `cursor`: one round trip, as
   * long as no more than a few candidates are refused. A short page with a `nextCursor` is possible.
   */
  listObjects(
    db: D1Database | D1DatabaseSession,
    request: ListObjectsRequest,
    page?: { limit?: number; cursor?: string },
  ): Promise<Result<ObjectPage, AuthzError>>;
  /** Like `check`, and says why: the tuples that allowed, or what would have been needed. */
  explain(db: D1Database | D1DatabaseSession, request: CheckRequest): Promise<Result<Explanation, AuthzError>>;
};

/**
 * The graph of one model. A database is read at its primary; a session is read as its maker chose (decisions:
 * `first-primary`; lists may use a replica with the caller's bookmark).
 */
export function createGraph(model: Model): Graph {
  const checkStatement = checkSql(model);
  const listStatements = new Map<string, string>();

  const load = async (db: TupleStore, request: CheckRequest): Promise<Result<TupleIndex, AuthzError>> => {
    const subject = subjectParts(request.subject);
    const roots = [nodeOf(request.object, request.relation), ...contextRoots(model, request.contextualTuples)];
    const rows = await db
      .prepare(checkStatement)
      .bind(JSON.stringify(roots), ...subject, MAX_NODES, MAX_TUPLES + 1)
      .raw<GraphRow>();
    const read = readRows(rows);
    if (!read.ok) return read;
    return ok(withContext(model, indexTuples(model, read.value.tuples), request.contextualTuples));
  };

  return {
    async check(db, request) {
      const problem = checkRequestProblem(model, request);
      if (problem !== null) return err(problem);
      const tuples = await load(atPrimary(db), request);
      if (!tuples.ok) return tuples;
      const decided = decide(model, tuples.value, request.subject, [request]);
      return decided.ok ? verdictOf(decided.value.evaluation, 0) : decided;
    },

    async explain(db, request) {
      const problem = checkRequestProblem(model, request);
      if (problem !== null) return err(problem);
      const tuples = await load(atPrimary(db), request);
      if (!tuples.ok) return tuples;
      const decided = decide(model, tuples.value, request.subject, [request]);
      if (!decided.ok) return decided;
      const verdict = verdictOf(decided.value.evaluation, 0);
      if (!verdict.ok) return verdict;
      return ok(explainDecision(decided.value.circuit, decided.value.evaluation, request.subject));
    },

    async listObjects(db, request, page = {}) {
      const problem = listRequestProblem(model, request);
      if (problem !== null) return err(problem);
      const store = atPrimary(db);
      const limit = Math.min(page.limit ?? MAX_PAGE, MAX_PAGE);
      const key = `${request.type}#${request.relation}`;
      const statement = listStatements.get(key) ?? listSql(model, request.type, request.relation);
      listStatements.set(key, statement);
      const roots = JSON.stringify(contextRoots(model, request.contextualTuples));
      const seeds = JSON.stringify(reverseSeeds(model, request));
      // A few more than asked for, so that single refusals do not cost another round trip.
      const candidateCount = limit + Math.min(limit, 20) + 1;
      const objects: string[] = [];
      let cursor = page.cursor ?? "";
      for (let round = 0; round < MAX_ROUNDS; round += 1) {
        // oxlint-disable-next-line no-await-in-loop -- each round goes on where the last one ended
        const rows = await store
          .prepare(statement)
          .bind(roots, ...subjectParts(request.subject), MAX_NODES, MAX_TUPLES + 1, seeds, cursor, candidateCount)
          .raw<GraphRow>();
        const read = readRows(rows);
        if (!read.ok) return read;
        const { candidates } = read.value;
        const tuples = withContext(model, indexTuples(model, read.value.tuples), request.contextualTuples);
        const found = candidates.map((id) => formatObject(request.type, id));
        const allowed = filterAllowed(model, tuples, request.subject, request.relation, found);
        if (!allowed.ok) return allowed;
        objects.push(...allowed.value);
        if (objects.length > limit) return ok(pageOf(objects.slice(0, limit)));
        const last = candidates.at(-1);
        if (last === undefined || candidates.length < candidateCount) return ok({ objects });
        cursor = last;
      }
      return ok({ objects, nextCursor: cursor });
    },
  };
}

/** Decisions never come from a replica unless the caller made a session that says so. */
function atPrimary(db: D1Database | D1DatabaseSession): TupleStore {
  return "withSession" in db ? db.withSession("first-primary") : db;
}

function pageOf(objects: string[]): ObjectPage {
  const last = objects.at(-1);
  return last === undefined ? { objects } : { objects, nextCursor: last.slice(last.indexOf(":") + 1) };
}

function readRows(rows: readonly GraphRow[]): Result<{ tuples: Tuple[]; candidates: string[] }, AuthzError> {
  const tuples: Tuple[] = [];
  const candidates: string[] = [];
  for (const [kind, objectType, objectId, relation, subjectType, subjectId, subjectRelation] of rows) {
    if (kind === "c") {
      candidates.push(String(objectId));
    } else if (kind === "n") {
      if (Number(objectId) >= MAX_NODES) return err(tooComplex("it leads to too many objects"));
    } else if (objectType !== null && relation !== null && subjectType !== null && subjectId !== null) {
      tuples.push({
        object: formatObject(objectType, String(objectId)),
        relation,
        subject: formatSubject({ type: subjectType, id: subjectId, relation: subjectRelation ?? "" }),
      });
    }
  }
  return tuples.length >= MAX_TUPLES ? err(tooComplex("it depends on too many tuples")) : ok({ tuples, candidates });
}

type NodeKey = [type: string, id: string, relation: string];

/** Where contextual tuples lead, whether or not the question does: reading too much changes no answer. */
function contextRoots(model: Model, contextual: readonly Tuple[] | undefined): NodeKey[] {
  if (contextual === undefined || contextual.length === 0) return [];
  const { from } = forwardPlan(model);
  return contextual.flatMap((tuple): NodeKey[] => {
    const [type, id, relation] = subjectParts(tuple.subject);
    if (relation !== "") return [[type, id, relation]];
    if (id === WILDCARD) return [];
    const objectType = typeOf(tuple.object);
    return from
      .filter((step) => step.type === objectType && step.tupleset === tuple.relation)
      .map((step): NodeKey => [type, id, step.next]);
  });
}

/** What is reached without a stored tuple: the userset that asks, and whatever a contextual tuple stands on. */
function reverseSeeds(model: Model, request: ListObjectsRequest): NodeKey[] {
  const [type, id, relation] = subjectParts(request.subject);
  const plan = reversePlan(model, request.type, request.relation);
  const seeds: NodeKey[] = relation === "" ? [] : [[type, id, relation]];
  for (const step of plan.names) {
    if (step.name === relation && step.type === type) seeds.push([type, id, step.relation]);
  }
  for (const tuple of request.contextualTuples ?? []) {
    const objectType = typeOf(tuple.object);
    for (const step of plan.direct) {
      if (step.type === objectType && step.direct === tuple.relation) seeds.push(nodeOf(tuple.object, step.relation));
    }
    for (const step of plan.from) {
      if (step.type === objectType && step.tupleset === tuple.relation) seeds.push(nodeOf(tuple.object, step.relation));
    }
  }
  return seeds;
}

function nodeOf(object: string, relation: string): NodeKey {
  const colon = object.indexOf(":");
  return [object.slice(0, colon), object.slice(colon + 1), relation];
}

/** The parts of a subject that has been validated. */
function subjectParts(subject: string): NodeKey {
  const parsed = parseSubject(subject);
  if (!parsed.ok) throw new Error(parsed.error);
  return [parsed.value.type, parsed.value.id, parsed.value.relation];
}
