/**
 * A remote authorization service of this product's own shape: register, deregister, check and search. It never grants by failing:
 * whatever is not a clear yes is no, or an error.
 */
import { err, ok, type Result } from "../../wire/result.ts";
import {
  type Answer,
  classOf,
  createRemoteCaller,
  type ExceptionClass,
  type GraphChange,
  jsonIn,
  readBackQuestion,
  type RemoteGraph,
  type RemoteGraphDeps,
} from "./remote-call.ts";

/** @returns the service behind its breaker; every call ends in bounded time */
export function createRemoteGraph(deps: RemoteGraphDeps): RemoteGraph {
  const { breaker, call } = createRemoteCaller(deps);

  const check: RemoteGraph["check"] = ({ subject, relation, object }) =>
    call("/v1/authz/check", { principal: subject, resource: resourceOf(object), operation: relation }, null, verdictOf);

  const send = (change: GraphChange, version: number): Promise<Result<"done" | "not-found", ExceptionClass>> => {
    const { op, object, principal, parent, relation } = change;
    const body = {
      principal,
      resource: resourceOf(object),
      parent,
      version,
      ...(relation === null ? {} : { relation }),
    };
    return call(`/v1/authz/${op}`, body, op, ({ status }) => {
      if (status >= 200 && status < 300) return ok("done");
      return op === "deregister" && status === 404 ? ok("not-found") : err(classOf(status));
    });
  };

  const stands: RemoteGraph["stands"] = async (removal) => {
    const question = readBackQuestion(removal);
    return question === null ? err("unexpected_answer") : check(question);
  };

  return {
    breaker,
    check,
    checkMany: null,
    mirror: null,
    stands,

    async apply(change, version) {
      const answered = await send(change, version);
      if (!answered.ok) return answered;
      if (change.op === "register") return ok(undefined);
      const standing = await stands(change);
      if (standing.ok) return standing.value ? err("still_granted") : ok(undefined);
      if (answered.value === "not-found") return err("http_404");
      return CANNOT_SAY.has(standing.error) ? ok(undefined) : standing;
    },

    search: ({ subject, relation, type }, { limit, cursor }) =>
      call(
        "/v1/authz/search",
        { principal: subject, resource: { type }, operation: relation, limit, ...(cursor === null ? {} : { cursor }) },
        null,
        ({ status, body }) => {
          if (status === 403) return ok([]);
          if (status !== 200) return err(classOf(status));
          const ids = idsIn(body);
          if (ids === null) return err("unexpected_answer");
          const after = ids.filter((id) => cursor === null || id > cursor);
          return ok(after.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0)).slice(0, limit));
        },
      ),
  };
}

/** A service that answers so to a question about a relation knows permissions alone. */
const CANNOT_SAY: ReadonlySet<ExceptionClass> = new Set(["http_404", "http_4xx", "unexpected_answer"]);

/** 200 with `{"allowed": true}` is yes; 200 with `{"allowed": false}`, or 403, is no. */
function verdictOf({ status, body }: Answer): Result<boolean, ExceptionClass> {
  if (status === 403) return ok(false);
  if (status !== 200) return err(classOf(status));
  const value = jsonIn(body);
  const allowed = typeof value === "object" && value !== null && "allowed" in value ? value.allowed : null;
  return typeof allowed === "boolean" ? ok(allowed) : err("unexpected_answer");
}

function resourceOf(object: string): { type: string; selector: string } {
  const colon = object.indexOf(":");
  return { type: object.slice(0, colon), selector: object.slice(colon + 1) };
}

/** `{"items": ["<id>", …]}`, or items that name their `selector`. */
function idsIn(body: Uint8Array): string[] | null {
  const value = jsonIn(body);
  const items = typeof value === "object" && value !== null && "items" in value ? value.items : null;
  if (!Array.isArray(items)) return null;
  const ids = items.map((item: unknown) => {
    if (typeof item === "string") return item;
    return typeof item === "object" && item !== null && "selector" in item && typeof item.selector === "string"
      ? item.selector
      : null;
  });
  const named = ids.filter((id) => id !== null);
  return named.length === ids.length ? named : null;
}
