/** What a remote graph is, and one call to it over HTTP: behind a deadline, retries, a bound on the answer and a breaker of its own. */
import type { Config } from "../../config.ts";
import { backoffMs } from "../../resilience/backoff.ts";
import { readBody } from "../../resilience/bounded-body.ts";
import { type Breaker, createBreaker } from "../../resilience/breaker.ts";
import { DeadlineExceeded, withDeadline } from "../../resilience/deadline.ts";
import { errorFields, type Log } from "../../telemetry/log.ts";
import type { Meter } from "../../telemetry/meter.ts";
import { err, ok, type Result } from "../../wire/result.ts";
import type { Tuple } from "../engine/tuple.ts";

/** One attempt, connect to last byte. */
export const REMOTE_TIMEOUT_MS = 2_000;
/** One attempt and three retries. */
export const REMOTE_ATTEMPTS_MAX = 4;
/** The first pause is 200 to 300 ms, each further one twice as long. */
const REMOTE_RETRY = { initialMs: 250, maxMs: 2_000, jitterRatio: 0.2 } as const;
/** A whole call cannot take longer: what is being sent is held for this long and then belongs to the outbox. */
export const REMOTE_CALL_MAX_MS = 12_000;
const ANSWER_BYTES_MAX = 1_048_576;

/** How a call can fail; a label of the counters, so there are no others. */
export const EXCEPTION_CLASSES = [
  "none",
  "timeout",
  "connection",
  "http_502",
  "http_503",
  "http_504",
  "http_401",
  "http_403",
  "http_404",
  "http_408",
  "http_409",
  "http_429",
  "http_4xx",
  "http_5xx",
  "unexpected_answer",
  "still_granted",
  "breaker_open",
  "store",
] as const;
export type ExceptionClass = (typeof EXCEPTION_CLASSES)[number];

const TRANSIENT: ReadonlySet<ExceptionClass> = new Set(["timeout", "connection", "http_502", "http_503", "http_504"]);

/** A change of the graph: a principal owns a resource (or has another relation to it), or no longer. */
export type GraphChange = {
  op: "register" | "deregister";
  /** `type:id` */
  object: string;
  /** A subject; null: none, or for a deregister every subject. */
  principal: string | null;
  parent: string | null;
  /** null for an owner. */
  relation: string | null;
  /** Where the object stands; only what its tuples are written from needs it. */
  tenantId?: string;
};

/** Whether a subject has a relation to an object. */
export type GraphQuestion = { subject: string; relation: string; object: string };

export type RemoteGraph = {
  /**
   * Makes a change, and reads a removal back: it has been made when the service says that the grant does not stand, or has taken
   * it and cannot say. That it found nothing to remove proves nothing, as a route that is being deployed says the same.
   *
   * @param version rises with every change: the service may refuse one that comes late
   */
  apply(change: GraphChange, version: number): Promise<Result<void, ExceptionClass>>;
  /** Whether what a removal takes stands, as the service says; an error where it does not say. */
  stands(removal: GraphChange): Promise<Result<boolean, ExceptionClass>>;
  /** Yes and no are what the service says in so many words; anything else is an error. */
  check(question: GraphQuestion): Promise<Result<boolean, ExceptionClass>>;
  /** As `check`, of many at once, in their order; null: the service lists by itself. */
  readonly checkMany: ((questions: readonly GraphQuestion[]) => Promise<Result<boolean[], ExceptionClass>>) | null;
  /** The next ids of a type after `cursor`, in their order. An engine that is asked in bulk has none. */
  search(
    question: { subject: string; relation: string; type: string },
    page: { limit: number; cursor: string | null },
  ): Promise<Result<string[], ExceptionClass>>;
  /** Tuples as they are, for an engine that is to hold what D1 holds; null: a service keeps its own. */
  readonly mirror: {
    add(tuples: readonly Tuple[]): Promise<Result<void, ExceptionClass>>;
    holds(tuple: Tuple): Promise<Result<boolean, ExceptionClass>>;
  } | null;
  readonly breaker: Breaker;
};

export type RemoteGraphDeps = {
  /** Without a slash at its end. */
  url: string;
  /** Sent as `Authorization: Bearer`; null: none. */
  token?: string | null;
  /** The id of OpenFGA's authorization model; null: the newest. */
  model?: string | null;
  settings: Pick<Config, "breakerFailures" | "breakerWindowMs" | "breakerOpenMs">;
  fetch: (url: string, init: RequestInit) => Promise<Response>;
  now: () => number;
  pause: (ms: number) => Promise<void>;
  random: () => number;
  log: Log;
  count: Meter["count"];
};

export type Answer = { status: number; body: Uint8Array };

/** One call with its retries. `op`: what the counters of the dual write have it as; null: a question. */
export type RemoteCall = <T>(
  path: string,
  body: unknown,
  op: GraphChange["op"] | null,
  judge: (answer: Answer) => Result<T, ExceptionClass>,
) => Promise<Result<T, ExceptionClass>>;

/** @returns calls to a service behind its breaker; each ends within {@link REMOTE_CALL_MAX_MS} */
export function createRemoteCaller(deps: RemoteGraphDeps): { breaker: Breaker; call: RemoteCall } {
  const breaker = createBreaker({
    dependency: "authz",
    failures: deps.settings.breakerFailures,
    windowMs: deps.settings.breakerWindowMs,
    openMs: deps.settings.breakerOpenMs,
    probeLeaseMs: REMOTE_CALL_MAX_MS,
    onTransition: ({ from, to, failures }) => {
      deps.log.warn("authz.breaker", { from, to, failures });
      deps.count("sallyport_breaker_transitions", { dependency: "authz", from, to });
    },
  });

  const once = async (path: string, body: unknown): Promise<Result<Answer, ExceptionClass>> => {
    try {
      const answer = await withDeadline(REMOTE_TIMEOUT_MS, async (signal) => {
        const response = await deps.fetch(`${deps.url}${path}`, {
          method: "POST",
          headers: {
            "Content-Type": "application/json",
            Accept: "application/json",
            ...((deps.token ?? null) === null ? {} : { Authorization: `Bearer ${deps.token}` }),
          },
          body: JSON.stringify(body),
          redirect: "manual",
          signal,
        });
        return { status: response.status, body: await readBody(response.body, ANSWER_BYTES_MAX, signal) };
      });
      return ok(answer);
    } catch (error) {
      const exceptionClass = error instanceof DeadlineExceeded ? "timeout" : "connection";
      deps.log.warn("authz.remote_failed", { path, exceptionClass, ...errorFields(error) });
      return err(exceptionClass);
    }
  };

  /** One call with its retries. The breaker counts calls, not attempts: a call that was retried in vain failed once. */
  const call: RemoteCall = async (path, body, op, judge) => {
    const tally = (what: "attempt" | "success" | "retry" | "failure", exceptionClass: ExceptionClass): void => {
      if (op !== null) deps.count(`task_fgac_dual_write_${what}`, { op, exception_class: exceptionClass });
    };
    const admission = breaker.admit(deps.now());
    if (!admission.admitted) {
      tally("failure", "breaker_open");
      return err("breaker_open");
    }
    for (let attempt = 0; ; attempt += 1) {
      tally("attempt", "none");
      // oxlint-disable-next-line no-await-in-loop -- a retry follows its attempt
      const answered = await once(path, body);
      const judged = answered.ok ? judge(answered.value) : answered;
      if (judged.ok) {
        breaker.succeeded(admission.permit, deps.now());
        tally("success", "none");
        return judged;
      }
      if (!TRANSIENT.has(judged.error)) {
        // It answered: it is there, and says that this call is wrong.
        breaker.succeeded(admission.permit, deps.now());
        tally("failure", judged.error);
        return judged;
      }
      if (attempt + 1 >= REMOTE_ATTEMPTS_MAX) {
        breaker.failed(admission.permit, deps.now());
        tally("failure", judged.error);
        return judged;
      }
      tally("retry", judged.error);
      // oxlint-disable-next-line no-await-in-loop -- the pause before the retry
      await deps.pause(backoffMs(attempt + 1, REMOTE_RETRY, deps.random()));
    }
  };

  return { breaker, call };
}

/** Who must not have what any more: the subject its relation; of a whole object its parent's right to read it. Null where no parent is known. */
export function readBackQuestion({ object, principal, parent, relation }: GraphChange): GraphQuestion | null {
  if (principal !== null) return { subject: principal, relation: relation ?? "owner", object };
  return parent === null ? null : { subject: parent, relation: "read", object };
}

/** @returns undefined for what is no JSON */
export function jsonIn(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(body));
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** @returns how an answer that is no success failed */
export function classOf(status: number): ExceptionClass {
  if (status === 502) return "http_502";
  if (status === 503) return "http_503";
  if (status === 504) return "http_504";
  // These say nothing of the call itself: a credential that is changing, a route that is being deployed, a bad moment.
  if (status === 401) return "http_401";
  if (status === 403) return "http_403";
  if (status === 404) return "http_404";
  if (status === 408) return "http_408";
  if (status === 429) return "http_429";
  if (status >= 500) return "http_5xx";
  return status >= 400 ? "http_4xx" : "unexpected_answer";
}

/**
 * How an answer of an engine failed. An address that is not there is a setting that will stay wrong, and its 409 two writes at
 * the same moment.
 */
export function engineClassOf(status: number): ExceptionClass {
  if (status === 404) return "http_4xx";
  return status === 409 ? "http_409" : classOf(status);
}
