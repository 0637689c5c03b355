import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  type CachedCall,
  cachedCall,
  type CallScope,
  type Loaded,
  type LoadFailure,
  loadNow,
  servedFromMemory,
} from "../../src/resilience/cached-call.ts";
import { createDependency, type Dependency } from "../../src/resilience/dependency.ts";
import { createStaleCache, type StaleCache } from "../../src/resilience/stale-cache.ts";
import { err, ok, type Result } from "../../src/wire/result.ts";

const FRESHNESS = { freshMs: 60_000, revalidateMs: 65_000, staleMs: 900_000 };

type Answer = (signal: AbortSignal) => Promise<Result<Loaded<string>, LoadFailure>>;
const says =
  (value: string): Answer =>
  async () =>
    ok({ value });
const fails =
  (reason = "status 500", retryAfterMs?: number): Answer =>
  async () =>
    err({ reason, retryAfterMs });
const hangs: Answer = () => new Promise(() => undefined);
const takes =
  (delayMs: number, answer: Answer): Answer =>
  async (signal) => {
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    return answer(signal);
  };

const stored = (ageMs: number) => async () => ({ value: "stored", atMs: Date.now() - ageMs });
const brokenCopy = async () => {
  throw new Error("KV is down");
};

beforeEach(() => {
  vi.useFakeTimers({ now: 1_000_000 });
});
afterEach(() => {
  vi.useRealTimers();
});

type Overrides = Partial<CachedCall<string>> & { signal?: AbortSignal };
type House = {
  answer: Answer;
  cache: StaleCache<string>;
  dependency: Dependency;
  readonly seen: { calls: number; inFlight: number; mostInFlight: number; background: Promise<unknown>[] };
  readonly warnings: { event: string; fields: Record<string, unknown> }[];
  call(overrides?: Overrides): CachedCall<string>;
  ask(overrides?: Overrides): ReturnType<typeof cachedCall<string>>;
  settle(): Promise<void>;
  pass(ms: number): Promise<void>;
};

/** A dependency that answers as told and counts, with everything that stands before it. */
function createGateState(refresh: "background" | "foreground" = "foreground") {
  const seen = { calls: 0, inFlight: 0, mostInFlight: 0, background: [] as Promise<unknown>[] };
  const warnings: { event: string; fields: Record<string, unknown> }[] = [];
  const harness: House = {
    answer: says("first"),
    cache: createStaleCache<string>({ maxEntries: 10, freshness: FRESHNESS }),
    dependency: createDependency({
      name: "registry",
      timeoutMs: 5_000,
      breakerFailures: 5,
      breakerWindowMs: 60_000,
      breakerOpenMs: 30_000,
    }),
    seen,
    warnings,
    call({ signal = new AbortController().signal, ...overrides } = {}) {
      const scope: CallScope = {
        now: Date.now,
        background: (work) => void seen.background.push(work),
        signal,
        log: { warn: (event, fields) => void warnings.push({ event, fields }) },
      };
      return {
        dependency: harness.dependency,
        cache: harness.cache,
        key: "k",
        refresh,
        scope,
        load: async (given) => {
          seen.calls += 1;
          seen.inFlight += 1;
          seen.mostInFlight = Math.max(seen.mostInFlight, seen.inFlight);
          try {
            return await harness.answer(given);
          } finally {
            seen.inFlight -= 1;
          }
        },
        ...overrides,
      };
    },
    ask: (overrides) => cachedCall(harness.call(overrides)),
    async settle() {
      await Promise.all(seen.background.splice(0));
    },
    async pass(ms) {
      await vi.advanceTimersByTimeAsync(ms);
    },
  };
  return harness;
}

describe("a call through the cache", () => {
  test("says what it did: miss, hit, refreshed, stale", async () => {
    const harness = createGateState();
    expect(await harness.ask()).toEqual(ok({ value: "first", cache: "miss", ageMs: 0 }));
    expect(await harness.ask()).toEqual(ok({ value: "first", cache: "hit", ageMs: 0 }));
    await harness.pass(60_000);
    harness.answer = says("second");
    expect(await harness.ask()).toEqual(ok({ value: "second", cache: "refreshed", ageMs: 0 }));
    await harness.pass(60_000);
    harness.answer = fails();
    expect(await harness.ask()).toEqual(ok({ value: "second", cache: "stale", ageMs: 60_000 }));
    expect(harness.seen.calls).toBe(3);
  });

  test("touches neither timer nor signal when memory has the answer", async () => {
    const harness = createGateState();
    await harness.ask();
    const call = harness.call();
    const scope: CallScope = {
      ...call.scope,
      get signal(): AbortSignal {
        throw new Error("a hit must not wait");
      },
    };
    const timers = vi.getTimerCount();
    expect(await cachedCall({ ...call, scope })).toMatchObject({ value: { cache: "hit" } });
    expect(vi.getTimerCount()).toBe(timers);
  });

  test("is cut at its deadline when the dependency hangs, and gives back its slot", async () => {
    const harness = createGateState();
    harness.answer = hangs;
    const outcome = harness.ask();
    await harness.pass(5_000);
    expect(await outcome).toMatchObject({ ok: false, error: { reason: "failed", detail: "timeout" } });
    expect(harness.dependency.limiter.inFlight(Date.now())).toBe(0);
  });

  test("whose load throws is a failure of the dependency, and its message is not logged", async () => {
    const harness = createGateState();
    harness.answer = async () => {
      throw new TypeError("POST with token-abc failed");
    };
    expect(await harness.ask()).toMatchObject({ ok: false, error: { detail: "TypeError" } });
    expect(JSON.stringify(harness.warnings)).not.toContain("token-abc");
  });

  test("goes on in the background when its request stops waiting, and the next request has its answer", async () => {
    const harness = createGateState();
    harness.answer = takes(3_000, says("late"));
    const controller = new AbortController();
    const outcome = harness.ask({ signal: controller.signal });
    await harness.pass(1_000);
    controller.abort();
    expect(await outcome).toMatchObject({ ok: false, error: { reason: "deadline" } });
    await harness.pass(2_000);
    expect(await harness.ask()).toMatchObject({ value: { value: "late", cache: "hit" } });
  });

  test("counts the age of an answer from when it was asked for", async () => {
    const harness = createGateState();
    harness.answer = takes(3_000, says("slow"));
    const outcome = harness.ask();
    await harness.pass(3_000);
    await outcome;
    await harness.pass(57_000);
    expect(harness.cache.read("k", Date.now()).phase).toBe("revalidate");
  });
});

describe("1 000 requests at the moment a value is no longer fresh", () => {
  test("cause one refresh, for which only the one that makes it waits", async () => {
    const harness = createGateState("foreground");
    await harness.ask();
    await harness.pass(60_000);
    harness.answer = takes(2_000, says("second"));
    const outcomes = Array.from({ length: 1_000 }, () => harness.ask());
    let settled = 0;
    for (const outcome of outcomes) void outcome.then(() => (settled += 1));
    await harness.pass(0);
    expect(settled).toBe(999);
    await harness.pass(2_000);
    expect(settled).toBe(1_000);
    expect(harness.seen.calls).toBe(2);
  });

  test("wait for nothing at all where refreshing is left to the background", async () => {
    const harness = createGateState("background");
    await harness.ask();
    await harness.pass(60_000);
    harness.answer = hangs;
    const outcomes = await Promise.all(Array.from({ length: 1_000 }, () => harness.ask()));
    expect(outcomes.every((outcome) => outcome.ok && outcome.value.cache === "stale")).toBe(true);
    expect(harness.seen.calls).toBe(2);
  });

  test("are not stuck with a refresh whose request died: its lease runs out", async () => {
    const harness = createGateState("background");
    await harness.ask();
    await harness.pass(60_000);
    // A killed request: its timers never fire and its promise never settles.
    expect(harness.cache.claim("k", Date.now(), harness.dependency.leaseMs)).not.toBeNull();
    vi.setSystemTime(Date.now() + 3_000);
    expect(await harness.ask()).toMatchObject({ value: { cache: "stale" } });
    expect(harness.seen.calls).toBe(1);
    harness.cache.write("k", "first", Date.now() - 62_000);
    vi.setSystemTime(Date.now() + 2_999);
    expect(await harness.ask()).toMatchObject({ value: { cache: "stale" } });
    await harness.settle();
    expect(harness.seen.calls).toBe(2);
  });
});

describe("a busy value", () => {
  test("is refreshed ahead of its time in the background, so that nobody ever waits for it", async () => {
    const harness = createGateState("foreground");
    harness.cache = createStaleCache({ maxEntries: 1, freshness: { ...FRESHNESS, refreshAheadMs: 45_000 } });
    await harness.ask();
    await harness.pass(45_000);
    harness.answer = says("second");
    expect(await harness.ask()).toMatchObject({ value: { value: "first", cache: "hit" } });
    await harness.settle();
    expect(await harness.ask()).toMatchObject({ value: { value: "second", cache: "hit", ageMs: 0 } });
    expect(harness.seen.calls).toBe(2);
  });
});

describe("a failing dependency", () => {
  test("is called five times and then once each cool-down, however many ask, and every cached value is served", async () => {
    const harness = createGateState("foreground");
    await harness.ask();
    harness.answer = fails();
    await harness.pass(70_000);
    for (let count = 0; count < 1_000; count += 1) {
      expect(await harness.ask()).toMatchObject({ value: { value: "first", cache: "stale" } });
    }
    expect(harness.seen.calls).toBe(1 + 5);
    for (let minute = 0; minute < 10; minute += 1) {
      await harness.pass(30_000);
      await Promise.all(Array.from({ length: 50 }, () => harness.ask()));
      await harness.settle();
    }
    expect(harness.seen.calls).toBe(1 + 5 + 10);
  });

  test("has never more than eight calls in flight and at most thirteen in all before its breaker opens", async () => {
    const harness = createGateState();
    harness.answer = takes(100, fails());
    const outcomes = Array.from({ length: 300 }, (_, index) => harness.ask({ key: `agent ${index}` }));
    await harness.pass(3_000);
    const settled = await Promise.all(outcomes);
    expect(settled.every((outcome) => !outcome.ok && outcome.error.retryAfterMs >= 1_000)).toBe(true);
    expect(harness.seen.mostInFlight).toBe(8);
    expect(harness.seen.calls).toBeLessThanOrEqual(13);
    expect(harness.dependency.breaker.snapshot().state).toBe("open");
  });

  test("recovers by one probe, for which nobody with a copy waits", async () => {
    const harness = createGateState("foreground");
    await harness.ask();
    harness.answer = fails();
    await harness.pass(70_000);
    for (let count = 0; count < 6; count += 1) await harness.ask();
    await harness.pass(30_000);
    harness.answer = takes(1_000, says("back"));
    const outcomes = await Promise.all(Array.from({ length: 10 }, () => harness.ask()));
    expect(outcomes.every((outcome) => outcome.ok && outcome.value.cache === "stale")).toBe(true);
    await harness.pass(1_000);
    expect(await harness.ask()).toMatchObject({ value: { value: "back", cache: "hit" } });
    expect(harness.dependency.breaker.snapshot().state).toBe("closed");
  });

  test("is asked again no sooner than it has asked for", async () => {
    const harness = createGateState();
    harness.answer = fails("status 429", 20_000);
    expect(await harness.ask()).toMatchObject({ error: { reason: "failed", retryAfterMs: 20_000 } });
    await harness.pass(19_999);
    expect(await harness.ask()).toMatchObject({ error: { reason: "open", retryAfterMs: 1 } });
    harness.answer = says("back");
    await harness.pass(1);
    expect(await harness.ask()).toMatchObject({ value: { value: "back" } });
    expect(harness.seen.calls).toBe(2);
  });

  test("is told of with the age of what is served, once a minute and not once a request", async () => {
    const harness = createGateState("foreground");
    await harness.ask();
    harness.answer = fails();
    await harness.pass(100_000);
    for (let count = 0; count < 100; count += 1) await harness.ask();
    const stale = () => harness.warnings.filter(({ event }) => event === "dependency.served_stale");
    expect(stale()).toMatchObject([{ fields: { dependency: "registry", ageMs: 100_000 } }]);
    await harness.pass(60_000);
    for (let count = 0; count < 100; count += 1) await harness.ask();
    expect(stale()).toHaveLength(2);
    expect(stale()[1]).toMatchObject({ fields: { ageMs: 160_000 } });
  });

  test("is answered for no longer than the value may be stale", async () => {
    const harness = createGateState();
    await harness.ask();
    harness.answer = fails();
    await harness.pass(899_999);
    expect(await harness.ask()).toMatchObject({ ok: true });
    await harness.pass(1);
    expect(await harness.ask()).toMatchObject({ ok: false });
  });
});

describe("a request that finds nothing and all slots taken", () => {
  test("takes what another brings meanwhile", async () => {
    const harness = createGateState();
    harness.answer = takes(300, says("brought"));
    const outcomes = Promise.all(Array.from({ length: 100 }, () => harness.ask()));
    await harness.pass(1_000);
    expect((await outcomes).every((outcome) => outcome.ok && outcome.value.value === "brought")).toBe(true);
    expect(harness.seen.calls).toBe(8);
  });

  test("gives up after a second with a moment to come back at", async () => {
    const harness = createGateState();
    harness.answer = hangs;
    const outcomes = Array.from({ length: 9 }, () => harness.ask());
    const last = outcomes[8];
    await harness.pass(1_500);
    expect(await last).toMatchObject({ error: { reason: "busy", retryAfterMs: 1_000 } });
  });
});

describe("the second level", () => {
  test("is read where memory has nothing, even while the breaker is open, and ages as it was stored", async () => {
    const harness = createGateState("background");
    harness.answer = fails();
    for (let count = 0; count < 5; count += 1) await harness.ask();
    expect(await harness.ask({ copy: stored(61_000) })).toMatchObject({
      value: { value: "stored", cache: "stale", ageMs: 61_000 },
    });
    expect(harness.seen.calls).toBe(5);
  });

  test("that is too old or fails is no reason to fail: the dependency is asked", async () => {
    const harness = createGateState("background");
    expect(await harness.ask({ copy: stored(900_000) })).toMatchObject({ value: { value: "first", cache: "miss" } });
    expect(await harness.ask({ key: "other", copy: brokenCopy })).toMatchObject({ value: { value: "first" } });
    expect(harness.warnings).toMatchObject([{ event: "dependency.copy_unreadable" }]);
  });
});

describe("callers that do not want to wait, or do not want the cache", () => {
  test("take from memory what there is, or nothing", async () => {
    const harness = createGateState("background");
    expect(servedFromMemory(harness.call())).toBeNull();
    await harness.ask();
    expect(servedFromMemory(harness.call())).toMatchObject({ value: "first", cache: "hit" });
    await harness.pass(64_999);
    expect(servedFromMemory(harness.call())).toMatchObject({ value: "first", cache: "stale" });
  });

  test("ask the dependency whatever is cached, and renew the cache by it", async () => {
    const harness = createGateState();
    await harness.ask();
    harness.answer = says("second");
    expect(await loadNow(harness.call())).toMatchObject({ value: { value: "second" } });
    expect(await harness.ask()).toMatchObject({ value: { value: "second", cache: "hit" } });
  });
});
