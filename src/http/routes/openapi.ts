/** `GET /openapi.json`: the whole HTTP surface, described by what validates it. Contract §3. */
import type { Handler } from "hono";
import { type DescribedRoute, openApiDocument } from "../description/document.ts";
import type { HttpEnv } from "../middleware/request-context.ts";
import { methodBehind } from "./method-route.ts";
import { VERSION } from "../../wire/version.ts";

/** A route as Hono keeps it. */
type KeptRoute = { method: string; path: string; handler: object };

/** How long somebody's cache may keep the document: a release changes it. */
const HEADERS = { "Content-Type": "application/json", "Cache-Control": "public, max-age=300" };

/**
 * @param routes asked for once, when all of them are there
 * @returns a handler that answers with the document, which this isolate makes once
 */
export function openapi(routes: () => readonly KeptRoute[]): Handler<HttpEnv> {
  let text: string | null = null;
  return (c) => {
    const { methods } = c.get("runtime").dispatcher;
    text ??= JSON.stringify(openApiDocument({ routes: describedRoutes(routes()), methods, version: VERSION }));
    return new Response(text, { headers: HEADERS });
  };
}

/** @returns the routes without the middleware */
export function describedRoutes(routes: readonly KeptRoute[]): DescribedRoute[] {
  return routes
    .filter(({ method }) => method !== "ALL")
    .map(({ method, path, handler }) => ({ verb: method, path, behind: methodBehind(handler) }));
}
