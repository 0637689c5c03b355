import { readFileSync } from "node:fs";
import { transformer } from "@openfga/syntax-transformer";
import { expect, test } from "vitest";

const read = (name: string): string => readFileSync(new URL(`../../src/authz/${name}`, import.meta.url), "utf8");

test("model.json is what model.fga compiles to: run scripts/compile-model.ts after a change", () => {
  const compiled: unknown = transformer.transformDSLToJSONObject(read("model.fga"));
  expect(JSON.parse(read("model.json"))).toEqual(JSON.parse(JSON.stringify(compiled)));
});
