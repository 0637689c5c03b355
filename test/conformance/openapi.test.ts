import { createConfig, lintFromString } from "@redocly/openapi-core";
import { beforeAll, describe, expect, test } from "vitest";
import { type Proxy, startProxy } from "../support/program/proxy.ts";

let proxy: Proxy;
beforeAll(async () => {
  proxy = await startProxy();
  return () => proxy.stop();
});

describe("/openapi.json", () => {
  test("is what another's linter takes for OpenAPI 3.1", async () => {
    const source = await (await fetch(`${proxy.url}/openapi.json`)).text();
    const config = await createConfig({
      extends: ["recommended"],
      // A socket is opened by 101.
      rules: { "operation-2xx-response": "off", "operation-4xx-response": "error" },
    });
    const problems = await lintFromString({ source, absoluteRef: "openapi.json", config });
    const shown = problems.map(
      ({ ruleId, message, location }) => `${ruleId}: ${message} at ${location[0]?.pointer ?? ""}`,
    );
    expect(shown).toEqual([]);
  });
});
