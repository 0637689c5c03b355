/** The embedded registry over the real D1, asked by the same client as any other. */
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { embeddedRegistryFetch } from "../../src/identity/documents/documents.ts";
import {
  call,
  claimsOf,
  clock,
  config,
  headerOf,
  operatorCall,
  operatorCallAbout,
  registered,
  source,
} from "../identity/fixture.ts";
import { createIsolate } from "./fixture.ts";

const claim = (token: string, name: string): string => String(claimsOf(token)[name]);
const kidOf = (token: string): string => String(headerOf(token)["kid"]);

function openIsolate(db: D1Database = env.DB) {
  const fetch = embeddedRegistryFetch({ ...source, db });
  return createIsolate({ fetch }, { settings: config, kv: env.CACHE, now: clock.now });
}

describe("the embedded registry", () => {
  test("vouches for what it has issued: its key, its list, its access token", async () => {
    const { credentials } = await registered();
    const { find, isRevoked, validate } = openIsolate();
    const { ait, access, agentDid } = credentials;
    expect(await find(kidOf(ait))).toMatchObject({ ok: true });
    expect(await isRevoked(claim(ait, "jti"))).toMatchObject({ ok: true, value: { revoked: false } });
    expect(await validate(access.token, agentDid, claim(ait, "jti"))).toMatchObject({ ok: true });
    expect(await validate("spa_made-up", agentDid, claim(ait, "jti"))).toMatchObject({ error: { reason: "invalid" } });
  });

  test("is ready before the first agent is registered", async () => {
    const { registry, scope } = openIsolate();
    await registry.warm(scope());
    expect(registry.status(clock.now())).toMatchObject({ keys: { usable: true }, crl: { usable: true } });
  });

  test("ends a revoked agent at the next refresh, whatever its operator gave as the reason", async () => {
    const { credentials } = await registered();
    const { isRevoked, settle } = openIsolate();
    const id = claim(credentials.ait, "jti");
    await isRevoked(id);
    await call(operatorCallAbout(credentials.agentDid), "identity.revoke", {
      agentDid: credentials.agentDid,
      reason: 'said "lost"\\ é',
    });
    clock.ms += config.crlRefreshMs;
    await isRevoked(id);
    await settle();
    expect(await isRevoked(id)).toMatchObject({ ok: true, value: { revoked: true, cache: "hit" } });
  });

  test("lists whom it has revoked, for whoever tells the gates", async () => {
    const { credentials } = await registered();
    const { agentDid, ait } = credentials;
    await call(operatorCallAbout(agentDid), "identity.revoke", { agentDid });
    const { registry, scope } = openIsolate();
    const listed = await registry.crl.fetchList(scope());
    expect(listed.ok && listed.value.revocations).toContainEqual({ jti: claim(ait, "jti"), agentDid });
  });

  test("that has rotated its key is asked once more, and both keys verify", async () => {
    const before = await registered();
    const { find } = openIsolate();
    await find(kidOf(before.credentials.ait));
    await call(operatorCall(), "identity.keys.rotate");
    const after = await registered();
    expect(kidOf(after.credentials.ait)).not.toBe(kidOf(before.credentials.ait));
    expect(await find(kidOf(after.credentials.ait))).toMatchObject({ ok: true });
    expect(await find(kidOf(before.credentials.ait))).toMatchObject({ ok: true });
  });

  test("whose database fails is a registry that fails: known agents are served on", async () => {
    const { credentials } = await registered();
    const { ait, access, agentDid } = credentials;
    let isDown = false;
    const db = new Proxy(env.DB, {
      get(target, name) {
        if (isDown) throw new Error("D1_ERROR: down");
        const value: unknown = Reflect.get(target, name);
        return typeof value === "function" ? (value.bind(target) as unknown) : value;
      },
    });
    const { find, isRevoked, validate } = openIsolate(db);
    const ask = async () => [
      await find(kidOf(ait)),
      await isRevoked(claim(ait, "jti")),
      await validate(access.token, agentDid, claim(ait, "jti")),
    ];
    await ask();
    isDown = true;
    clock.ms += config.crlRefreshMs + 60_000;
    expect((await ask()).map(({ ok }) => ok)).toEqual([true, true, true]);
  });
});
