/**
 * How deep JSON may nest. A reader takes any depth, but writing a deep value out again, or handing it to another object, is
 * beyond what a stack holds, and so is the database: what is more than text passed through has a bound.
 */
import { type ProblemCode, ProxyError } from "./problem.ts";

/** Most levels of objects and arrays in what a method is given, itself the first. */
export const NESTING_MAX = 128;

/** @param json valid JSON text */
export function nestsDeeperThan(json: string, max: number): boolean {
  let depth = 0;
  let inText = false;
  for (let at = 0; at < json.length; at++) {
    const char = json.charAt(at);
    if (inText) {
      if (char === "\\") at += 1;
      else if (char === '"') inText = false;
    } else if (char === '"') inText = true;
    else if (char === "{" || char === "[") {
      depth += 1;
      if (depth > max) return true;
    } else if (char === "}" || char === "]") depth -= 1;
  }
  return false;
}

/** @param value as `JSON.parse` makes it; looked at no deeper than the bound */
export function valueNestsDeeperThan(value: unknown, max: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return max === 0 || Object.values(value).some((member) => valueNestsDeeperThan(member, max - 1));
}

/** The refusal of what nests deeper. @param what names it */
export function nestedTooDeep(what: string, code: ProblemCode = "PROXY_BAD_REQUEST"): ProxyError {
  return new ProxyError(code, { detail: `${what}: is nested deeper than ${NESTING_MAX} levels` });
}
