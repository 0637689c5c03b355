import { fc, test as property } from "@fast-check/vitest";
import { evictDurableObject } from "cloudflare:test";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Counted, createRate, ENDING_RESERVE, type Rate } from "../../../src/gate/admission/rate-limit.ts";
import type { GateAnswer } from "../../../src/gate/protocol/calls.ts";
import {
  admissionOf,
  eventually,
  gateStub,
  newAgentDid,
  onStorage,
  pass,
  send,
  START_MS,
  stopClock,
} from "../../support/gate.ts";

const AGENT = { holder: "agent" };
const DEVICE = { holder: "device:a" };

/** Asks and counts as the gate does. */
function ask(rate: Rate, nowMs: number, asked: Counted = AGENT): boolean {
  if (rate.waitMs(asked, nowMs) > 0) return false;
  rate.count(asked, nowMs);
  return true;
}

/** How many of so many requests of a holder pass at one moment. */
const passed = (rate: Rate, asked: Counted, tries: number, nowMs = START_MS): number =>
  Array.from({ length: tries }, () => ask(rate, nowMs, asked)).filter(Boolean).length;

describe("a rate of 5 in 60 seconds", () => {
  test("lets the sixth wait until the first is 60 seconds old, to the millisecond", async () => {
    const seen = await onStorage((sql) => {
      const rate = createRate(sql, 5);
      const burst = [0, 100, 100, 100, 59_999].map((at) => ask(rate, START_MS + at));
      return { burst, waits: [59_999, 60_000, 60_001].map((at) => rate.waitMs(AGENT, START_MS + at)) };
    });
    expect(seen).toEqual({ burst: [true, true, true, true, true], waits: [1, 0, 0] });
  });

  test("counts nothing that it refused", async () => {
    const accepted = await onStorage((sql) => {
      const rate = createRate(sql, 5);
      for (let n = 0; n < 500; n++) ask(rate, START_MS + n * 100);
      return ask(rate, START_MS + 60_000);
    });
    expect(accepted).toBe(true);
  });

  test("goes on after a restart where it was, and keeps no more than a minute", async () => {
    const seen = await onStorage((sql) => {
      const before = createRate(sql, 5);
      for (const at of [0, 1, 2, 2, 2]) before.count(AGENT, START_MS + at);
      before.save();
      const after = createRate(sql, 5);
      const wait = after.waitMs(AGENT, START_MS + 10);
      after.waitMs(AGENT, START_MS + 60_001);
      after.save();
      return { wait, kept: sql.exec("SELECT at_ms - ? AS at, count FROM rate_windows", START_MS).toArray() };
    });
    expect(seen).toEqual({ wait: 59_990, kept: [{ at: 2, count: 3 }] });
  });

  test("of 0 is none", async () => {
    const seen = await onStorage((sql) => {
      const rate = createRate(sql, 0);
      for (let n = 0; n < 10_000; n++) rate.count(AGENT, START_MS);
      rate.save();
      return { wait: rate.waitMs(AGENT, START_MS), rows: sql.exec("SELECT * FROM rate_windows").toArray().length };
    });
    expect(seen).toEqual({ wait: 0, rows: 0 });
  });

  property.prop([fc.array(fc.nat({ max: 20_000 }), { maxLength: 80 })], { numRuns: 30 })(
    "lets no more than 5 pass in any 60 seconds, and never fewer without need",
    async (gaps) => {
      await onStorage((sql) => {
        const rate = createRate(sql, 5);
        const accepted: number[] = [];
        let nowMs = START_MS;
        for (const gap of gaps) {
          nowMs += gap;
          const inWindow = accepted.filter((at) => at > nowMs - 60_000).length;
          const isAccepted = ask(rate, nowMs);
          expect(isAccepted).toBe(inWindow < 5);
          if (isAccepted) accepted.push(nowMs);
        }
      });
    },
  );
});

describe("shares of a rate of 20", () => {
  test("one device may use half, and what it leaves is the agent's", async () => {
    const seen = await onStorage((sql) => {
      const rate = createRate(sql, 20);
      return { device: passed(rate, DEVICE, 30), agent: passed(rate, AGENT, 30) };
    });
    expect(seen).toEqual({ device: 10, agent: 10 });
  });

  test("all devices, secrets and keys together leave a quarter to the agent's own credential", async () => {
    const seen = await onStorage((sql) => {
      const rate = createRate(sql, 20);
      const others = ["device:a", "device:b", "shared", "apiKey:c"].map((holder) => passed(rate, { holder }, 20));
      return { others, agent: passed(rate, AGENT, 20) };
    });
    expect(seen).toEqual({ others: [10, 5, 0, 0], agent: 5 });
  });

  test("a call that ends an authority passes when everything is used up, so many times a minute", async () => {
    const seen = await onStorage((sql) => {
      const rate = createRate(sql, 20);
      passed(rate, DEVICE, 20);
      passed(rate, AGENT, 20);
      const ends = { ...AGENT, endsAuthority: true };
      return {
        ordinary: ask(rate, START_MS, AGENT),
        ends: passed(rate, ends, 50),
        ofDevice: passed(rate, { ...DEVICE, endsAuthority: true }, 50),
        later: ask(rate, START_MS + 60_000, ends),
      };
    });
    expect(seen).toEqual({ ordinary: false, ends: ENDING_RESERVE, ofDevice: ENDING_RESERVE, later: true });
  });

  test("the reserve is untouched while the ordinary rate has room", async () => {
    const ends = await onStorage((sql) => {
      const rate = createRate(sql, 20);
      return passed(rate, { ...AGENT, endsAuthority: true }, 100);
    });
    expect(ends).toBe(20 + ENDING_RESERVE);
  });

  test("are as they were after a restart", async () => {
    const seen = await onStorage((sql) => {
      const before = createRate(sql, 20);
      passed(before, DEVICE, 20);
      passed(before, AGENT, 20);
      passed(before, { ...AGENT, endsAuthority: true }, 4);
      before.save();
      const after = createRate(sql, 20);
      return {
        device: ask(after, START_MS + 1, DEVICE),
        agent: ask(after, START_MS + 1, AGENT),
        ends: passed(after, { ...AGENT, endsAuthority: true }, 50, START_MS + 1),
      };
    });
    expect(seen).toEqual({ device: false, agent: false, ends: ENDING_RESERVE - 4 });
  });
});

describe("a clock that goes back by ten minutes", () => {
  const BACK_MS = START_MS - 600_000;

  test("makes nobody wait longer than the window", async () => {
    const seen = await onStorage((sql) => {
      const rate = createRate(sql, 5);
      for (const at of [0, 1, 2, 3, 4]) rate.count(AGENT, START_MS + at);
      rate.save();
      const wait = rate.waitMs(AGENT, BACK_MS);
      rate.save();
      const woken = createRate(sql, 5);
      return { wait, afterRestart: woken.waitMs(AGENT, BACK_MS + 1_000), later: ask(woken, BACK_MS + 60_000) };
    });
    expect(seen).toEqual({ wait: 60_000, afterRestart: 59_000, later: true });
  });

  test("is noticed at a waking too, by what is on disk", async () => {
    const seen = await onStorage((sql) => {
      const before = createRate(sql, 5);
      for (const at of [0, 1, 2, 3, 4]) before.count(AGENT, START_MS + at);
      before.save();
      const after = createRate(sql, 5);
      const wait = after.waitMs(AGENT, BACK_MS);
      after.save();
      return { wait, kept: sql.exec("SELECT at_ms - ? AS at, count FROM rate_windows", BACK_MS).toArray() };
    });
    expect(seen).toEqual({ wait: 60_000, kept: [{ at: 0, count: 5 }] });
  });
});

describe("at the gate", () => {
  beforeEach(() => stopClock());
  afterEach(() => void vi.useRealTimers());

  test("600 a minute pass and the next is told how long to wait, also after an eviction", async () => {
    const [alice, bob] = [newAgentDid(), newAgentDid()];
    // One idempotency key: what is counted is the request, not the message.
    const request = () => send(alice, bob, {}, { idempotency: { key: "k", bodySha256: "s" } });
    pass(999);
    const replies = await Promise.all(Array.from({ length: 650 }, request));
    expect(replies.filter(({ ok }) => ok)).toHaveLength(600);
    pass(20_000);
    await eventually(() => evictDurableObject(gateStub(alice)));
    expect(await request()).toEqual({ ok: false, refusal: { reason: "gate-rate-exceeded", retryAfterMs: 40_000 } });
    pass(39_999);
    expect((await request()).ok).toBe(false);
    pass(1);
    expect((await request()).ok).toBe(true);
  });

  test("a batch counts each of its calls: those beyond the rate are refused one by one, those before stand", async () => {
    const alice = newAgentDid();
    const askAll = (calls: number) =>
      gateStub(alice).call({
        caller: { kind: "agent", admission: admissionOf(alice) },
        surface: "rpc",
        requestId: "test-request",
        origin: null,
        calls: Array.from({ length: calls }, () => ({ method: "device.pair.list", params: {} })),
      }) as Promise<GateAnswer>;
    const repliesOf = async (calls: number) => {
      const answer = await askAll(calls);
      if (!answer.ok) throw new Error(answer.refusal.reason);
      return answer.replies;
    };
    for (const calls of [50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 30]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expect((await repliesOf(calls)).every(({ ok }) => ok)).toBe(true);
    }
    pass(20_000);
    await eventually(() => evictDurableObject(gateStub(alice)));
    const replies = await repliesOf(50);
    expect(replies.map(({ ok }) => ok)).toEqual(Array.from({ length: 50 }, (_, at) => at < 20));
    expect(replies[20]).toMatchObject({ code: "PROXY_RATE_LIMIT_EXCEEDED", retryAfterMs: 40_000 });
    expect(await askAll(1)).toEqual({ ok: false, refusal: { reason: "gate-rate-exceeded", retryAfterMs: 40_000 } });
    pass(40_000);
    expect((await repliesOf(50)).every(({ ok }) => ok)).toBe(true);
  });
});
