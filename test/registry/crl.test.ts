import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  AGENT,
  createFakeKv,
  createFakeRegistry,
  createIsolate,
  type Fault,
  FAULTS,
  ISSUER,
  jti,
  newKey,
  pass,
  signList,
  START_MS,
} from "./fixture.ts";

const MINUTE_MS = 60_000;

beforeEach(() => {
  vi.useFakeTimers({ now: START_MS });
});
afterEach(() => {
  vi.useRealTimers();
});

async function open(options: Parameters<typeof createIsolate>[1] = {}) {
  const key = await newKey("k1");
  const fake = createFakeRegistry([key]);
  await fake.publish(key, [jti(7)], START_MS);
  return { key, fake, ...createIsolate(fake, options) };
}

describe("the revocation list", () => {
  test("says of each token whether it is revoked, and is fetched once for five minutes", async () => {
    const { isRevoked, fake } = await open();
    expect(await isRevoked(jti(7))).toEqual({ ok: true, value: { revoked: true, cache: "miss" } });
    expect(await isRevoked(jti(8))).toEqual({ ok: true, value: { revoked: false, cache: "hit" } });
    await pass(5 * MINUTE_MS - 1);
    await isRevoked(jti(7));
    expect(fake.calls.crl).toBe(1);
  });

  test("is refreshed in the background, and nobody waits while an older one may be served", async () => {
    const { isRevoked, fake, key, settle } = await open();
    await isRevoked(jti(7));
    await pass(5 * MINUTE_MS);
    await fake.publish(key, [jti(7), jti(8)], Date.now());
    fake.faults.crl = "hanging";
    expect(await isRevoked(jti(8))).toMatchObject({ value: { revoked: false, cache: "stale" } });
    await pass(5_000);
    await settle();
    fake.fail(null);
    await isRevoked(jti(8));
    await settle();
    expect(await isRevoked(jti(8))).toMatchObject({ value: { revoked: true, cache: "hit" } });
  });

  test("causes at most two refreshes for 1 000 requests at the moment it is due", async () => {
    const { isRevoked, fake, settle } = await open();
    await isRevoked(jti(7));
    await pass(5 * MINUTE_MS);
    const outcomes = await Promise.all(Array.from({ length: 1_000 }, () => isRevoked(jti(7))));
    await settle();
    expect(outcomes.every(({ ok }) => ok)).toBe(true);
    expect(fake.calls.crl).toBe(2);
  });

  test("may be empty", async () => {
    const { isRevoked, fake, key } = await open();
    await fake.publish(key, [], START_MS);
    expect(await isRevoked(jti(7))).toMatchObject({ ok: true, value: { revoked: false } });
  });

  test("can be had with its agents by whoever acts on it, and is used from then on", async () => {
    const { registry, scope, isRevoked, fake } = await open();
    expect(await registry.crl.fetchList(scope())).toEqual({
      ok: true,
      value: { iat: START_MS / 1_000, revocations: [{ jti: jti(7), agentDid: AGENT }] },
    });
    expect(await isRevoked(jti(7))).toMatchObject({ value: { revoked: true, cache: "hit" } });
    expect(fake.calls.crl).toBe(1);
  });
});

describe("a list that is not taken", () => {
  test.each([
    { why: "another issuer", over: { iss: "https://other.example.test" } },
    { why: "expired", over: { iat: START_MS / 1_000 - 7_200, exp: START_MS / 1_000 } },
    { why: "from the future", over: { iat: START_MS / 1_000 + 61, exp: START_MS / 1_000 + 9_000 } },
    { why: "ends before it begins", over: { exp: START_MS / 1_000 - 1 } },
    { why: "no revocations", over: { revocations: undefined } },
    { why: "a malformed entry", over: { revocations: [{ jti: jti(1), agentDid: AGENT }] } },
    { why: "an entry without jti", over: { revocations: [{ agentDid: AGENT, revokedAt: 1 }] } },
  ])("by its claims: $why", async ({ over }) => {
    const { isRevoked, fake, key, registry } = await open();
    await fake.publish(key, [jti(7)], START_MS, over);
    expect(await isRevoked(jti(7))).toEqual({ ok: false, error: "unavailable" });
    expect(registry.status(Date.now()).crl.breaker.failures).toBe(1);
  });

  test.each([
    { why: "typ of another document", header: { typ: "AIT" } },
    { why: "no typ", header: { typ: undefined } },
    { why: "alg none", header: { alg: "none" } },
    { why: "alg HS256", header: { alg: "HS256" } },
    { why: "an unknown kid", header: { kid: "k9" } },
    { why: "a critical extension", header: { crit: ["b64"], b64: false } },
  ])("by its header: $why", async ({ header }) => {
    const { isRevoked, fake, key } = await open();
    const iat = START_MS / 1_000;
    fake.crl = await signList(key, { iss: ISSUER, jti: jti(0), iat, exp: iat + 60, revocations: [] }, header);
    expect(await isRevoked(jti(7))).toEqual({ ok: false, error: "unavailable" });
  });

  test("by its signature: another key's, or a changed byte", async () => {
    const { isRevoked, fake, key } = await open();
    const forger = { ...(await newKey("forger")), kid: key.kid };
    await fake.publish(forger, [], START_MS);
    expect(await isRevoked(jti(7))).toEqual({ ok: false, error: "unavailable" });
    await fake.publish(key, [jti(7)], START_MS);
    const [header, claims = "", signature] = (fake.crl ?? "").split(".");
    fake.crl = `${header}.${claims.slice(0, -1)}${claims.endsWith("0") ? "4" : "0"}.${signature}`;
    expect(await isRevoked(jti(7))).toEqual({ ok: false, error: "unavailable" });
  });

  test("by its key: one that is revoked", async () => {
    const { isRevoked, fake, key } = await open();
    fake.keys.push(await newKey("k2"));
    key.status = "revoked";
    expect(await isRevoked(jti(7))).toEqual({ ok: false, error: "unavailable" });
  });

  test.each((Object.keys(FAULTS) as Fault[]).filter((fault) => fault !== "fiveMegabytesUnannounced"))(
    "since it cannot be had: %s",
    async (fault) => {
      const { isRevoked, fake, registry } = await open();
      fake.faults.crl = fault;
      const outcome = isRevoked(jti(7));
      await pass(5_000);
      expect(await outcome).toEqual({ ok: false, error: "unavailable" });
      expect(registry.status(Date.now()).crl.breaker.failures).toBe(1);
    },
  );

  test("since it never ends: it is cut at 24 MiB", async () => {
    const { isRevoked, fake, said } = await open();
    fake.faults.crl = "fiveMegabytesUnannounced";
    expect(await isRevoked(jti(7))).toEqual({ ok: false, error: "unavailable" });
    expect(said("dependency.call_failed")).toMatchObject([{ fields: { reason: "document too large" } }]);
  });
});

describe("a registry that is set back", () => {
  test("cannot replace a newer list by an older one: refused, and said as a security event", async () => {
    const { isRevoked, fake, key, settle, said } = await open();
    await isRevoked(jti(7));
    await pass(5 * MINUTE_MS);
    await fake.publish(key, [], START_MS - 60_000);
    await isRevoked(jti(7));
    await settle();
    expect(await isRevoked(jti(7))).toMatchObject({ value: { revoked: true, cache: "stale" } });
    expect(said("security.crl_rolled_back")[0]).toMatchObject({
      level: "error",
      fields: { heldIat: START_MS / 1_000, offeredIat: START_MS / 1_000 - 60 },
    });
  });

  test("cannot do so once the newer list has become too old either", async () => {
    const { isRevoked, fake, key } = await open();
    await isRevoked(jti(7));
    await pass(31 * MINUTE_MS);
    await fake.publish(key, [], START_MS - 60_000, { exp: START_MS / 1_000 + 90_000 });
    expect(await isRevoked(jti(7))).toEqual({ ok: false, error: "too-old" });
  });

  test("cannot do so in an isolate that starts from the copy", async () => {
    const kv = createFakeKv();
    const warm = await open({ kv: kv.binding() });
    await warm.isRevoked(jti(7));
    await warm.settle();
    await warm.fake.publish(warm.key, [], START_MS - 60_000);
    const cold = createIsolate(warm.fake, { kv: kv.binding() });
    await pass(6 * MINUTE_MS);
    await cold.isRevoked(jti(7));
    await cold.settle();
    expect(await cold.isRevoked(jti(7))).toMatchObject({ value: { revoked: true } });
    expect(cold.said("security.crl_rolled_back")).not.toHaveLength(0);
  });

  test("cannot do so where nothing of the newer list is left but that it was seen", async () => {
    const kv = createFakeKv();
    const warm = await open({ kv: kv.binding() });
    await warm.isRevoked(jti(7));
    await warm.settle();
    await pass(31 * MINUTE_MS);
    await warm.fake.publish(warm.key, [], START_MS - 60_000, { exp: START_MS / 1_000 + 90_000 });
    const cold = createIsolate(warm.fake, { kv: kv.binding() });
    expect(await cold.isRevoked(jti(7))).toEqual({ ok: false, error: "unavailable" });
    expect(cold.said("security.crl_rolled_back")).toHaveLength(1);
  });

  test("cannot do so by way of an isolate that fetches the list without a look at the copy, nor spoil the copy", async () => {
    const kv = createFakeKv();
    const warm = await open({ kv: kv.binding() });
    await warm.isRevoked(jti(7));
    await warm.settle();
    await warm.fake.publish(warm.key, [], START_MS - 60_000);
    const keeper = createIsolate(warm.fake, { kv: kv.binding() });
    expect(await keeper.registry.crl.fetchList(keeper.scope())).toMatchObject({ ok: false });
    await keeper.settle();
    expect(keeper.said("security.crl_rolled_back")).toHaveLength(1);
    const cold = createIsolate(warm.fake, { kv: kv.binding() });
    expect(await cold.isRevoked(jti(7))).toMatchObject({ value: { revoked: true } });
  });

  test("leaves the copy alone while KV cannot tell what was seen: others may know better", async () => {
    const kv = createFakeKv();
    const { isRevoked, settle, said } = await open({ kv: kv.binding() });
    kv.fault = "down";
    expect(await isRevoked(jti(7))).toMatchObject({ value: { revoked: true } });
    kv.fault = null;
    await settle();
    expect(kv.puts.map(({ key }) => key.split("/")[2])).not.toContain("crl");
    expect(said("registry.mark_unreadable")).toHaveLength(1);
  });

  test("cannot do so by way of an isolate that KV once told nothing", async () => {
    const kv = createFakeKv();
    const warm = await open({ kv: kv.binding() });
    await warm.isRevoked(jti(7));
    await warm.settle();
    await warm.fake.publish(warm.key, [], START_MS - 60_000, { exp: START_MS / 1_000 + 90_000 });
    kv.fault = "down";
    const blind = createIsolate(warm.fake, { kv: kv.binding() });
    expect(await blind.isRevoked(jti(7))).toMatchObject({ value: { revoked: false } });
    await blind.settle();
    kv.fault = null;
    await pass(6 * MINUTE_MS);
    await blind.isRevoked(jti(7));
    await blind.settle();
    expect(blind.said("security.crl_rolled_back")).toHaveLength(1);
    const cold = createIsolate(warm.fake, { kv: kv.binding() });
    expect(await cold.isRevoked(jti(7))).toMatchObject({ value: { revoked: true } });
  });

  test("may publish again with the same iat", async () => {
    const { isRevoked, fake, key, settle } = await open();
    await isRevoked(jti(7));
    await fake.publish(key, [jti(7), jti(8)], START_MS);
    await pass(5 * MINUTE_MS);
    await isRevoked(jti(8));
    await settle();
    expect(await isRevoked(jti(8))).toMatchObject({ value: { revoked: true, cache: "hit" } });
  });
});

describe("a registry that says there is no list", () => {
  test("is believed while none was ever seen", async () => {
    const { isRevoked, fake, registry } = await open();
    fake.crl = null;
    expect(await isRevoked(jti(7))).toMatchObject({ ok: true, value: { revoked: false, cache: "miss" } });
    expect(registry.status(Date.now()).crl.usable).toBe(true);
  });

  test("is not believed once one was seen: a failure, and a security event", async () => {
    const { isRevoked, fake, settle, said, registry } = await open();
    await isRevoked(jti(7));
    fake.crl = null;
    await pass(5 * MINUTE_MS);
    await isRevoked(jti(7));
    await settle();
    expect(await isRevoked(jti(7))).toMatchObject({ value: { revoked: true, cache: "stale" } });
    expect(said("security.crl_withdrawn")[0]).toMatchObject({ level: "error", fields: { issuer: ISSUER } });
    expect(registry.status(Date.now()).crl.breaker.failures).toBeGreaterThan(0);
  });

  test("is not believed by an isolate that knows of the list only from KV, even long after the copy ran out", async () => {
    const kv = createFakeKv();
    const warm = await open({ kv: kv.binding() });
    await warm.isRevoked(jti(7));
    await warm.settle();
    await pass(24 * 60 * MINUTE_MS);
    warm.fake.crl = null;
    const cold = createIsolate(warm.fake, { kv: kv.binding() });
    expect(await cold.isRevoked(jti(7))).toEqual({ ok: false, error: "unavailable" });
    expect(cold.said("security.crl_withdrawn")).toHaveLength(1);
  });

  test("is not believed though the first note of it did not get into KV: the next list makes good for it", async () => {
    const kv = createFakeKv();
    const put = kv.put.bind(kv);
    let refused = 0;
    kv.put = async (key, ...rest) => {
      if (key.includes("crl-seen") && (refused += 1) === 1) throw new Error("too many writes");
      await put(key, ...rest);
    };
    const warm = await open({ kv: kv.binding() });
    await warm.isRevoked(jti(7));
    await warm.settle();
    const next = createIsolate(warm.fake, { kv: kv.binding() });
    await next.isRevoked(jti(7));
    await next.settle();
    await pass(24 * 60 * MINUTE_MS);
    warm.fake.crl = null;
    const cold = createIsolate(warm.fake, { kv: kv.binding() });
    expect(await cold.isRevoked(jti(7))).toEqual({ ok: false, error: "unavailable" });
  });

  test("is not believed while KV cannot tell whether there was one", async () => {
    const kv = createFakeKv();
    kv.fault = "down";
    const { isRevoked, fake } = await open({ kv: kv.binding() });
    fake.crl = null;
    expect(await isRevoked(jti(7))).toEqual({ ok: false, error: "unavailable" });
  });

  test("must say it by its code: any other 404 is a failure", async () => {
    const { isRevoked, fake } = await open();
    const plain404 = { ...fake, fetch: async () => new Response("not found", { status: 404 }) };
    const isolate = createIsolate(plain404);
    expect(await isolate.isRevoked(jti(7))).toEqual({ ok: false, error: "unavailable" });
    expect(await isRevoked(jti(7))).toMatchObject({ ok: true });
  });
});

describe("a list past its maximum age", () => {
  test("refuses under fail-closed, with a warning a minute", async () => {
    const { isRevoked, fake, said } = await open();
    await isRevoked(jti(7));
    fake.fail("down");
    await pass(30 * MINUTE_MS - 1);
    expect(await isRevoked(jti(7))).toMatchObject({ value: { revoked: true, cache: "stale" } });
    await pass(1);
    for (let count = 0; count < 20; count += 1)
      expect(await isRevoked(jti(7))).toEqual({ ok: false, error: "too-old" });
    expect(said("registry.crl_too_old")).toMatchObject([{ level: "warn", fields: { ageMs: 30 * MINUTE_MS } }]);
    await pass(MINUTE_MS);
    await isRevoked(jti(7));
    expect(said("registry.crl_too_old")).toHaveLength(2);
  });

  test("is served under fail-open, with a warning a minute, and still names who is revoked", async () => {
    const { isRevoked, fake, said, settle } = await open({ settings: { crlStaleBehavior: "fail-open" } });
    await isRevoked(jti(7));
    fake.fail("down");
    await pass(5 * 60 * MINUTE_MS);
    for (let count = 0; count < 20; count += 1) {
      expect(await isRevoked(jti(7))).toMatchObject({ value: { revoked: true, cache: "stale" } });
    }
    expect(await isRevoked(jti(8))).toMatchObject({ value: { revoked: false, cache: "stale" } });
    expect(said("registry.crl_too_old")).toHaveLength(1);
    await settle();
  });

  test("is served again as soon as the registry is back", async () => {
    const { isRevoked, fake, key } = await open();
    await isRevoked(jti(7));
    await pass(40 * MINUTE_MS);
    await fake.publish(key, [jti(7)], Date.now());
    expect(await isRevoked(jti(7))).toMatchObject({ ok: true, value: { revoked: true, cache: "miss" } });
  });
});

describe("the copy of the list in KV", () => {
  test("stays where its key is not known yet: it may be newer than the keys", async () => {
    const kv = createFakeKv();
    const warm = await open({ kv: kv.binding() });
    await warm.isRevoked(jti(7));
    await warm.settle();
    const newer = await newKey("k2");
    warm.fake.keys.push(newer);
    await warm.fake.publish(newer, [jti(7)], START_MS + 1_000);
    await pass(5 * MINUTE_MS);
    await warm.isRevoked(jti(7));
    await warm.settle();
    const behind = createIsolate(createFakeRegistry([warm.key]), { kv: kv.binding() });
    kv.entries.delete(kv.keyOf("keys"));
    await behind.isRevoked(jti(7));
    await behind.settle();
    expect(behind.said("registry.copy_dropped")).toEqual([]);
  });

  test("lets an isolate that starts during an outage serve, keys included", async () => {
    const kv = createFakeKv();
    const warm = await open({ kv: kv.binding() });
    await warm.isRevoked(jti(7));
    await warm.settle();
    warm.fake.fail("down");
    await pass(10 * MINUTE_MS);
    const cold = createIsolate(warm.fake, { kv: kv.binding() });
    expect(await cold.isRevoked(jti(7))).toMatchObject({ ok: true, value: { revoked: true, cache: "stale" } });
    expect(cold.registry.status(Date.now()).crl).toMatchObject({ usable: true, ageMs: 10 * MINUTE_MS });
  });

  test("lets requests that start together in such an isolate all be served, while nobody asks the registry", async () => {
    const kv = createFakeKv();
    const warm = await open({ kv: kv.binding() });
    await warm.isRevoked(jti(7));
    await warm.settle();
    warm.fake.fail("down");
    kv.fault = "slow";
    const asked = { ...warm.fake.calls };
    const cold = createIsolate(warm.fake, { kv: kv.binding() });
    const outcomes = Promise.all(
      Array.from({ length: 200 }, async () => {
        const found = await cold.find("k1");
        return found.ok ? cold.isRevoked(jti(7)) : found;
      }),
    );
    await pass(2_000);
    expect((await outcomes).filter(({ ok }) => !ok)).toEqual([]);
    expect(warm.fake.calls).toEqual(asked);
  });

  test("is put once per refresh, with the maximum age to live", async () => {
    const kv = createFakeKv();
    const { isRevoked, settle, fake } = await open({ kv: kv.binding() });
    const outcomes = Promise.all(Array.from({ length: 20 }, () => isRevoked(jti(7))));
    await pass(1_000);
    expect((await outcomes).every(({ ok }) => ok)).toBe(true);
    await settle();
    const puts = kv.puts.filter(({ key }) => key.includes("/crl/"));
    expect(puts.every(({ expirationTtl }) => expirationTtl === 1_800)).toBe(true);
    expect(puts).toHaveLength(fake.calls.crl);
  });

  test.each(["not a list", "a.b.c", ""])("is verified again when read: %o is dropped and said", async (value) => {
    const kv = createFakeKv();
    const warm = await open({ kv: kv.binding() });
    await warm.isRevoked(jti(7));
    await warm.settle();
    await kv.put(kv.keyOf("crl"), value, { metadata: { atMs: START_MS } });
    const cold = createIsolate(warm.fake, { kv: kv.binding() });
    expect(await cold.isRevoked(jti(7))).toMatchObject({ ok: true, value: { revoked: true, cache: "miss" } });
    expect(cold.said("registry.copy_dropped")).toMatchObject([{ fields: { copy: "crl" } }]);
  });

  test("that somebody else has signed is dropped and said", async () => {
    const kv = createFakeKv();
    const warm = await open({ kv: kv.binding() });
    await warm.isRevoked(jti(7));
    await warm.settle();
    const forger = { ...(await newKey("forger")), kid: "k1" };
    const iat = START_MS / 1_000;
    const forged = await signList(forger, { iss: ISSUER, jti: jti(0), iat, exp: iat + 60, revocations: [] });
    await kv.put(kv.keyOf("crl"), forged, { metadata: { atMs: START_MS } });
    warm.fake.fail("down");
    const cold = createIsolate(warm.fake, { kv: kv.binding() });
    expect(await cold.isRevoked(jti(7))).toEqual({ ok: false, error: "unavailable" });
    expect(cold.said("registry.copy_dropped")).toMatchObject([{ fields: { reason: "the signature is wrong" } }]);
  });
});
