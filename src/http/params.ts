/** Where the parameters of a route come from. */
import type { Context } from "hono";
import { JsonText, parseKeeping } from "../wire/json-text.ts";
import { NESTING_MAX, nestsDeeperThan } from "../wire/nesting.ts";
import { type ProblemCode, ProxyError } from "../wire/problem.ts";
import { refuseOtherCharset } from "./content-type.ts";
import type { HttpEnv } from "./middleware/request-context.ts";

/** Values from the path and the query, or the text of a body. */
export type Params = Record<string, unknown> | JsonText;

export type ReadParams = (c: Context<HttpEnv>, body: Uint8Array) => Params;

const textDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** For a method that takes nothing. */
export const noParams: ReadParams = () => ({});

/** A copy: an object without a prototype does not cross to a gate. */
export const queryParams: ReadParams = (c) => ({ ...c.req.query() });

/** Members of the path win over those of the query. */
export const pathAndQuery: ReadParams = (c) => ({ ...c.req.query(), ...c.req.param() });

/**
 * The body as its own text, which the method reads where it runs: once its caller has been admitted and counted.
 *
 * @param code for what is no UTF-8
 */
export function bodyParams(code: ProblemCode = "PROXY_BAD_REQUEST"): ReadParams {
  return (c, body) => {
    refuseOtherCharset(c.req.header("Content-Type"));
    try {
      return new JsonText(textDecoder.decode(body));
    } catch (cause) {
      throw new ProxyError(code, { detail: "The body must be JSON in UTF-8.", cause });
    }
  };
}

/** @returns one member of parameters, or undefined where there is none; for an operator's, who names an agent by it */
export function memberOf(params: Params, name: string): unknown {
  if (!(params instanceof JsonText)) return params[name];
  const parsed = nestsDeeperThan(params.json, NESTING_MAX) ? null : parseKeeping(params.json, []);
  return parsed?.ok === true ? parsed.value[name] : undefined;
}
