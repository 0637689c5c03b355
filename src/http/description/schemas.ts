/** JSON Schema of what validates: made of the very schemas that read parameters and check results. */
import * as z from "zod/mini";
import type { Method } from "../../rpc/method.ts";

/** A JSON Schema (2020-12), or a part of the document. */
export type JsonObject = { [member: string]: unknown };

const OPTIONS = { target: "draft-2020-12", unrepresentable: "any" } as const;

/** @returns what a caller may send: what a transform makes of it is not the caller's */
export function inputSchema(schema: z.ZodMiniType): JsonObject {
  return plain(z.toJSONSchema(schema, { ...OPTIONS, io: "input" }));
}

/** @returns what a caller gets. Members may be added to an answer, and a client ignores those that it does not know */
export function outputSchema(schema: z.ZodMiniType): JsonObject {
  return plain(z.toJSONSchema(schema, { ...OPTIONS, io: "output" }));
}

/** Parameters of a method. Members that keep their own text are any JSON. */
export function paramsSchema(method: Method): JsonObject {
  return inputSchema(method.params);
}

/** @returns the members of an object's schema, and which of them have to be there */
export function membersOf(schema: JsonObject): { properties: Record<string, JsonObject>; required: readonly string[] } {
  const { properties = {}, required = [] } = schema as {
    properties?: Record<string, JsonObject>;
    required?: readonly string[];
  };
  return { properties, required };
}

/** Without what concerns only a document of its own. */
function plain(schema: object): JsonObject {
  const { $schema: _dialect, "~standard": _standard, ...rest } = schema as JsonObject;
  return openObjects(rest) as JsonObject;
}

/** Unknown members are ignored, in both directions (contract, first page). */
function openObjects(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(openObjects);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([name, member]) => name !== "additionalProperties" || typeof member === "object")
      .map(([name, member]) => [name, openObjects(member)]),
  );
}
