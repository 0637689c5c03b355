/** What every request meets first, by the front door. */
import { env, exports } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import worker from "../../../src/worker.ts";

describe("an issuer that can be nobody's own", () => {
  test.each(["http://127.0.0.1:8787", "http://localhost:8787", "https://gate.internal", "https://proxy.example"])(
    "is served where the public does not come by name: %s",
    async (origin) => expect((await exports.default.fetch(`${origin}/health`)).status).toBe(200),
  );

  test.each(["/health", "/v1/agents", "/.well-known/claw-keys.json"])(
    "is answered with a bare 503 where it does: %s",
    async (path) => {
      const response = await exports.default.fetch(`https://sallyport.alice.workers.dev${path}`);
      expect(response.status).toBe(503);
      expect(await response.text()).toBe("");
    },
  );

  const elsewhere = (settings: Partial<Env>): Promise<Response> => {
    const context = { waitUntil: () => undefined, passThroughOnException: () => undefined, props: {} };
    const request = new Request("https://sallyport.alice.workers.dev/health");
    return Promise.resolve(worker.fetch!(request as never, { ...env, ...settings }, context as never));
  };

  test.each([
    { what: "one that is somebody's", settings: { REGISTRY_ISSUER: "https://agents.alice-and-sons.com" } },
    { what: "what npm run dev serves", settings: { DEVELOPMENT: "on" } },
    { what: "a registry elsewhere", settings: { REGISTRY_URL: "https://registry.alice-and-sons.com" } },
  ])("is not looked for in $what", async ({ settings }) => {
    expect((await elsewhere(settings as Partial<Env>)).status).toBe(200);
  });
});
