/** The second level against the real Workers KV, which the other tests replace to make it fail. */
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { createFakeRegistry, createIsolate, jti, newKey } from "./fixture.ts";

describe("with Workers KV as the second level", () => {
  test("an isolate that starts during an outage has keys and list as the warm one left them", async () => {
    const key = await newKey("k1");
    const fake = createFakeRegistry([key]);
    await fake.publish(key, [jti(7)], Date.now());
    const warm = createIsolate(fake, { kv: env.CACHE });
    expect(await warm.isRevoked(jti(7))).toMatchObject({ ok: true, value: { revoked: true, cache: "miss" } });
    await warm.settle();

    fake.fail("down");
    const cold = createIsolate(fake, { kv: env.CACHE });
    expect(await cold.isRevoked(jti(7))).toMatchObject({ ok: true, value: { revoked: true, cache: "hit" } });
    expect(await cold.find("k1")).toMatchObject({ ok: true });
    expect(cold.lines).toEqual([]);
  });

  test("a list that was withdrawn is missed by an isolate that never saw it", async () => {
    const key = await newKey("k2");
    const fake = createFakeRegistry([key]);
    const settings = { registryIssuer: "https://another.example.test" };
    await fake.publish(key, [], Date.now(), { iss: settings.registryIssuer });
    const warm = createIsolate(fake, { kv: env.CACHE, settings });
    await warm.isRevoked(jti(7));
    await warm.settle();
    const { keys } = await env.CACHE.list({ prefix: "registry/v1/crl/" });
    await Promise.all(keys.map(({ name }) => env.CACHE.delete(name)));

    fake.crl = null;
    const cold = createIsolate(fake, { kv: env.CACHE, settings });
    expect(await cold.isRevoked(jti(7))).toEqual({ ok: false, error: "unavailable" });
    expect(cold.said("security.crl_withdrawn")).toHaveLength(1);
  });

  test("a copy that somebody has spoiled is removed", async () => {
    const key = await newKey("k3");
    const fake = createFakeRegistry([key]);
    await fake.publish(key, [], Date.now());
    const settings = { registryUrl: "https://third.example.test" };
    const warm = createIsolate(fake, { kv: env.CACHE, settings });
    await warm.find("k3");
    await warm.settle();
    const { keys } = await env.CACHE.list({ prefix: "registry/v1/keys/" });
    await Promise.all(
      keys.map(({ name }) => env.CACHE.put(name, "spoiled", { metadata: { atMs: Date.now() - 1_000 } })),
    );

    const cold = createIsolate(fake, { kv: env.CACHE, settings });
    expect(await cold.find("k3")).toMatchObject({ ok: true, value: { cache: "miss" } });
    await cold.settle();
    expect(cold.said("registry.copy_dropped")).toHaveLength(1);
  });
});
