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
  const house: House = {
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
        dependency: house.dependency,
        cache: house.cache,
        key: "k",
        refresh,
        scope,
        load: async (given) => {
          seen.calls += 1;
          seen.inFlight += 1;
          seen.mostInFlight = Math.max(seen.mostInFlight, seen.inFlight);
          try {
            return await house.answer(given);
          } finally {
            seen.inFlight -= 1;
          }
        },
        ...overrides,
      };
    },
    ask: (overrides) => cachedCall(house.call(overrides)),
    async settle() {
      await Promise.all(seen.background.splice(0));
    },
    async pass(ms) {
      await vi.advanceTimersByTimeAsync(ms);
    },
  };
  return house;
}

describe("a call through the cache", () => {
  test("says what it did: miss, hit, refreshed, stale", async () => {
    const house = createGateState();
    expect(await house.ask()).toEqual(ok({ value: "first", cache: "miss", ageMs: 0 }));
    expect(await house.ask()).toEqual(ok({ value: "first", cache: "hit", ageMs: 0 }));
    await house.pass(60_000);
    house.answer = says("second");
    expect(await house.ask()).toEqual(ok({ value: "second", cache: "refreshed", ageMs: 0 }));
    await house.pass(60_000);
    house.answer = fails();
    expect(await house.ask()).toEqual(ok({ value: "second", cache: "stale", ageMs: 60_000 }));
    expect(house.seen.calls).toBe(3);
  });

  test("touches neither timer nor signal when memory has the answer", async () => {
    const house = createGateState();
    await house.ask();
    const call = house.call();
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
    const house = createGateState();
    house.answer = hangs;
    const outcome = house.ask();
    await house.pass(5_000);
    expect(await outcome).toMatchObject({ ok: false, error: { reason: "failed", detail: "timeout" } });
    expect(house.dependency.limiter.inFlight(Date.now())).toBe(0);
  });

  test("whose load throws is a failure of the dependency, and its message is not logged", async () => {
    const house = createGateState();
    house.answer = async () => {
      throw new TypeError("POST with token-abc failed");
    };
    expect(await house.ask()).toMatchObject({ ok: false, error: { detail: "TypeError" } });
    expect(JSON.stringify(house.warnings)).not.toContain("token-abc");
  });

  test("goes on in the background when its request stops waiting, and the next request has its answer", async () => {
    const house = createGateState();
    house.answer = takes(3_000, says("late"));
    const controller = new AbortController();
    const outcome = house.ask({ signal: controller.signal });
    await house.pass(1_000);
    controller.abort();
    expect(await outcome).toMatchObject({ ok: false, error: { reason: "deadline" } });
    await house.pass(2_000);
    expect(await house.ask()).toMatchObject({ value: { value: "late", cache: "hit" } });
  });

  test("counts the age of an answer from when it was asked for", async () => {
    const house = createGateState();
    house.answer = takes(3_000, says("slow"));
    const outcome = house.ask();
    await house.pass(3_000);
    await outcome;
    await house.pass(57_000);
    expect(house.cache.read("k", Date.now()).phase).toBe("revalidate");
  });
});

describe("1 000 requests at the moment a value is no longer fresh", () => {
  test("cause one refresh, for which only the one that makes it waits", async () => {
    const house = createGateState("foreground");
    await house.ask();
    await house.pass(60_000);
    house.answer = takes(2_000, says("second"));
    const outcomes = Array.from({ length: 1_000 }, () => house.ask());
    let settled = 0;
    for (const outcome of outcomes) void outcome.then(() => (settled += 1));
    await house.pass(0);
    expect(settled).toBe(999);
    await house.pass(2_000);
    expect(settled).toBe(1_000);
    expect(house.seen.calls).toBe(2);
  });

  test("wait for nothing at all where refreshing is left to the background", async () => {
    const house = createGateState("background");
    await house.ask();
    await house.pass(60_000);
    house.answer = hangs;
    const outcomes = await Promise.all(Array.from({ length: 1_000 }, () => house.ask()));
    expect(outcomes.every((outcome) => outcome.ok && outcome.value.cache === "stale")).toBe(true);
    expect(house.seen.calls).toBe(2);
  });

  test("are not stuck with a refresh whose request died: its lease runs out", async () => {
    const house = createGateState("background");
    await house.ask();
    await house.pass(60_000);
    // A killed request: its timers never fire and its promise never settles.
    expect(house.cache.claim("k", Date.now(), house.dependency.leaseMs)).not.toBeNull();
    vi.setSystemTime(Date.now() + 3_000);
    expect(await house.ask()).toMatchObject({ value: { cache: "stale" } });
    expect(house.seen.calls).toBe(1);
    house.cache.write("k", "first", Date.now() - 62_000);
    vi.setSystemTime(Date.now() + 2_999);
    expect(await house.ask()).toMatchObject({ value: { cache: "stale" } });
    await house.settle();
    expect(house.seen.calls).toBe(2);
  });
});

describe("a busy value", () => {
  test("is refreshed ahead of its time in the background, so that nobody ever waits for it", async () => {
    const house = createGateState("foreground");
    house.cache = createStaleCache({ maxEntries: 1, freshness: { ...FRESHNESS, refreshAheadMs: 45_000 } });
    await house.ask();
    await house.pass(45_000);
    house.answer = says("second");
    expect(await house.ask()).toMatchObject({ value: { value: "first", cache: "hit" } });
    await house.settle();
    expect(await house.ask()).toMatchObject({ value: { value: "second", cache: "hit", ageMs: 0 } });
    expect(house.seen.calls).toBe(2);
  });
});

describe("a failing dependency", () => {
  test("is called five times and then once each cool-down, however many ask, and every cached value is served", async () => {
    const house = createGateState("foreground");
    await house.ask();
    house.answer = fails();
    await house.pass(70_000);
    for (let count = 0; count < 1_000; count += 1) {
      expect(await house.ask()).toMatchObject({ value: { value: "first", cache: "stale" } });
    }
    expect(house.seen.calls).toBe(1 + 5);
    for (let minute = 0; minute < 10; minute += 1) {
      await house.pass(30_000);
      await Promise.all(Array.from({ length: 50 }, () => house.ask()));
      await house.settle();
    }
    expect(house.seen.calls).toBe(1 + 5 + 10);
  });

  test("has never more than eight calls in flight and at most thirteen in all before its breaker opens", async () => {
    const house = createGateState();
    house.answer = takes(100, fails());
    const outcomes = Array.from({ length: 300 }, (_, index) => house.ask({ key: `agent ${index}` }));
    await house.pass(3_000);
    const settled = await Promise.all(outcomes);
    expect(settled.every((outcome) => !outcome.ok && outcome.error.retryAfterMs >= 1_000)).toBe(true);
    expect(house.seen.mostInFlight).toBe(8);
    expect(house.seen.calls).toBeLessThanOrEqual(13);
    expect(house.dependency.breaker.snapshot().state).toBe("open");
  });

  test("recovers by one probe, for which nobody with a copy waits", async () => {
    const house = createGateState("foreground");
    await house.ask();
    house.answer = fails();
    await house.pass(70_000);
    for (let count = 0; count < 6; count += 1) await house.ask();
    await house.pass(30_000);
    house.answer = takes(1_000, says("back"));
    const outcomes = await Promise.all(Array.from({ length: 10 }, () => house.ask()));
    expect(outcomes.every((outcome) => outcome.ok && outcome.value.cache === "stale")).toBe(true);
    await house.pass(1_000);
    expect(await house.ask()).toMatchObject({ value: { value: "back", cache: "hit" } });
    expect(house.dependency.breaker.snapshot().state).toBe("closed");
  });

  test("is asked again no sooner than it has asked for", async () => {
    const house = createGateState();
    house.answer = fails("status 429", 20_000);
    expect(await house.ask()).toMatchObject({ error: { reason: "failed", retryAfterMs: 20_000 } });
    await house.pass(19_999);
    expect(await house.ask()).toMatchObject({ error: { reason: "open", retryAfterMs: 1 } });
    house.answer = says("back");
    await house.pass(1);
    expect(await house.ask()).toMatchObject({ value: { value: "back" } });
    expect(house.seen.calls).toBe(2);
  });

  test("is told of with the age of what is served, once a minute and not once a request", async () => {
    const house = createGateState("foreground");
    await house.ask();
    house.answer = fails();
    await house.pass(100_000);
    for (let count = 0; count < 100; count += 1) await house.ask();
    const stale = () => house.warnings.filter(({ event }) => event === "dependency.served_stale");
    expect(stale()).toMatchObject([{ fields: { dependency: "registry", ageMs: 100_000 } }]);
    await house.pass(60_000);
    for (let count = 0; count < 100; count += 1) await house.ask();
    expect(stale()).toHaveLength(2);
    expect(stale()[1]).toMatchObject({ fields: { ageMs: 160_000 } });
  });

  test("is answered for no longer than the value may be stale", async () => {
    const house = createGateState();
    await house.ask();
    house.answer = fails();
    await house.pass(899_999);
    expect(await house.ask()).toMatchObject({ ok: true });
    await house.pass(1);
    expect(await house.ask()).toMatchObject({ ok: false });
  });
});

describe("a request that finds nothing and all slots taken", () => {
  test("takes what another brings meanwhile", async () => {
    const house = createGateState();
    house.answer = takes(300, says("brought"));
    const outcomes = Promise.all(Array.from({ length: 100 }, () => house.ask()));
    await house.pass(1_000);
    expect((await outcomes).every((outcome) => outcome.ok && outcome.value.value === "brought")).toBe(true);
    expect(house.seen.calls).toBe(8);
  });

  test("gives up after a second with a moment to come back at", async () => {
    const house = createGateState();
    house.answer = hangs;
    const outcomes = Array.from({ length: 9 }, () => house.ask());
    const last = outcomes[8];
    await house.pass(1_500);
    expect(await last).toMatchObject({ error: { reason: "busy", retryAfterMs: 1_000 } });
  });
});

describe("the second level", () => {
  test("is read where memory has nothing, even while the breaker is open, and ages as it was stored", async () => {
    const house = createGateState("background");
    house.answer = fails();
    for (let count = 0; count < 5; count += 1) await house.ask();
    expect(await house.ask({ copy: stored(61_000) })).toMatchObject({
      value: { value: "stored", cache: "stale", ageMs: 61_000 },
    });
    expect(house.seen.calls).toBe(5);
  });

  test("that is too old or fails is no reason to fail: the dependency is asked", async () => {
    const house = createGateState("background");
    expect(await house.ask({ copy: stored(900_000) })).toMatchObject({ value: { value: "first", cache: "miss" } });
    expect(await house.ask({ key: "other", copy: brokenCopy })).toMatchObject({ value: { value: "first" } });
    expect(house.warnings).toMatchObject([{ event: "dependency.copy_unreadable" }]);
  });
});

describe("callers that do not want to wait, or do not want the cache", () => {
  test("take from memory what there is, or nothing", async () => {
    const house = createGateState("background");
    expect(servedFromMemory(house.call())).toBeNull();
    await house.ask();
    expect(servedFromMemory(house.call())).toMatchObject({ value: "first", cache: "hit" });
    await house.pass(64_999);
    expect(servedFromMemory(house.call())).toMatchObject({ value: "first", cache: "stale" });
  });

  test("ask the dependency whatever is cached, and renew the cache by it", async () => {
    const house = createGateState();
    await house.ask();
    house.answer = says("second");
    expect(await loadNow(house.call())).toMatchObject({ value: { value: "second" } });
    expect(await house.ask()).toMatchObject({ value: { value: "second", cache: "hit" } });
  });
});
