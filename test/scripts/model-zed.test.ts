import { readFileSync } from "node:fs";
import { transformer } from "@openfga/syntax-transformer";
import { expect, test } from "vitest";
import { zedSchema } from "../../scripts/model-zed.ts";
import type { ModelDocument } from "../../src/authz/engine/model.ts";

const kept = (file: string): string => readFileSync(new URL(`../../src/authz/${file}`, import.meta.url), "utf8");

test("model.json and model.zed are what model.fga says", () => {
  const compiled = transformer.transformDSLToJSONObject(kept("model.fga")) as ModelDocument;
  expect(JSON.parse(kept("model.json"))).toEqual(JSON.parse(JSON.stringify(compiled)));
  expect(kept("model.zed")).toBe(zedSchema(compiled));
});
