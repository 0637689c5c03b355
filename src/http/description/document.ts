/** `/openapi.json`, OpenAPI 3.1: made of the routes of `app.ts`, the declarations of the methods, and the lines of this folder. */
import type { Method } from "../../rpc/method.ts";
import type { MethodName } from "../../rpc/permissions.ts";
import type { MethodRoute } from "../routes/method-route.ts";
import type { RouteNeeds } from "../../auth/form.ts";
import {
  callRefusalsOf,
  PROBLEM_SCHEMA,
  problemAnswers,
  refusalsOf,
  RPC_FAILURE_SCHEMA,
  rpcFailureOf,
} from "./answers.ts";
import { OPERATIONS } from "./operations.ts";
import { type Answer, type RouteDescription, ROUTES } from "./routes.ts";
import { type JsonObject, membersOf, outputSchema, paramsSchema } from "./schemas.ts";
import { requirementsOf, SECURITY_SCHEMES } from "./security.ts";
import { tagDescription, tagOf } from "./tags.ts";

/** A route as `app.ts` has it; `behind` where it stands before a method. */
export type DescribedRoute = {
  /** `GET`, `POST` … */
  readonly verb: string;
  /** As Hono writes it: `/v1/deliveries/:deliveryId`. */
  readonly path: string;
  readonly behind: { readonly needs: RouteNeeds; readonly route: MethodRoute } | null;
};

export type Described = {
  readonly routes: readonly DescribedRoute[];
  readonly methods: readonly Method[];
  readonly version: string;
};

/**
 * @returns the document
 * @throws TypeError for a route or a method that nobody has described; it says where to
 */
export function openApiDocument({ routes, methods, version }: Described): JsonObject {
  const byName = new Map(methods.map((method) => [method.name, method]));
  const paths: Record<string, JsonObject> = {};
  const put = (path: string, verb: string, operation: JsonObject): void => {
    paths[path] = { ...paths[path], [verb.toLowerCase()]: operation };
  };
  const taken = new Set<string>();
  for (const { verb, path, behind } of routes) {
    const operation =
      behind === null
        ? routeOperation(`${verb} ${path}`)
        : methodOperation(methodNamed(byName, behind.route.method), verb, path, behind);
    const first = operationIdOf(behind === null ? `${verb} ${path}` : behind.route.method);
    const operationId = taken.has(first) ? operationIdOf(`${verb} ${path}`) : first;
    taken.add(operationId);
    put(path.replace(/:(\w+)/g, "{$1}"), verb, { operationId, ...operation });
  }
  for (const method of methods) if (method.surface === "rpc") put(`/rpc#${method.name}`, "POST", rpcOperation(method));
  return {
    openapi: "3.1.0",
    info: {
      title: "Sallyport",
      version,
      summary: "The front gate for AI agents",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "/" }],
    tags: [...new Set(Object.values(paths).flatMap(tagsOf))]
      .toSorted()
      .map((name) => ({ name, description: tagDescription(name) })),
    paths,
    components: {
      schemas: schemasOf(methods, JSON.stringify(paths)),
      securitySchemes: SECURITY_SCHEMES,
      headers: HEADERS,
    },
  };
}

const HEADERS: JsonObject = {
  RequestId: {
    description: "As the caller sent it, or made here; it finds the request in the log.",
    schema: { type: "string" },
  },
  RetryAfter: { description: "Whole seconds, at least one.", schema: { type: "integer", minimum: 1 } },
};

/** @param used the paths as text: what nothing refers to is left out */
function schemasOf(methods: readonly Method[], used: string): JsonObject {
  const rpc = methods.filter(({ surface }) => surface === "rpc");
  return {
    Problem: PROBLEM_SCHEMA,
    RpcFailure: RPC_FAILURE_SCHEMA,
    RpcRequest: {
      type: "object",
      required: ["jsonrpc", "method"],
      properties: {
        jsonrpc: { const: "2.0" },
        id: { type: ["string", "number", "null"], description: "Absent: a notification, which gets no response." },
        method: { type: "string", examples: rpc.slice(0, 3).map(({ name }) => name) },
        params: { type: ["object", "array"] },
      },
    },
    RpcResponse: {
      anyOf: [
        {
          type: "object",
          required: ["jsonrpc", "id", "result"],
          properties: { jsonrpc: { const: "2.0" }, id: { type: ["string", "number", "null"] }, result: {} },
        },
        { $ref: "#/components/schemas/RpcFailure" },
      ],
    },
    ...Object.fromEntries(
      methods
        .flatMap((method): [string, () => JsonObject][] => [
          [`${schemaName(method)}.params`, () => paramsSchema(method)],
          [`${schemaName(method)}.result`, () => outputSchema(method.result)],
        ])
        .filter(([name]) => used.includes(`#/components/schemas/${name}"`))
        .map(([name, schema]) => [name, schema()]),
    ),
  };
}

function routeOperation(key: string): JsonObject {
  const described: RouteDescription | undefined = ROUTES[key];
  if (described === undefined)
    throw new TypeError(`the route "${key}" is not described: add it to src/http/description/routes.ts`);
  const { tag, summary, description, credentials = [], proofOnly, parameters, body, answers, refuses = [] } = described;
  const problems = problemAnswers(refusalsOf(credentials, refuses));
  return {
    tags: [tag],
    summary,
    ...(description === undefined ? {} : { description }),
    security: proofOnly === true ? [{ proof: [] }] : requirementsOf(credentials, true),
    ...(parameters === undefined ? {} : { parameters }),
    ...(body === undefined ? {} : { requestBody: requestBody(body.schema, exampleOf(body.example)) }),
    responses: {
      ...problems,
      ...Object.fromEntries(Object.entries(answers).map(([status, each]) => [status, success(each)])),
    },
  };
}

/** A route may borrow a method's example. */
function exampleOf(example: unknown): unknown {
  const named = (example as { $method?: MethodName } | undefined)?.$method;
  return named === undefined ? example : OPERATIONS[named].example;
}

function methodOperation(
  method: Method,
  verb: string,
  path: string,
  { needs, route }: NonNullable<DescribedRoute["behind"]>,
): JsonObject {
  const { summary, refuses = [], example } = lineOf(method);
  const ofPath = [...path.matchAll(/:(\w+)/g)].map(([, name = ""]) => name);
  const { properties, required } = membersOf(paramsSchema(method));
  const inBody = verb !== "GET" && verb !== "DELETE" && Object.keys(properties).some((name) => !ofPath.includes(name));
  const parameters = [
    ...ofPath.map((name) => parameter(name, "path", properties[name], true, example)),
    ...(inBody
      ? []
      : Object.keys(properties)
          .filter((name) => !ofPath.includes(name))
          .map((name) => parameter(name, "query", properties[name], required.includes(name), example))),
    ...operatorsAgent(route, properties, inBody),
  ];
  return {
    tags: [tagOf(method.name)],
    summary,
    security: requirementsOf(needs.accepts, needs.access),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(inBody ? { requestBody: requestBody(schemaRef(method, "params"), example) } : {}),
    responses: {
      ...problemAnswers(
        refusalsOf(needs.accepts, [...refuses, ...(method.invalidParams === undefined ? [] : [method.invalidParams])]),
      ),
      [String(route.status ?? 200)]: success({ description: "Done.", schema: schemaRef(method, "result") }),
    },
  };
}

/** An operator is in no gate, and names the agent. */
function operatorsAgent(route: MethodRoute, properties: Record<string, JsonObject>, inBody: boolean): JsonObject[] {
  const { inGateOf } = route;
  if (inGateOf === undefined || inBody || inGateOf in properties) return [];
  const description = "The agent; an operator names it, an agent's own is known.";
  return [{ name: inGateOf, in: "query", required: false, description, schema: { type: "string" } }];
}

function rpcOperation(method: Method): JsonObject {
  const { summary, refuses = [], example = {} } = lineOf(method);
  const call = {
    type: "object",
    required: ["jsonrpc", "method"],
    properties: {
      jsonrpc: { const: "2.0" },
      id: { type: ["string", "number", "null"] },
      method: { const: method.name },
      params: schemaRef(method, "params"),
    },
  };
  const codes = callRefusalsOf([...refuses, ...(method.invalidParams === undefined ? [] : [method.invalidParams])]);
  const succeeded = {
    type: "object",
    required: ["jsonrpc", "id", "result"],
    properties: {
      jsonrpc: { const: "2.0" },
      id: { type: ["string", "number", "null"] },
      result: schemaRef(method, "result"),
    },
  };
  const { callers, scope } = method.permission;
  return {
    operationId: operationIdOf(method.name),
    tags: [tagOf(method.name)],
    summary,
    ...(scope === null ? {} : { description: `Needs the scope \`${scope}\`.` }),
    security: requirementsOf(callers, true),
    requestBody: requestBody(call, { jsonrpc: "2.0", id: 1, method: method.name, params: example }),
    responses: {
      ...problemAnswers(refusalsOf(callers)),
      "200": success({
        description: `The result, or an error whose \`data.code\` is one of ${codes.map((code) => `\`${code}\``).join(", ")}.`,
        schema: { anyOf: [succeeded, rpcFailureOf(codes)] },
      }),
    },
  };
}

function success(answer: string | Answer): JsonObject {
  const headers = { "X-Request-Id": { $ref: "#/components/headers/RequestId" } };
  if (typeof answer === "string") return { description: answer, headers };
  const { description, type = "application/json", schema } = answer;
  return { description, headers, content: { [type]: { schema } } };
}

function requestBody(schema: JsonObject, example: unknown): JsonObject {
  const media = example === undefined ? { schema } : { schema, example };
  return { required: true, content: { "application/json": media } };
}

function parameter(
  name: string,
  place: "path" | "query",
  schema: JsonObject | undefined,
  required: boolean,
  example: OperationExample,
): JsonObject {
  const shown = example?.[name];
  return {
    name,
    in: place,
    required,
    schema: schema ?? { type: "string" },
    ...(shown === undefined ? {} : { example: shown }),
  };
}

type OperationExample = Readonly<Record<string, unknown>> | undefined;

function methodNamed(methods: ReadonlyMap<string, Method>, name: string): Method {
  const method = methods.get(name);
  if (method === undefined) throw new TypeError(`a route stands before the method "${name}", which does not exist`);
  return method;
}

function lineOf(method: Method) {
  const line = (OPERATIONS as Partial<typeof OPERATIONS>)[method.name as MethodName];
  if (line === undefined)
    throw new TypeError(`the method "${method.name}" is not described: add it to src/http/description/operations.ts`);
  return line;
}

function schemaRef(method: Method, part: "params" | "result"): JsonObject {
  return { $ref: `#/components/schemas/${schemaName(method)}.${part}` };
}

/** Names of components have no slash. */
function schemaName({ name }: Method): string {
  return name.replaceAll("/", ".");
}

/** `task/create` → `task.create`, `GET /v1/time` → `get.v1.time`. */
function operationIdOf(key: string): string {
  return key.replace(/^([A-Z]+) \//, (_, verb: string) => `${verb.toLowerCase()}.`).replaceAll(/[/:]+/g, ".");
}

function tagsOf(path: JsonObject): string[] {
  return Object.values(path).flatMap((operation) => (operation as { tags: string[] }).tags);
}
