/**
 * The relationship engine: decides checks over any OpenFGA schema 1.1 model without conditions. Pure: the tuples are handed in.
 *
 * Semantics are OpenFGA's: tuples that the model does not allow are ignored, a cycle grants nothing, a question that cannot
 * be decided within 25 steps is an error and never an answer. See docs/decisions for what a cycle through an exclusion means.
 */
import { err, ok, type Result } from "../../wire/result.ts";
import { buildDependencyGraph, type DependencyGraph, GraphTooLarge, MAX_DEPTH } from "./dependency-graph.ts";
import { evaluate, type Evaluation } from "./evaluation.ts";
import { subjectProblem, validateTuple, type Model } from "./model.ts";
import { candidateObjects } from "./reverse-expansion.ts";
import { formatTuple, parseObject, parseRelation, parseSubject, type Tuple } from "./tuple.ts";
import { combineIndexes, indexTuples, type TupleIndex } from "./tuple-index.ts";

/** OpenFGA's own error names, and their numbers on its wire. */
export const AUTHZ_ERROR_NUMBERS = {
  validation_error: 2000,
  authorization_model_resolution_too_complex: 2002,
  type_not_found: 2021,
  relation_not_found: 2022,
  invalid_tuple: 2027,
} as const;

export type AuthzErrorCode = keyof typeof AUTHZ_ERROR_NUMBERS;

/** Why a question could not be answered. `reason` names types, relations and tuples of the question, nothing stored. */
export type AuthzError = { readonly code: AuthzErrorCode; readonly reason: string };

/** "Is `subject` related to `object` by `relation`?", as if `contextualTuples` were stored too. */
export type CheckRequest = {
  readonly subject: string;
  readonly relation: string;
  readonly object: string;
  readonly contextualTuples?: readonly Tuple[];
};

/** "To which objects of `type` is `subject` related by `relation`?" */
export type ListObjectsRequest = {
  readonly subject: string;
  readonly relation: string;
  readonly type: string;
  readonly contextualTuples?: readonly Tuple[];
};

/**
 * Answers one check.
 *
 * @param stored what {@link indexTuples} made of the stored tuples; at least those reachable from the question
 * @returns whether it is allowed, or why it cannot be answered (never an answer by default)
 */
export function check(model: Model, stored: TupleIndex, request: CheckRequest): Result<boolean, AuthzError> {
  const problem = checkRequestProblem(model, request);
  if (problem !== null) return err(problem);
  const decided = decide(model, withContext(model, stored, request.contextualTuples), request.subject, [request]);
  if (!decided.ok) return decided;
  return verdictOf(decided.value.evaluation, 0);
}

/**
 * Lists the objects of a type to which the subject is related, sorted by their text.
 *
 * @returns the objects, or why they cannot be listed
 */
export function listObjects(
  model: Model,
  stored: TupleIndex,
  request: ListObjectsRequest,
): Result<string[], AuthzError> {
  const problem = listRequestProblem(model, request);
  if (problem !== null) return err(problem);
  const tuples = withContext(model, stored, request.contextualTuples);
  const { type, relation, subject } = request;
  const candidates = candidateObjects(model, tuples, { type, relation, subject });
  return filterAllowed(model, tuples, subject, relation, candidates);
}

/** Of `objects`, those to which `subject` is related by `relation`; the request has been validated. */
export function filterAllowed(
  model: Model,
  tuples: TupleIndex,
  subject: string,
  relation: string,
  objects: readonly string[],
): Result<string[], AuthzError> {
  const decided = decide(
    model,
    tuples,
    subject,
    objects.map((object) => ({ object, relation })),
  );
  if (!decided.ok) return decided;
  const allowed: string[] = [];
  for (const [index, object] of objects.entries()) {
    const verdict = verdictOf(decided.value.evaluation, index);
    if (!verdict.ok) return verdict;
    if (verdict.value) allowed.push(object);
  }
  return ok(allowed);
}

/** Decides several questions of one subject in one graph. */
export function decide(
  model: Model,
  tuples: TupleIndex,
  subject: string,
  questions: readonly { object: string; relation: string }[],
): Result<{ graph: DependencyGraph; evaluation: Evaluation }, AuthzError> {
  try {
    const graph = buildDependencyGraph(model, tuples, subject, questions);
    return ok({ graph, evaluation: evaluate(graph) });
  } catch (error) {
    if (error instanceof GraphTooLarge) return err(tooComplex("it depends on too many tuples"));
    throw error;
  }
}

/** The answer to one root, or the error that it lies too deep. */
export function verdictOf(evaluation: Evaluation, root: number): Result<boolean, AuthzError> {
  const verdict = evaluation.verdicts[root];
  if (verdict === "unknown") return err(tooComplex(`it follows more than ${MAX_DEPTH - 1} tuples one after another`));
  return ok(verdict === "allowed");
}

/** What is wrong with a check before any tuple is read, or null. */
export function checkRequestProblem(model: Model, request: CheckRequest): AuthzError | null {
  const subject = parseSubject(request.subject);
  if (!subject.ok) return { code: "validation_error", reason: subject.error };
  const unknown = subjectProblem(model, subject.value);
  if (unknown !== null) return { code: "validation_error", reason: unknown };
  const object = parseObject(request.object);
  if (!object.ok) return { code: "validation_error", reason: object.error };
  const relation = parseRelation(request.relation);
  if (!relation.ok) return { code: "validation_error", reason: relation.error };
  const relations = model.types.get(object.value.type);
  if (relations === undefined) {
    return { code: "validation_error", reason: `type '${object.value.type}' is not in the model` };
  }
  if (!relations.has(request.relation)) {
    return {
      code: "validation_error",
      reason: `relation '${object.value.type}#${request.relation}' is not in the model`,
    };
  }
  return contextProblem(model, request.contextualTuples);
}

/** What is wrong with a list request before any tuple is read, or null. */
export function listRequestProblem(model: Model, request: ListObjectsRequest): AuthzError | null {
  const context = contextProblem(model, request.contextualTuples);
  if (context !== null) return context;
  const relations = model.types.get(request.type);
  if (relations === undefined) return { code: "type_not_found", reason: `type '${request.type}' is not in the model` };
  if (!relations.has(request.relation)) {
    return { code: "relation_not_found", reason: `relation '${request.type}#${request.relation}' is not in the model` };
  }
  const subject = parseSubject(request.subject);
  if (!subject.ok) return { code: "validation_error", reason: subject.error };
  const unknown = subjectProblem(model, subject.value);
  return unknown === null ? null : { code: "validation_error", reason: unknown };
}

/** Stored and contextual tuples as one. */
export function withContext(model: Model, stored: TupleIndex, contextual: readonly Tuple[] | undefined): TupleIndex {
  if (contextual === undefined || contextual.length === 0) return stored;
  return combineIndexes(stored, indexTuples(model, contextual));
}

/** The error of a question that cannot be decided within the engine's bounds. */
export function tooComplex(reason: string): AuthzError {
  return { code: "authorization_model_resolution_too_complex", reason };
}

/** @returns whether an error says that the question lies beyond the engine's bounds, and not that it is malformed */
export function isTooComplex({ code }: AuthzError): boolean {
  return code === "authorization_model_resolution_too_complex";
}

function contextProblem(model: Model, contextual: readonly Tuple[] | undefined): AuthzError | null {
  for (const tuple of contextual ?? []) {
    const valid = validateTuple(model, tuple);
    if (!valid.ok) return { code: "invalid_tuple", reason: `${formatTuple(tuple)}: ${valid.error}` };
  }
  return null;
}
