/**
 * SpiceDB as the remote graph, over its HTTP gateway (https://buf.build/authzed/api). It never grants by failing: nothing but
 * `PERMISSIONSHIP_HAS_PERMISSION` is a yes.
 */
import { err, ok, type Result } from "../../wire/result.ts";
import type { Tuple } from "../engine/tuple.ts";
import { engineObject, engineSubject, tuplesOf } from "./engine-tuples.ts";
import {
  type Answer,
  createRemoteCaller,
  engineClassOf,
  type ExceptionClass,
  type GraphChange,
  type GraphQuestion,
  jsonIn,
  type RemoteGraph,
  type RemoteGraphDeps,
} from "./remote-call.ts";

/** Questions of one CheckBulkPermissions. */
const CHECKS_MAX = 100;
/** By the newest revision: a removal that has been committed is seen. */
const CONSISTENCY = { consistency: { fullyConsistent: true } } as const;

/** @returns SpiceDB behind its breaker */
export function createSpiceDb(deps: RemoteGraphDeps): RemoteGraph {
  const { breaker, call } = createRemoteCaller(deps);

  const write = (op: GraphChange["op"], tuples: readonly Tuple[]): Promise<Result<void, ExceptionClass>> => {
    const operation = op === "register" ? "OPERATION_TOUCH" : "OPERATION_DELETE";
    const updates = tuples.map((tuple) => ({ operation, relationship: relationshipOf(tuple) }));
    return call("/v1/relationships/write", { updates }, op, takenAt("writtenAt"));
  };

  const removeAll = (object: string): Promise<Result<void, ExceptionClass>> => {
    return call(
      "/v1/relationships/delete",
      { relationshipFilter: objectFilter(object) },
      "deregister",
      takenAt("deletedAt"),
    );
  };

  const check: RemoteGraph["check"] = (question) =>
    call("/v1/permissions/check", { ...CONSISTENCY, ...questionOf(question) }, null, ({ status, body }) =>
      status === 200 ? permissionIn(jsonIn(body)) : err(engineClassOf(status)),
    );

  /** Whether the very relationships are there: what another one grants is none of a removal's. */
  const stands: RemoteGraph["stands"] = async (removal) => {
    const filters = removal.principal === null ? [objectFilter(removal.object)] : tuplesOf(removal).map(tupleFilter);
    for (const relationshipFilter of filters) {
      const question = { ...CONSISTENCY, relationshipFilter, optionalLimit: 1 };
      // oxlint-disable-next-line no-await-in-loop -- one or two
      const found = await call("/v1/relationships/read", question, null, isAnyIn);
      if (!found.ok || found.value) return found;
    }
    return ok(false);
  };

  return {
    breaker,
    check,
    stands,

    async apply(change) {
      if (change.op === "register") return write("register", tuplesOf(change));
      const removed =
        change.principal === null ? await removeAll(change.object) : await write("deregister", tuplesOf(change));
      if (!removed.ok) return removed;
      const standing = await stands(change);
      if (!standing.ok) return standing;
      return standing.value ? err("still_granted") : ok(undefined);
    },

    mirror: {
      add: (tuples) => write("register", tuples),
      holds(tuple) {
        const question = { ...CONSISTENCY, relationshipFilter: tupleFilter(tuple), optionalLimit: 1 };
        return call("/v1/relationships/read", question, null, isAnyIn);
      },
    },

    async checkMany(questions) {
      const verdicts: boolean[] = [];
      for (let from = 0; from < questions.length; from += CHECKS_MAX) {
        const items = questions.slice(from, from + CHECKS_MAX).map(questionOf);
        // oxlint-disable-next-line no-await-in-loop -- one page of questions after the other
        const answered = await call("/v1/permissions/checkbulk", { ...CONSISTENCY, items }, null, (answer) =>
          verdictsIn(answer, items.length),
        );
        if (!answered.ok) return answered;
        verdicts.push(...answered.value);
      }
      return ok(verdicts);
    },

    // Its streams are for one answer as a whole: candidates come from D1 and are asked about in bulk, so that pages stay exact.
    search: async () => err("unexpected_answer"),
  };
}

function referenceOf(object: string): { objectType: string; objectId: string } {
  const { type, id } = engineObject(object);
  return { objectType: type, objectId: id };
}

function subjectOf(subject: string) {
  const { type, id, relation } = engineSubject(subject);
  return { object: { objectType: type, objectId: id }, ...(relation === "" ? {} : { optionalRelation: relation }) };
}

function relationshipOf({ object, relation, subject }: Tuple) {
  return { resource: referenceOf(object), relation, subject: subjectOf(subject) };
}

function objectFilter(object: string) {
  const { type, id } = engineObject(object);
  return { resourceType: type, optionalResourceId: id };
}

function tupleFilter({ object, relation, subject }: Tuple) {
  const { type, id, relation: userset } = engineSubject(subject);
  return {
    ...objectFilter(object),
    optionalRelation: relation,
    // An empty relation is the subject itself, and none given would be any.
    optionalSubjectFilter: { subjectType: type, optionalSubjectId: id, optionalRelation: { relation: userset } },
  };
}

/** A stream of `{"result": {"relationship"}}`; empty where there is none. An error stands in it as `{"error"}`. */
function isAnyIn({ status, body }: Answer): Result<boolean, ExceptionClass> {
  if (status !== 200) return err(engineClassOf(status));
  const [line = ""] = new TextDecoder().decode(body).split("\n");
  if (line.trim() === "") return ok(false);
  const value = jsonIn(new TextEncoder().encode(line));
  return typeof value === "object" && value !== null && "result" in value ? ok(true) : err("unexpected_answer");
}

function questionOf({ subject, relation, object }: GraphQuestion) {
  return { resource: referenceOf(object), permission: relation, subject: subjectOf(subject) };
}

/** A change is made when the answer says at which revision. */
function takenAt(member: "writtenAt" | "deletedAt"): (answer: Answer) => Result<void, ExceptionClass> {
  return ({ status, body }) => {
    if (status !== 200) return err(engineClassOf(status));
    const value = jsonIn(body);
    return typeof value === "object" && value !== null && member in value ? ok(undefined) : err("unexpected_answer");
  };
}

function permissionIn(value: unknown): Result<boolean, ExceptionClass> {
  const permissionship =
    typeof value === "object" && value !== null && "permissionship" in value ? value.permissionship : null;
  if (permissionship === "PERMISSIONSHIP_HAS_PERMISSION") return ok(true);
  return permissionship === "PERMISSIONSHIP_NO_PERMISSION" ? ok(false) : err("unexpected_answer");
}

/** `{"pairs": [{"item": {"permissionship"}}]}` in the order of the questions; an error in one leaves all without an answer. */
function verdictsIn({ status, body }: Answer, expected: number): Result<boolean[], ExceptionClass> {
  if (status !== 200) return err(engineClassOf(status));
  const value = jsonIn(body);
  const pairs = typeof value === "object" && value !== null && "pairs" in value ? value.pairs : null;
  if (!Array.isArray(pairs) || pairs.length !== expected) return err("unexpected_answer");
  const verdicts: boolean[] = [];
  for (const pair of pairs as { item?: unknown }[]) {
    const verdict = permissionIn(pair.item);
    if (!verdict.ok) return verdict;
    verdicts.push(verdict.value);
  }
  return ok(verdicts);
}
