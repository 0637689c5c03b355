/** The relationship graph in D1: every decision is one statement, read at the primary, evaluated in memory. */
import { err, ok, type Result } from "../../wire/result.ts";
import {
  checkRequestProblem,
  decide,
  filterAllowed,
  isTooComplex,
  listRequestProblem,
  tooComplex,
  verdictOf,
  withContext,
  type AuthzError,
  type CheckRequest,
  type ListObjectsRequest,
} from "../engine/check.ts";
import { forwardPlan, tupleGuardOf, relationsFrom, reversePlan } from "../engine/expansion.ts";
import { explainDecision, type Explanation } from "../engine/explain.ts";
import { checkSql, listSql, type GraphRow } from "./queries.ts";
import type { Model } from "../engine/model.ts";
import { SALLYPORT_MODEL } from "./sallyport-model.ts";
import { formatObject, formatSubject, parseSubject, WILDCARD, type Tuple } from "../engine/tuple.ts";
import { indexTuples, typeOf, type TupleIndex } from "../engine/tuple-index.ts";
import type { TupleStore } from "./tuples.ts";

/** The most `object#relation` nodes one statement follows, and the most tuples it returns; beyond either it is an error. */
export const MAX_NODES = 20_000;
export const MAX_TUPLES = 50_000;
/** The most objects one page of a list holds. */
export const MAX_PAGE = 1_000;
/** How often a page goes on looking when candidates turn out not to be allowed. */
const MAX_ROUNDS = 8;
/** How often a page asks again for a part of its candidates, where all of them together are too complex. */
const MAX_PARTS = 40;

/** One page of a list: `nextCursor`, where there may be more, is the id after which to go on. */
export type ObjectPage = { objects: string[]; nextCursor?: string };

export type Graph = {
  /** Answers one check in one round trip, whatever its depth. */
  check(db: D1Database | D1DatabaseSession, request: CheckRequest): Promise<Result<boolean, AuthzError>>;
  /**
   * Objects of a type to which the subject is related, by id, `limit` (≤ {@link MAX_PAGE}) after `cursor`: one round trip, as
   * long as no more than a few candidates are refused. A short page with a `nextCursor` is possible. Candidates that are too
   * complex together are checked in parts; one that is too complex alone is an error, or with `lenient` not listed.
   */
  listObjects(
    db: D1Database | D1DatabaseSession,
    request: ListObjectsRequest,
    page?: { limit?: number; cursor?: string; lenient?: boolean },
  ): Promise<Result<ObjectPage, AuthzError>>;
  /** Like `check`, and says why: the tuples that allowed, or what would have been needed. */
  explain(db: D1Database | D1DatabaseSession, request: CheckRequest): Promise<Result<Explanation, AuthzError>>;
};

/**
 * The graph of one model. A database is read at its primary; a session is read as its maker chose (decisions:
 * `first-primary`; lists may use a replica with the caller's bookmark).
 */
export function createGraph(model: Model): Graph {
  /** Statement texts, one for each permission and kind of subject: a few dozen at most for a model. */
  const statements = new Map<string, string>();
  const statementFor = (
    kind: "check" | "list",
    request: Pick<CheckRequest, "subject" | "relation" | "contextualTuples">,
    type: string,
    context: readonly NodeKey[],
  ): string => {
    const { relation } = request;
    const [subjectType, , subjectRelation] = subjectParts(request.subject);
    const subjectKind = subjectRelation === "" ? subjectType : `${subjectType}#${subjectRelation}`;
    const key = `${kind} ${type}#${relation} ${subjectKind}`;
    const hasContext = (request.contextualTuples ?? []).length > 0;
    const known = hasContext ? undefined : statements.get(key);
    if (known !== undefined) return known;
    const roots = context.map(([rootType, , rootRelation]) => ({ type: rootType, relation: rootRelation }));
    const plan = forwardPlan(model, [{ type, relation }, ...roots], subjectKind);
    // Contextual tuples may open a gate, and a userset has none of its own: then the checks alone decide.
    const gate = hasContext || subjectRelation !== "" ? null : tupleGuardOf(model, type, relation);
    const text = kind === "check" ? checkSql(plan) : listSql(model, type, relation, { forward: plan, gate });
    if (!hasContext) statements.set(key, text);
    return text;
  };

  /** Reads what checks of some objects of one type depend on. */
  const load = async (
    db: TupleStore,
    request: Pick<CheckRequest, "subject" | "relation" | "contextualTuples">,
    objects: readonly [string, ...string[]],
  ): Promise<Result<TupleIndex, AuthzError>> => {
    const subject = subjectParts(request.subject);
    const context = contextRoots(model, request.contextualTuples);
    const rows = await db
      .prepare(statementFor("check", request, typeOf(objects[0]), context))
      .bind(
        JSON.stringify([...objects.map((object) => nodeOf(object, request.relation)), ...context]),
        ...subject,
        MAX_NODES,
        MAX_TUPLES + 1,
      )
      .raw<GraphRow>();
    const { tuples, problem } = readRows(rows);
    if (problem !== null) return err(problem);
    return ok(withContext(model, indexTuples(model, tuples), request.contextualTuples));
  };

  /**
   * Checks candidates in parts, each as large as can be decided at once, and as many of them as there are `parts` left for.
   *
   * @returns those that are allowed, and how many of the first were looked at
   */
  const filterInParts = async (
    db: TupleStore,
    request: ListObjectsRequest,
    candidates: readonly string[],
    { parts, lenient }: { parts: { left: number }; lenient: boolean },
  ): Promise<Result<{ allowed: string[]; decided: number }, AuthzError>> => {
    const allowed: string[] = [];
    let decided = 0;
    for (let size = Math.ceil(candidates.length / 2); decided < candidates.length && parts.left > 0; parts.left -= 1) {
      const [first, ...rest] = candidates.slice(decided, decided + size);
      if (first === undefined) break;
      const part: [string, ...string[]] = [first, ...rest];
      // oxlint-disable-next-line no-await-in-loop -- how large the next part may be is known by this one
      const tuples = await load(db, request, part);
      const found = tuples.ok ? filterAllowed(model, tuples.value, request.subject, request.relation, part) : tuples;
      if (!found.ok) {
        if (!isTooComplex(found.error)) return found;
        if (rest.length > 0) {
          size = Math.ceil(part.length / 2);
          continue;
        }
        if (!lenient) return found;
      } else allowed.push(...found.value);
      decided += part.length;
      size *= 2;
    }
    return ok({ allowed, decided });
  };

  return {
    async check(db, request) {
      const problem = checkRequestProblem(model, request);
      if (problem !== null) return err(problem);
      const tuples = await load(atPrimary(db), request, [request.object]);
      if (!tuples.ok) return tuples;
      const decided = decide(model, tuples.value, request.subject, [request]);
      return decided.ok ? verdictOf(decided.value.evaluation, 0) : decided;
    },

    async explain(db, request) {
      const problem = checkRequestProblem(model, request);
      if (problem !== null) return err(problem);
      const tuples = await load(atPrimary(db), request, [request.object]);
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
      const context = contextRoots(model, request.contextualTuples);
      const statement = statementFor("list", request, request.type, context);
      const roots = JSON.stringify(context);
      const seeds = JSON.stringify(reverseSeeds(model, request));
      // A few more than asked for, so that single refusals do not cost another round trip.
      const candidateCount = limit + Math.min(limit, 20) + 1;
      // An object is often named twice: by its owner and by its parent.
      const namedCount = 3 * candidateCount;
      const objects: string[] = [];
      const parts = { left: MAX_PARTS };
      let cursor = page.cursor ?? "";
      for (let round = 0; round < MAX_ROUNDS; round += 1) {
        // oxlint-disable-next-line no-await-in-loop -- each round goes on where the last one ended
        const rows = await store
          .prepare(statement)
          .bind(
            roots,
            ...subjectParts(request.subject),
            MAX_NODES,
            MAX_TUPLES + 1,
            seeds,
            cursor,
            candidateCount,
            namedCount,
          )
          .raw<GraphRow>();
        const read = readRows(rows);
        if (read.reached >= MAX_NODES) return err(tooComplex("its subject leads to too many objects"));
        const found = read.candidates.map((id) => formatObject(request.type, id));
        const tuples = withContext(model, indexTuples(model, read.tuples), request.contextualTuples);
        const atOnce: Result<string[], AuthzError> =
          read.problem === null
            ? filterAllowed(model, tuples, request.subject, request.relation, found)
            : err(read.problem);
        if (!atOnce.ok && !isTooComplex(atOnce.error)) return atOnce;
        const filtered: Result<{ allowed: string[]; decided: number }, AuthzError> = atOnce.ok
          ? ok({ allowed: atOnce.value, decided: found.length })
          : // oxlint-disable-next-line no-await-in-loop -- each round goes on where the last one ended
            await filterInParts(store, request, found, { parts, lenient: page.lenient ?? false });
        if (!filtered.ok) return filtered;
        objects.push(...filtered.value.allowed);
        if (objects.length > limit) return ok(pageOf(objects.slice(0, limit)));
        const { decided } = filtered.value;
        const isCut = found.length >= candidateCount || decided < found.length;
        cursor = (isCut ? read.candidates[decided - 1] : read.lastNamed) ?? cursor;
        if (decided < found.length) break;
        if (!isCut && read.named < namedCount) return ok({ objects });
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

type Read = {
  tuples: Tuple[];
  candidates: string[];
  /** How many tuples named a candidate, how many nodes were reached on the way to them, and the last id named. */
  named: number;
  reached: number;
  lastNamed: string | null;
  /** Why `tuples` are not all that the checks depend on, or null. */
  problem: AuthzError | null;
};

function readRows(rows: readonly GraphRow[]): Read {
  const tuples: Tuple[] = [];
  const candidates: string[] = [];
  const counted = { n: 0, m: 0, r: 0 };
  let lastNamed: string | null = null;
  for (const [kind, objectType, objectId, relation, subjectType, subjectId, subjectRelation] of rows) {
    if (kind === "c") {
      candidates.push(String(objectId));
    } else if (kind !== "t") {
      counted[kind] = Number(objectId);
      if (kind === "m") lastNamed = relation;
    } else if (objectType !== null && relation !== null && subjectType !== null && subjectId !== null) {
      tuples.push({
        object: formatObject(objectType, String(objectId)),
        relation,
        subject: formatSubject({ type: subjectType, id: subjectId, relation: subjectRelation ?? "" }),
      });
    }
  }
  const problem =
    counted.n >= MAX_NODES
      ? tooComplex("it leads to too many objects")
      : tuples.length >= MAX_TUPLES
        ? tooComplex("it depends on too many tuples")
        : null;
  return { tuples, candidates, named: counted.m, reached: counted.r, lastNamed, problem };
}

type NodeKey = [type: string, id: string, relation: string];

/** Where contextual tuples lead, whether or not the question does: reading too much changes no answer. */
function contextRoots(model: Model, contextual: readonly Tuple[] | undefined): NodeKey[] {
  if (contextual === undefined || contextual.length === 0) return [];
  return contextual.flatMap((tuple): NodeKey[] => {
    const [type, id, relation] = subjectParts(tuple.subject);
    if (relation !== "") return [[type, id, relation]];
    if (id === WILDCARD) return [];
    return relationsFrom(model, typeOf(tuple.object), tuple.relation).map((next): NodeKey => [type, id, next]);
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

/** The graph of this product. */
export const sallyportGraph: Graph = createGraph(SALLYPORT_MODEL);
