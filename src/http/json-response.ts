/** Answers whose JSON is written already. */
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";

/** @returns a response of JSON text as it is, which nobody keeps */
export function jsonResponse(c: Context, json: string, status: ContentfulStatusCode = 200): Response {
  return c.body(json, status, { "Content-Type": "application/json", "Cache-Control": "no-store" });
}
