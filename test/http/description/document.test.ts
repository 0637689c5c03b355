import { env, exports } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import manifest from "../../../package.json" with { type: "json" };
import { app } from "../../../src/app.ts";
import { openApiDocument } from "../../../src/http/description/document.ts";
import { OPERATIONS } from "../../../src/http/description/operations.ts";
import { ROUTES } from "../../../src/http/description/routes.ts";
import { describedRoutes } from "../../../src/http/routes/openapi.ts";
import { defineMethod } from "../../../src/rpc/method.ts";
import { runtimeOf } from "../../../src/runtime.ts";
import { JsonText } from "../../../src/wire/json-text.ts";
import { PROBLEMS } from "../../../src/wire/problem.ts";
import { VERSION } from "../../../src/wire/version.ts";

type Operation = {
  operationId: string;
  summary: string;
  security: Record<string, unknown>[];
  parameters?: { name: string; in: string; required: boolean }[];
  requestBody?: { content: Record<string, { schema: unknown; example?: unknown }> };
  responses: Record<string, { description: string; content?: Record<string, { schema: unknown }> }>;
};
type Document = {
  openapi: string;
  info: { version: string };
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Record<string, unknown>> };
};

const ORIGIN = "https://proxy.example.com";
const { methods } = runtimeOf(env).dispatcher;
const routes = describedRoutes(app.routes);
const document = async (): Promise<Document> => (await exports.default.fetch(`${ORIGIN}/openapi.json`)).json();
/** Members that keep their own text reach the schema as such. */
const withTexts = (name: string, example: Readonly<Record<string, unknown>>): Record<string, unknown> => {
  const keeps = methods.find((method) => method.name === name)?.keeps ?? [];
  const entries = Object.entries(example).map(([member, value]) => [
    member,
    keeps.includes(member) ? new JsonText(JSON.stringify(value)) : value,
  ]);
  return Object.fromEntries(entries) as Record<string, unknown>;
};
const operationsOf = ({ paths }: Document): Operation[] => Object.values(paths).flatMap((path) => Object.values(path));

describe("GET /openapi.json", () => {
  test("is OpenAPI 3.1 of this version, for anyone", async () => {
    const answer = await exports.default.fetch(`${ORIGIN}/openapi.json`);
    expect(answer.status).toBe(200);
    expect(answer.headers.get("Content-Type")).toBe("application/json");
    const { openapi, info } = (await answer.json()) as Document;
    expect(openapi).toBe("3.1.0");
    expect(info.version).toBe(VERSION);
  });

  test("and every other answer name the version, which is that of the package", async () => {
    expect(VERSION).toBe(manifest.version);
    for (const path of ["/health", "/openapi.json", "/nowhere", "/v1/agents"]) {
      const answer = await exports.default.fetch(`${ORIGIN}${path}`);
      expect(answer.headers.get("X-Sallyport-Version"), path).toBe(VERSION);
    }
    expect(await (await exports.default.fetch(`${ORIGIN}/health`)).json()).toEqual({ status: "ok", version: VERSION });
  });

  test("holds every route, and every method of /rpc as an operation of its own", async () => {
    const { paths } = await document();
    const described = Object.entries(paths).flatMap(([path, verbs]) =>
      Object.keys(verbs).map((verb) => `${verb.toUpperCase()} ${path}`),
    );
    const wanted = [
      ...routes.map(({ verb, path }) => `${verb} ${path.replace(/:(\w+)/g, "{$1}")}`),
      ...methods.filter(({ surface }) => surface === "rpc").map(({ name }) => `POST /rpc#${name}`),
    ];
    expect(described.toSorted()).toEqual([...new Set(wanted)].toSorted());
  });

  test("names each operation once", async () => {
    const ids = operationsOf(await document()).map(({ operationId }) => operationId);
    expect(ids.length).toBeGreaterThan(60);
    expect(new Set(ids).size).toBe(ids.length);
  });

  test("says of every error code where it comes from", async () => {
    const text = JSON.stringify(operationsOf(await document()).map(({ responses }) => responses));
    const nowhere = Object.keys(PROBLEMS).filter((code) => !text.includes(code));
    expect(nowhere, "add them to `refuses` of an operation in src/http/description/").toEqual([]);
  });

  test("takes parameters and results from what validates them", async () => {
    const { paths, components } = await document();
    expect(paths["/rpc#task/list"]?.["post"]?.security).toContainEqual({ agent: [], agentAccess: [], proof: [] });
    expect(components.schemas["task.list.params"]).toMatchObject({
      properties: { limit: { type: "integer", minimum: 1, maximum: 100 } },
    });
    expect(paths["/v1/deliveries/{deliveryId}"]?.["get"]?.parameters).toContainEqual(
      expect.objectContaining({ name: "deliveryId", in: "path", required: true }),
    );
    expect(paths["/v1/agents"]?.["post"]?.responses["201"]).toBeDefined();
  });

  test("refers to nothing that is not there", async () => {
    const whole = await document();
    const references = [...JSON.stringify(whole).matchAll(/"\$ref":"#\/components\/(\w+)\/([^"]+)"/g)];
    expect(references.length).toBeGreaterThan(100);
    for (const [, part = "", name = ""] of references) {
      const components = whole.components as unknown as Record<string, Record<string, unknown>>;
      expect(components[part]?.[name], `${part}/${name}`).toBeDefined();
    }
  });

  test("carries an example that its own method takes, for each method with parameters", () => {
    for (const { name, params } of methods) {
      const { example } = OPERATIONS[name as keyof typeof OPERATIONS];
      if (example === undefined) continue;
      const parsed = params.safeParse(withTexts(name, example));
      expect(parsed.success ? [] : parsed.error.issues, `example of ${name} in operations.ts`).toEqual([]);
    }
  });
});

describe("what nobody has described", () => {
  const described = { routes, methods, version: VERSION };

  test("is a route: the document says where to describe it", () => {
    const added = { ...described, routes: [...routes, { verb: "GET", path: "/v1/new", behind: null }] };
    expect(() => openApiDocument(added)).toThrow(
      'the route "GET /v1/new" is not described: add it to src/http/description/routes.ts',
    );
  });

  test("is a method: the document says where to describe it", () => {
    const first = methods[0];
    if (first === undefined) throw new Error("there are no methods");
    const added = {
      ...described,
      methods: [...methods, defineMethod({ ...first, name: "new/method", surface: "rpc" })],
    };
    expect(() => openApiDocument(added)).toThrow(
      'the method "new/method" is not described: add it to src/http/description/operations.ts',
    );
  });

  test("is nothing that is there no more", () => {
    const keys = routes.filter(({ behind }) => behind === null).map(({ verb, path }) => `${verb} ${path}`);
    expect(Object.keys(ROUTES).toSorted()).toEqual(keys.toSorted());
    expect(Object.keys(OPERATIONS).toSorted()).toEqual(methods.map(({ name }) => name).toSorted());
  });
});
