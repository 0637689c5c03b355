import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  createFakeKv,
  createFakeRegistry,
  createIsolate,
  type Fault,
  FAULTS,
  newKey,
  pass,
  publicEntry,
  START_MS,
} from "./fixture.ts";

const HOUR_MS = 3_600_000;

beforeEach(() => {
  vi.useFakeTimers({ now: START_MS });
});
afterEach(() => {
  vi.useRealTimers();
});

async function open(options: Parameters<typeof createIsolate>[1] = {}) {
  const key = await newKey("k1");
  const fake = createFakeRegistry([key]);
  return { key, fake, ...createIsolate(fake, options) };
}

describe("signing keys", () => {
  test("are fetched once and then served from memory for an hour", async () => {
    const { find, fake } = await open();
    expect(await find("k1")).toMatchObject({ ok: true, value: { cache: "miss" } });
    await pass(HOUR_MS - 1);
    expect(await find("k1")).toMatchObject({ ok: true, value: { cache: "hit" } });
    expect(fake.calls.keys).toBe(1);
  });

  test("are refreshed in the background after an hour, and nobody waits for it", async () => {
    const { find, fake, settle } = await open();
    await find("k1");
    await pass(HOUR_MS);
    fake.faults.keys = "hanging";
    expect(await find("k1")).toMatchObject({ ok: true, value: { cache: "stale" } });
    await pass(5_000);
    await settle();
    fake.fail(null);
    expect(await find("k1")).toMatchObject({ value: { cache: "stale" } });
    await settle();
    expect(await find("k1")).toMatchObject({ value: { cache: "hit" } });
  });

  test("are refreshed by a remembered token as well, which only asks whether its key is active", async () => {
    const { registry, scope, find, fake, settle } = await open();
    await find("k1");
    await pass(HOUR_MS);
    expect(registry.keys.isActive("k1", scope())).toBe(true);
    await settle();
    expect(fake.calls.keys).toBe(2);
  });

  test("are served for a day while the registry fails, with a warning a minute, and then no longer", async () => {
    const { find, fake, said, settle, registry, scope } = await open();
    await find("k1");
    fake.fail("down");
    await pass(24 * HOUR_MS - 120_000);
    for (let count = 0; count < 20; count += 1) expect(await find("k1")).toMatchObject({ ok: true });
    await settle();
    expect(said("dependency.served_stale")).toHaveLength(1);
    expect(said("dependency.served_stale")).toMatchObject([{ fields: { dependency: "keys", ageMs: 86_280_000 } }]);
    await pass(60_000);
    await find("k1");
    expect(said("dependency.served_stale")).toHaveLength(2);
    await pass(60_000);
    expect(await find("k1")).toEqual({ ok: false, error: "unavailable" });
    expect(registry.keys.isActive("k1", scope())).toBe(false);
  });

  test("are not believed to exist before they were seen", async () => {
    const { registry, scope, fake } = await open();
    expect(registry.keys.isActive("k1", scope())).toBe(false);
    expect(fake.calls.keys).toBe(0);
  });
});

describe("keys that are over while the registry hangs", () => {
  test("make one request wait, and then nobody, however seldom one comes", async () => {
    const { find, fake, settle } = await open();
    await find("k1");
    fake.faults.keys = "hanging";
    await pass(2 * HOUR_MS);
    const first = find("k1");
    await pass(6_000);
    expect(await first).toMatchObject({ ok: true, value: { cache: "stale" } });
    for (let request = 0; request < 4; request += 1) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await pass(20_000);
      // The clock stands still while this is awaited: whoever waited would wait for ever.
      // oxlint-disable-next-line no-await-in-loop
      expect(await find("k1")).toMatchObject({ ok: true, value: { cache: "stale" } });
    }
    await pass(6_000);
    await settle();
  });
});

describe("a key that is not in the document", () => {
  test("is asked for at once where the document is known to have changed, whatever was asked a moment ago", async () => {
    const { find, fake, registry } = await open();
    expect(await find("k2")).toEqual({ ok: false, error: "unknown-kid" });
    fake.keys.push(await newKey("k2"));
    expect(await find("k2")).toEqual({ ok: false, error: "unknown-kid" });
    registry.keys.expectChange();
    expect(await find("k2")).toMatchObject({ ok: true });
  });

  test("is asked for although another request has just brought a document: that was the copy", async () => {
    const kv = createFakeKv();
    const warm = await open({ kv: kv.binding() });
    await warm.find("k1");
    await warm.settle();
    await pass(60_000);
    warm.fake.keys.push(await newKey("k2"));
    kv.fault = "slow";
    const cold = createIsolate(warm.fake, { kv: kv.binding() });
    const found = Promise.all([cold.find("k1"), cold.find("k1"), cold.find("k2")]);
    await pass(1_000);
    expect((await found).map(({ ok }) => ok)).toEqual([true, true, true]);
  });

  test("is looked for in a newer document at once", async () => {
    const { find, fake } = await open();
    await find("k1");
    fake.keys.push(await newKey("k2"));
    expect(await find("k2")).toMatchObject({ ok: true, value: { cache: "refreshed" } });
    expect(fake.calls.keys).toBe(2);
  });

  test("causes at most one refresh per 30 s, for 200 made-up names one after the other", async () => {
    const { find, fake } = await open();
    await find("k1");
    for (let count = 0; count < 200; count += 1) {
      expect(await find(`made-up-${count}`)).toEqual({ ok: false, error: "unknown-kid" });
    }
    expect(fake.calls.keys).toBe(2);
    await pass(30_000);
    await find("made-up");
    expect(fake.calls.keys).toBe(3);
  });

  test("causes at most one refresh for 200 made-up names at once, and each gets the right answer", async () => {
    const { find, fake } = await open();
    await find("k1");
    const outcomes = Promise.all(Array.from({ length: 200 }, (_, count) => find(`made-up-${count}`)));
    await pass(3_000);
    expect(new Set((await outcomes).map((outcome) => (outcome.ok ? "found" : outcome.error)))).toEqual(
      new Set(["unknown-kid"]),
    );
    expect(fake.calls.keys).toBe(2);
  });

  test("is refused without a second question when the document has just been fetched for it", async () => {
    const { find, fake } = await open();
    expect(await find("made-up")).toEqual({ ok: false, error: "unknown-kid" });
    expect(await find("made-up")).toEqual({ ok: false, error: "unknown-kid" });
    expect(fake.calls.keys).toBe(1);
  });

  test("is found by everyone who asks for it while one request fetches the newer document", async () => {
    const { find, fake } = await open();
    await find("k1");
    fake.keys.push(await newKey("k2"));
    const outcomes = Promise.all(Array.from({ length: 50 }, () => find("k2")));
    await pass(3_000);
    expect((await outcomes).every(({ ok }) => ok)).toBe(true);
    expect(fake.calls.keys).toBe(2);
  });

  test("is not called unknown while the registry fails, since nobody can know", async () => {
    const { find, fake } = await open();
    await find("k1");
    fake.fail("status500");
    expect(await find("k2")).toEqual({ ok: false, error: "unavailable" });
    expect(await find("k2")).toEqual({ ok: false, error: "unavailable" });
    expect(await find("k1")).toMatchObject({ ok: true });
    expect(fake.calls.keys).toBe(2);
  });
});

describe("a revoked key", () => {
  test("stops verifying at the next refresh", async () => {
    const { key, find, fake, settle, registry, scope } = await open();
    await find("k1");
    key.status = "revoked";
    fake.keys.push(await newKey("k2"));
    await pass(HOUR_MS);
    await find("k1");
    await settle();
    expect(await find("k1")).toEqual({ ok: false, error: "revoked-kid" });
    expect(registry.keys.isActive("k1", scope())).toBe(false);
    expect(registry.keys.isActive("k2", scope())).toBe(true);
  });

  test.each(["that was idle", "that starts from the copy"])(
    "verifies nothing in an isolate %s for a day, while the registry answers",
    async (which) => {
      const kv = createFakeKv();
      const warm = await open({ kv: kv.binding() });
      await warm.find("k1");
      await warm.settle();
      warm.key.status = "revoked";
      warm.fake.keys.push(await newKey("k2"));
      await pass(23 * HOUR_MS);
      const isolate = which === "that was idle" ? warm : createIsolate(warm.fake, { kv: kv.binding() });
      expect(isolate.registry.keys.isActive("k1", isolate.scope())).toBe(false);
      expect(await isolate.find("k1")).toEqual({ ok: false, error: "revoked-kid" });
    },
  );

  test("stays revoked when the registry is set back to an older document", async () => {
    const { key, find, settle, fake, registry, scope } = await open();
    fake.keys.push(await newKey("k2"));
    key.status = "revoked";
    expect(await find("k1")).toEqual({ ok: false, error: "revoked-kid" });
    key.status = "active";
    await pass(HOUR_MS);
    await find("k2");
    await settle();
    expect(registry.keys.isActive("k1", scope())).toBe(false);
    expect(registry.keys.isActive("k2", scope())).toBe(true);
    expect(await find("k1")).toEqual({ ok: false, error: "revoked-kid" });
  });

  test("stays revoked in an isolate that starts from the copy", async () => {
    const kv = createFakeKv();
    const first = await open({ kv: kv.binding() });
    first.fake.keys.push(await newKey("k2"));
    first.key.status = "revoked";
    await first.find("k1");
    await first.settle();
    first.key.status = "active";
    await pass(HOUR_MS);
    await first.find("k2");
    await first.settle();
    first.fake.fail("down");
    const second = createIsolate(first.fake, { kv: kv.binding() });
    expect(await second.find("k2")).toMatchObject({ ok: true });
    expect(await second.find("k1")).toEqual({ ok: false, error: "revoked-kid" });
  });
});

describe("a keys document", () => {
  test("with a kid twice is refused whole, and the older one stays", async () => {
    const { key, find, fake, settle } = await open();
    await find("k1");
    fake.extraKeys = [publicEntry({ ...key, status: "revoked" })];
    await pass(HOUR_MS);
    await find("k1");
    await settle();
    expect(await find("k1")).toMatchObject({ ok: true, value: { cache: "stale" } });
  });

  test("with one malformed entry serves the good ones, and the malformed one is logged", async () => {
    const { find, fake, said } = await open();
    fake.extraKeys = [{ kid: "bad", alg: "EdDSA", crv: "Ed25519", x: "short", status: "active" }];
    expect(await find("k1")).toMatchObject({ ok: true });
    expect(said("registry.key_left_out")).toMatchObject([{ level: "warn", fields: { index: 1 } }]);
  });

  test("without a single usable key is a failure, not a registry without keys", async () => {
    const { find, fake, settle } = await open();
    await find("k1");
    fake.keys = [];
    await pass(HOUR_MS);
    await find("k1");
    await settle();
    expect(await find("k1")).toMatchObject({ ok: true, value: { cache: "stale" } });
  });

  test.each(Object.keys(FAULTS) as Fault[])("that cannot be had (%s) counts as a failure", async (fault) => {
    const { find, fake, registry } = await open();
    fake.faults.keys = fault;
    const outcome = find("k1");
    await pass(5_000);
    expect(await outcome).toEqual({ ok: false, error: "unavailable" });
    expect(registry.status(Date.now()).keys.breaker).toMatchObject({ failures: 1 });
  });

  test("that cannot be had opens the breaker after five calls, said once, and one probe closes it", async () => {
    const { find, fake, transitions, said } = await open();
    fake.faults.keys = "status500";
    for (let count = 0; count < 50; count += 1) await find("k1");
    expect(fake.calls.keys).toBe(5);
    fake.fail(null);
    await pass(30_000);
    expect(await find("k1")).toMatchObject({ ok: true });
    expect(transitions.map(({ to }) => to)).toEqual(["open", "half-open", "closed"]);
    expect(said("breaker.changed")).toHaveLength(3);
  });
});

describe("the copy of the keys in KV", () => {
  test("lets an isolate that starts during an outage serve", async () => {
    const kv = createFakeKv();
    const warm = await open({ kv: kv.binding() });
    await warm.find("k1");
    await warm.settle();
    warm.fake.fail("down");
    await pass(2 * HOUR_MS);
    const cold = createIsolate(warm.fake, { kv: kv.binding() });
    expect(await cold.find("k1")).toMatchObject({ ok: true, value: { cache: "stale" } });
    expect(cold.registry.status(Date.now()).keys).toMatchObject({ usable: true, ageMs: 2 * HOUR_MS });
  });

  test("is put once per refresh, with a time to live", async () => {
    const kv = createFakeKv();
    const { find, settle } = await open({ kv: kv.binding() });
    for (let count = 0; count < 10; count += 1) await find("k1");
    await settle();
    expect(kv.puts).toHaveLength(1);
    expect(kv.puts[0]?.expirationTtl).toBe(86_400);
    await pass(HOUR_MS);
    await Promise.all(Array.from({ length: 100 }, () => find("k1")));
    await settle();
    expect(kv.puts).toHaveLength(2);
  });

  test.each([
    { bad: "no JSON", value: "{", metadata: { atMs: START_MS } },
    { bad: "an empty document", value: '{"keys":[]}', metadata: { atMs: START_MS } },
    { bad: "no time", value: null, metadata: null },
    { bad: "a time in the future", value: null, metadata: { atMs: START_MS + 3_600_000 } },
  ])("is dropped and said when it is bad: $bad", async ({ value, metadata }) => {
    const kv = createFakeKv();
    const warm = await open({ kv: kv.binding() });
    await warm.find("k1");
    await warm.settle();
    const good = new TextDecoder().decode(kv.entries.get(kv.keyOf("keys"))?.value);
    await kv.put(kv.keyOf("keys"), value ?? good, { metadata });
    warm.fake.fail("down");
    const cold = createIsolate(warm.fake, { kv: kv.binding() });
    expect(await cold.find("k1")).toEqual({ ok: false, error: "unavailable" });
    await cold.settle();
    expect(cold.said("registry.copy_dropped")).toMatchObject([{ level: "error", fields: { copy: "keys" } }]);
    expect(kv.entries.size).toBe(0);
  });

  test.each(["down", "hanging"] as const)("that is %s delays a cold isolate by its time-out at most", async (fault) => {
    const kv = createFakeKv();
    kv.fault = fault;
    const { find, settle } = await open({ kv: kv.binding() });
    const outcome = find("k1");
    await pass(2_000);
    expect(await outcome).toMatchObject({ ok: true, value: { cache: "miss" } });
    await pass(2_000);
    await settle();
  });
});
