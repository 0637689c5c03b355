/** Where the parameters of a route come from. */
import type { Context } from "hono";
import { nestedTooDeep, NESTING_MAX, nestsDeeperThan } from "../wire/nesting.ts";
import { type ProblemCode, ProxyError } from "../wire/problem.ts";
import type { HttpEnv } from "./middleware/request-context.ts";

export type Params = Record<string, unknown>;

export type ReadParams = (c: Context<HttpEnv>, body: Uint8Array) => Params;

const textDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export const noParams: ReadParams = () => ({});

/** A copy: an object without a prototype does not cross to a gate. */
export const queryParams: ReadParams = (c) => ({ ...c.req.query() });

export const pathAndQuery: ReadParams = (c) => ({ ...c.req.query(), ...c.req.param() });

/** A JSON object in the body, nested no deeper than can be handed on; anything else is refused with the route's own code. */
export function bodyParams(code: ProblemCode = "PROXY_BAD_REQUEST"): ReadParams {
  return (_c, body) => {
    let text: string;
    let value: unknown;
    try {
      text = textDecoder.decode(body);
      value = JSON.parse(text);
    } catch (error) {
      throw new ProxyError(code, { detail: "The body must be JSON in UTF-8.", cause: error });
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new ProxyError(code, { detail: "The body must be a JSON object." });
    }
    if (nestsDeeperThan(text, NESTING_MAX)) throw nestedTooDeep("body", code);
    return value as Params;
  };
}
