import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { AGENT, createFakeRegistry, createIsolate, type Fault, FAULTS, jti, pass, START_MS } from "./fixture.ts";

beforeEach(() => {
  vi.useFakeTimers({ now: START_MS });
});
afterEach(() => {
  vi.useRealTimers();
});

function open() {
  const fake = createFakeRegistry([]);
  return { fake, ...createIsolate(fake) };
}

const ANSWERS = ["down", "status500", "status429", "redirect", "hanging"] satisfies Fault[];

describe("an access validation", () => {
  test("asks the registry as the contract says, with the token in its header and nowhere else", async () => {
    const { validate, fake, lines } = open();
    expect(await validate("secret-token")).toMatchObject({
      ok: true,
      value: { verdict: "valid", cache: "miss", validatedAtMs: START_MS },
    });
    expect(fake.lastAccess?.headers.get("x-claw-agent-access")).toBe("secret-token");
    expect(fake.lastAccess?.body).toEqual({ agentDid: AGENT, aitJti: jti(1) });
    fake.fail("status500");
    await pass(61_000);
    await validate("secret-token");
    expect(JSON.stringify(lines)).not.toContain("secret-token");
  });

  test("is good for a minute, and then asked for again before anyone relies on it", async () => {
    const { validate, fake } = open();
    await validate();
    await pass(44_999);
    expect(await validate()).toMatchObject({ value: { cache: "hit", validatedAtMs: START_MS } });
    expect(fake.calls.access).toBe(1);
    await pass(15_001);
    fake.accessStatus = 401;
    expect(await validate()).toEqual({ ok: false, error: { reason: "invalid" } });
  });

  test("is renewed in the background for a busy agent, which never waits", async () => {
    const { validate, fake, settle } = open();
    await validate();
    await pass(45_000);
    expect(await validate()).toMatchObject({ value: { cache: "hit", validatedAtMs: START_MS } });
    await settle();
    await pass(44_999);
    expect(await validate()).toMatchObject({ value: { cache: "hit", validatedAtMs: START_MS + 45_000 } });
    expect(fake.calls.access).toBe(2);
  });

  test.each([
    { differs: "token", question: ["other-token", AGENT, jti(1)] },
    { differs: "agent", question: ["access-token", `${AGENT.slice(0, -1)}B`, jti(1)] },
    { differs: "jti", question: ["access-token", AGENT, jti(2)] },
  ] as const)("counts for one token of one agent and identity: another $differs is asked for", async ({ question }) => {
    const { validate, fake } = open();
    await validate();
    fake.accessStatus = 401;
    expect(await validate(...question)).toEqual({ ok: false, error: { reason: "invalid" } });
  });

  test("of 1 000 requests at the moment it ends asks once, and only one request waits", async () => {
    const { validate, fake } = open();
    await validate();
    await pass(60_000);
    const outcomes = await Promise.all(Array.from({ length: 1_000 }, () => validate()));
    expect(outcomes.every(({ ok }) => ok)).toBe(true);
    expect(fake.calls.access).toBe(2);
  });
});

describe("a refusal of the registry", () => {
  test("is an answer: remembered 10 s, and no failure", async () => {
    const { validate, fake, registry } = open();
    fake.accessStatus = 401;
    for (let count = 0; count < 10; count += 1) {
      expect(await validate()).toEqual({ ok: false, error: { reason: "invalid" } });
    }
    expect(fake.calls.access).toBe(1);
    expect(registry.status(Date.now()).access.breaker).toMatchObject({ state: "closed", failures: 0 });
    await pass(9_999);
    await validate();
    expect(fake.calls.access).toBe(1);
    fake.accessStatus = 204;
    await pass(1);
    expect(await validate()).toMatchObject({ ok: true });
  });

  test("is not undone by an outage: while the registry fails the last word stands", async () => {
    const { validate, fake } = open();
    await validate();
    await pass(60_000);
    fake.accessStatus = 401;
    await validate();
    fake.fail("down");
    await pass(60_000);
    expect(await validate()).toEqual({ ok: false, error: { reason: "invalid" } });
  });
});

const OTHER_AGENT = `${AGENT.slice(0, -1)}B`;

describe("access validation: an answer about one caller", () => {
  test.each([400, 403, 404, 418, 429])("(status %i) counts for that caller alone", async (status) => {
    const { validate, fake, registry } = open();
    fake.accessStatus = status;
    for (let count = 0; count < 20; count += 1) {
      expect(await validate(`odd-token-${count}`)).toMatchObject({ ok: false, error: { reason: "unavailable" } });
    }
    expect(fake.calls.access).toBe(1);
    expect(registry.status(Date.now()).access.breaker).toEqual({ state: "closed", failures: 0, retryAtMs: null });
    fake.accessStatus = 204;
    expect(await validate("good-token", OTHER_AGENT)).toMatchObject({ ok: true });
    expect(await validate("good-token")).toMatchObject({ ok: false, error: { reason: "unavailable" } });
    await pass(10_000);
    expect(await validate("good-token")).toMatchObject({ ok: true });
  });

  test("with a Retry-After keeps that caller waiting so long, and nobody else", async () => {
    const { validate, fake } = open();
    fake.faults.access = "status429";
    expect(await validate()).toMatchObject({ error: { reason: "unavailable", retryAfterMs: 20_000 } });
    fake.fail(null);
    await pass(19_000);
    expect(await validate("another token")).toMatchObject({ error: { reason: "unavailable", retryAfterMs: 1_000 } });
    expect(await validate("token", OTHER_AGENT)).toMatchObject({ ok: true });
    await pass(1_000);
    expect(await validate("another token")).toMatchObject({ ok: true });
    expect(fake.calls.access).toBe(3);
  });

  test("takes back no failure of the registry", async () => {
    const { validate, fake, registry } = open();
    fake.faults.access = "status500";
    for (let count = 0; count < 4; count += 1) await validate(`token ${count}`);
    fake.fail(null);
    fake.accessStatus = 400;
    await validate("odd");
    fake.faults.access = "status500";
    await validate("token", OTHER_AGENT);
    expect(registry.status(Date.now()).access.breaker.state).toBe("open");
  });

  test("closes the breaker where it answers a probe", async () => {
    const { validate, fake, registry } = open();
    fake.faults.access = "status500";
    for (let count = 0; count < 5; count += 1) await validate(`token ${count}`);
    await pass(30_000);
    fake.fail(null);
    fake.accessStatus = 400;
    await validate("odd");
    expect(registry.status(Date.now()).access.breaker.state).toBe("closed");
  });
});

test("access validation: 10,000 refused tokens evict no good validation", async () => {
  const { validate, fake } = open();
  await validate("good");
  fake.accessStatus = 401;
  for (let count = 0; count < 10_001; count += 1) await validate(`guess ${count}`, OTHER_AGENT);
  const { calls } = fake;
  const before = calls.access;
  expect(await validate("good")).toMatchObject({ ok: true, value: { cache: "hit" } });
  expect(calls.access).toBe(before);
});

describe("a registry that fails", () => {
  test.each(ANSWERS)("(%s) gives no verdict: what is known is served for 15 minutes", async (fault) => {
    const { validate, fake } = open();
    await validate();
    fake.fail(fault);
    await pass(300_000);
    const outcome = validate();
    await pass(5_000);
    expect(await outcome).toMatchObject({ ok: true, value: { cache: "stale", validatedAtMs: START_MS } });
    await pass(594_000);
    const last = validate();
    await pass(5_000);
    expect(await last).toMatchObject({ ok: fault !== "hanging" });
    await pass(10_000);
    const gone = validate();
    await pass(5_000);
    expect(await gone).toMatchObject({ ok: false, error: { reason: "unavailable" } });
  });

  test.each([200, 202, 301, 500, 503])(
    "(status %i) gives no verdict, and that counts for everybody",
    async (status) => {
      const { validate, fake, registry } = open();
      fake.accessStatus = status;
      expect(await validate()).toMatchObject({ ok: false, error: { reason: "unavailable" } });
      expect(registry.status(Date.now()).access.breaker.failures).toBe(1);
    },
  );

  test("leaves it to the agent's gate where this isolate knows nothing, by the hash it would keep", async () => {
    const { validate, fake } = open();
    const known = await validate("another token");
    fake.fail("down");
    const outcome = await validate();
    expect(outcome).toMatchObject({
      ok: false,
      error: { reason: "unavailable", keyHash: expect.stringMatching(/^[\w-]{43}$/) },
    });
    expect(known.ok && !outcome.ok && outcome.error.reason === "unavailable" && outcome.error.keyHash).not.toBe(
      known.ok && known.value.keyHash,
    );
  });

  test("opens its own breaker and no other", async () => {
    const { validate, find, fake, registry } = open();
    fake.faults.access = "status500";
    for (let count = 0; count < 20; count += 1) await validate(`token ${count}`);
    expect(fake.calls.access).toBe(5);
    await find("k1");
    const status = registry.status(Date.now());
    expect(status.access.breaker.state).toBe("open");
    expect(status.keys.breaker.state).toBe("closed");
    expect(status.crl.breaker.state).toBe("closed");
  });

  test("has every kind of failure among its tests", () => {
    expect(ANSWERS.every((fault) => fault in FAULTS)).toBe(true);
  });
});
