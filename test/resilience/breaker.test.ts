import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { type Breaker, type BreakerTransition, createBreaker, type Permit } from "../../src/resilience/breaker.ts";

function createWatched(options: Partial<Parameters<typeof createBreaker>[0]> = {}) {
  const transitions: BreakerTransition[] = [];
  const breaker = createBreaker({
    dependency: "keys",
    failures: 5,
    windowMs: 60_000,
    openMs: 30_000,
    probeLeaseMs: 6_000,
    onTransition: (transition) => transitions.push(transition),
    ...options,
  });
  return { breaker, transitions, changes: () => transitions.map(({ from, to }) => `${from} → ${to}`) };
}

function permitAt(breaker: Breaker, nowMs: number): Permit {
  const admission = breaker.admit(nowMs);
  if (!admission.admitted) throw new Error(`not admitted at ${nowMs}`);
  return admission.permit;
}

function failTimes(breaker: Breaker, times: number, nowMs: number): void {
  for (let count = 0; count < times; count += 1) breaker.failed(permitAt(breaker, nowMs), nowMs);
}

describe("a closed breaker", () => {
  test("opens at the fifth failure in a row and not before", () => {
    const { breaker, changes } = createWatched();
    failTimes(breaker, 4, 0);
    expect(breaker.snapshot().state).toBe("closed");
    failTimes(breaker, 1, 0);
    expect(breaker.snapshot()).toEqual({ state: "open", failures: 5, retryAtMs: 30_000 });
    expect(changes()).toEqual(["closed → open"]);
  });

  test("starts counting anew after a success", () => {
    const { breaker } = createWatched();
    failTimes(breaker, 4, 0);
    breaker.succeeded(permitAt(breaker, 1), 1);
    failTimes(breaker, 4, 2);
    expect(breaker.snapshot().state).toBe("closed");
  });

  test("forgets failures that are older than the window", () => {
    const { breaker } = createWatched();
    failTimes(breaker, 4, 0);
    failTimes(breaker, 1, 60_000);
    expect(breaker.snapshot()).toMatchObject({ state: "closed", failures: 1 });
  });
});

describe("an open breaker", () => {
  test("lets nobody through until its cool-down is over, and says how long that is", () => {
    const { breaker } = createWatched();
    failTimes(breaker, 5, 1_000);
    expect(breaker.admit(1_000)).toEqual({ admitted: false, retryAfterMs: 30_000 });
    expect(breaker.admit(30_999)).toEqual({ admitted: false, retryAfterMs: 1 });
  });

  test("then lets exactly one probe through while the others are turned away at once", () => {
    const { breaker } = createWatched();
    failTimes(breaker, 5, 0);
    const admissions = Array.from({ length: 100 }, () => breaker.admit(30_000));
    expect(admissions.filter(({ admitted }) => admitted)).toHaveLength(1);
    expect(admissions[0]).toMatchObject({ admitted: true, permit: { isProbe: true } });
  });

  test("closes when the probe succeeds", () => {
    const { breaker, changes } = createWatched();
    failTimes(breaker, 5, 0);
    breaker.succeeded(permitAt(breaker, 30_000), 30_100);
    expect(breaker.snapshot()).toEqual({ state: "closed", failures: 0, retryAtMs: null });
    expect(changes()).toEqual(["closed → open", "open → half-open", "half-open → closed"]);
  });

  test("opens again, for another cool-down, when the probe fails", () => {
    const { breaker, changes } = createWatched();
    failTimes(breaker, 5, 0);
    breaker.failed(permitAt(breaker, 30_000), 30_100);
    expect(breaker.admit(60_099).admitted).toBe(false);
    expect(breaker.admit(60_100).admitted).toBe(true);
    expect(changes()).toEqual(["closed → open", "open → half-open", "half-open → open", "open → half-open"]);
  });

  test("is not wedged by a probe that never reports", () => {
    const { breaker } = createWatched();
    failTimes(breaker, 5, 0);
    const dead = permitAt(breaker, 30_000);
    expect(breaker.admit(35_999).admitted).toBe(false);
    const next = permitAt(breaker, 36_000);
    breaker.succeeded(dead, 36_001);
    expect(breaker.snapshot().state).toBe("half-open");
    breaker.succeeded(next, 36_002);
    expect(breaker.snapshot().state).toBe("closed");
  });

  test("is not moved by calls that went out before it opened", () => {
    const { breaker, changes } = createWatched();
    const late = Array.from({ length: 8 }, () => permitAt(breaker, 0));
    for (const permit of late.slice(0, 5)) breaker.failed(permit, 10);
    breaker.failed(late[5] ?? late[0]!, 20_000);
    breaker.succeeded(late[6] ?? late[0]!, 20_000);
    expect(breaker.snapshot()).toEqual({ state: "open", failures: 5, retryAtMs: 30_010 });
    expect(changes()).toEqual(["closed → open"]);
  });
});

describe("Retry-After", () => {
  test("is respected at the first answer that carries it", () => {
    const { breaker } = createWatched();
    breaker.failed(permitAt(breaker, 0), 0, 7_000);
    expect(breaker.admit(6_999).admitted).toBe(false);
    expect(breaker.admit(7_000).admitted).toBe(true);
  });

  test("never shortens the cool-down of a breaker that opens by failures", () => {
    const { breaker } = createWatched();
    failTimes(breaker, 4, 0);
    breaker.failed(permitAt(breaker, 0), 0, 1_000);
    expect(breaker.snapshot().retryAtMs).toBe(30_000);
  });

  test("is bounded, so that a lying dependency cannot turn itself off for a year", () => {
    const { breaker } = createWatched();
    breaker.failed(permitAt(breaker, 0), 0, 31_536_000_000);
    expect(breaker.snapshot().retryAtMs).toBe(300_000);
  });
});

const event = fc.oneof(
  fc.record({ do: fc.constant("admit" as const) }),
  fc.record({ do: fc.constantFrom("succeed" as const, "fail" as const), which: fc.nat(7) }),
  fc.record({ do: fc.constant("pass" as const), byMs: fc.nat(40_000) }),
);

property.prop([fc.array(event, { maxLength: 80 })])(
  "whatever is reported in whatever order, at most one live probe is out and each change is told once",
  (events) => {
    const { breaker, transitions } = createWatched({ failures: 2 });
    const permits: Permit[] = [];
    let nowMs = 0;
    let probeAtMs = Number.NEGATIVE_INFINITY;
    let state = "closed";
    for (const happened of events) {
      const known = transitions.length;
      if (happened.do === "pass") nowMs += happened.byMs;
      else if (happened.do === "admit") {
        const admission = breaker.admit(nowMs);
        if (admission.admitted) {
          permits.push(admission.permit);
          if (admission.permit.isProbe) {
            const isProbeOut = state === "half-open" && nowMs - probeAtMs < 6_000;
            expect(isProbeOut).toBe(false);
            probeAtMs = nowMs;
          }
        }
      } else {
        const permit = permits[happened.which];
        if (permit === undefined) continue;
        if (happened.do === "fail") breaker.failed(permit, nowMs);
        else breaker.succeeded(permit, nowMs);
      }
      expect(transitions.length - known).toBeLessThanOrEqual(1);
      const last = transitions.at(-1);
      if (transitions.length > known) expect(last?.from).toBe(state);
      state = breaker.snapshot().state;
      expect(last?.to ?? "closed").toBe(state);
    }
  },
);
