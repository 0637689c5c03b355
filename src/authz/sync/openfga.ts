/**
 * OpenFGA as the remote graph, over its HTTP API (https://openfga.dev/api/service). It never grants by failing: nothing but
 * `allowed: true` is a yes.
 */
import { err, ok, type Result } from "../../wire/result.ts";
import type { Tuple } from "../engine/tuple.ts";
import { engineObjectText, engineSubjectText, tuplesOf } from "./engine-tuples.ts";
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

/** Tuples of one Write, and of one page of Read. */
const TUPLES_MAX = 100;
/** Questions of one BatchCheck, by the server's default. */
const CHECKS_MAX = 50;
/** Pages of one object's removal; what is beyond stays due in the outbox. */
const REMOVAL_PAGES_MAX = 20;
/** Past the server's caches: a removal that has been committed is seen. */
const CONSISTENCY = { consistency: "HIGHER_CONSISTENCY" } as const;

type TupleKey = { user: string; relation: string; object: string };

/** @returns OpenFGA's store behind its breaker */
export function createOpenFga(deps: RemoteGraphDeps): RemoteGraph {
  const { breaker, call } = createRemoteCaller(deps);
  const model = (deps.model ?? null) === null ? {} : { authorization_model_id: deps.model };

  const write = (op: GraphChange["op"], keys: readonly TupleKey[]): Promise<Result<void, ExceptionClass>> => {
    const body =
      op === "register"
        ? { writes: { tuple_keys: keys, on_duplicate: "ignore" } }
        : { deletes: { tuple_keys: keys, on_missing: "ignore" } };
    return call("/write", { ...body, ...model }, op, ({ status }) =>
      status === 200 ? ok(undefined) : err(engineClassOf(status)),
    );
  };

  /** Deletes every tuple of an object, page by page: what was deleted is not read again. */
  const removeAll = async (object: string): Promise<Result<void, ExceptionClass>> => {
    const filter = { tuple_key: { object: engineObjectText(object) }, page_size: TUPLES_MAX, ...CONSISTENCY };
    for (let page = 0; page < REMOVAL_PAGES_MAX; page += 1) {
      // oxlint-disable-next-line no-await-in-loop -- each page is deleted before the next is read
      const keys = await call("/read", filter, null, tupleKeysIn);
      if (!keys.ok) return keys;
      if (keys.value.length === 0) return ok(undefined);
      // oxlint-disable-next-line no-await-in-loop -- as above
      const deleted = await write("deregister", keys.value);
      if (!deleted.ok) return deleted;
    }
    return err("still_granted");
  };

  const check: RemoteGraph["check"] = (question) =>
    call("/check", { tuple_key: questionKey(question), ...CONSISTENCY, ...model }, null, ({ status, body }) =>
      status === 200 ? allowedIn(jsonIn(body)) : err(engineClassOf(status)),
    );

  /** Whether the very tuples are there: what another tuple grants is none of a removal's. */
  const stands: RemoteGraph["stands"] = async (removal) => {
    const filters =
      removal.principal === null ? [{ object: engineObjectText(removal.object) }] : tuplesOf(removal).map(tupleKey);
    for (const tuple_key of filters) {
      // oxlint-disable-next-line no-await-in-loop -- one or two
      const found = await call("/read", { tuple_key, page_size: 1, ...CONSISTENCY }, null, tupleKeysIn);
      if (!found.ok) return found;
      if (found.value.length > 0) return ok(true);
    }
    return ok(false);
  };

  const checkPage = (questions: readonly GraphQuestion[]): Promise<Result<boolean[], ExceptionClass>> => {
    const checks = questions.map((question, index) => ({
      tuple_key: questionKey(question),
      correlation_id: String(index),
    }));
    return call("/batch-check", { checks, ...CONSISTENCY, ...model }, null, (answer) =>
      verdictsIn(answer, checks.length),
    );
  };

  return {
    breaker,
    check,
    stands,

    async apply(change) {
      if (change.op === "register") return write("register", tuplesOf(change).map(tupleKey));
      const removed =
        change.principal === null
          ? await removeAll(change.object)
          : await write("deregister", tuplesOf(change).map(tupleKey));
      if (!removed.ok) return removed;
      const standing = await stands(change);
      if (!standing.ok) return standing;
      return standing.value ? err("still_granted") : ok(undefined);
    },

    mirror: {
      add: (tuples) => write("register", tuples.map(tupleKey)),
      async holds(tuple) {
        const found = await call(
          "/read",
          { tuple_key: tupleKey(tuple), page_size: 1, ...CONSISTENCY },
          null,
          tupleKeysIn,
        );
        return found.ok ? ok(found.value.length > 0) : found;
      },
    },

    async checkMany(questions) {
      const verdicts: boolean[] = [];
      for (let from = 0; from < questions.length; from += CHECKS_MAX) {
        // oxlint-disable-next-line no-await-in-loop -- one page of questions after the other
        const answered = await checkPage(questions.slice(from, from + CHECKS_MAX));
        if (!answered.ok) return answered;
        verdicts.push(...answered.value);
      }
      return ok(verdicts);
    },

    // Its own lists have no cursor and are cut without a word: candidates come from D1 and are asked about in bulk.
    search: async () => err("unexpected_answer"),
  };
}

function tupleKey({ object, relation, subject }: Tuple): TupleKey {
  return { user: engineSubjectText(subject), relation, object: engineObjectText(object) };
}

function questionKey({ subject, relation, object }: GraphQuestion): TupleKey {
  return tupleKey({ subject, relation, object });
}

function allowedIn(value: unknown): Result<boolean, ExceptionClass> {
  const allowed = typeof value === "object" && value !== null && "allowed" in value ? value.allowed : null;
  return typeof allowed === "boolean" ? ok(allowed) : err("unexpected_answer");
}

/** `{"result": {"<correlation id>": {"allowed"}}}`; one that is missing or an error leaves all of them without an answer. */
function verdictsIn({ status, body }: Answer, expected: number): Result<boolean[], ExceptionClass> {
  if (status !== 200) return err(engineClassOf(status));
  const value = jsonIn(body);
  const result = typeof value === "object" && value !== null && "result" in value ? value.result : null;
  if (typeof result !== "object" || result === null) return err("unexpected_answer");
  const verdicts: boolean[] = [];
  for (let index = 0; index < expected; index += 1) {
    const allowed = allowedIn((result as Record<string, unknown>)[String(index)]);
    if (!allowed.ok) return allowed;
    verdicts.push(allowed.value);
  }
  return ok(verdicts);
}

/** `{"tuples": [{"key"}]}` */
function tupleKeysIn({ status, body }: Answer): Result<TupleKey[], ExceptionClass> {
  if (status !== 200) return err(engineClassOf(status));
  const value = jsonIn(body);
  const tuples = typeof value === "object" && value !== null && "tuples" in value ? value.tuples : null;
  if (!Array.isArray(tuples)) return err("unexpected_answer");
  const keys: TupleKey[] = [];
  for (const { key } of tuples as { key?: Partial<TupleKey> }[]) {
    const { user, relation, object } = key ?? {};
    if (typeof user !== "string" || typeof relation !== "string" || typeof object !== "string")
      return err("unexpected_answer");
    keys.push({ user, relation, object });
  }
  return ok(keys);
}
