import { beforeEach, describe, expect, test } from "vitest";
import { createTrustStage, type TrustStage } from "../../src/auth/trust.ts";
import type { Trust } from "../../src/trust/pairs.ts";
import type { AgentDid } from "../../src/wire/did.ts";
import { newAgentDid } from "../trust/call-context.ts";
import { NOW_MS, recordingLog, requestScope, TRUST_SETTINGS } from "./fixture.ts";

const TRUSTED: Trust = { trusted: true, epoch: 7 };

let nowMs: number;
let reads: number;
let answer: () => Promise<Trust>;
let log: ReturnType<typeof recordingLog>;
let stage: TrustStage;
let scope: ReturnType<typeof requestScope>;
let alice: AgentDid;
let bob: AgentDid;

beforeEach(() => {
  nowMs = NOW_MS;
  reads = 0;
  answer = async () => TRUSTED;
  log = recordingLog();
  scope = requestScope(() => nowMs);
  [alice, bob] = [newAgentDid(), newAgentDid()];
  stage = createTrustStage({
    settings: TRUST_SETTINGS,
    log,
    lookUpGroup: async () => null,
    lookUp: () => {
      reads += 1;
      return answer();
    },
  });
});

const fails = async (): Promise<Trust> => {
  throw new Error("D1 is down");
};

const judge = async (how?: { fresh: boolean }): Promise<unknown> => {
  const judged = await stage.judge(alice, bob, scope, how);
  return judged.ok ? [judged.value.cache, judged.value.epoch] : judged.error.reason;
};

describe("trust while the store answers", () => {
  test("is read once and remembered for both directions", async () => {
    expect(await judge()).toEqual(["miss", 7]);
    nowMs += 60_000;
    expect(await judge()).toEqual(["hit", 7]);
    const back = await stage.judge(bob, alice, scope);
    expect(back.ok && back.value).toEqual({ epoch: 7, cache: "hit" });
    expect(reads).toBe(1);
  });

  test("is read again after its time", async () => {
    await judge();
    nowMs += 95_000;
    expect(await judge()).toEqual(["refreshed", 7]);
    nowMs += 600_000;
    expect(await judge()).toEqual(["refreshed", 7]);
    expect(reads).toBe(3);
  });

  test("of a busy pair is read ahead of its end, and no request waits for it", async () => {
    await judge();
    nowMs += 80_000;
    expect(await judge()).toEqual(["hit", 7]);
    await Promise.all(scope.waiting);
    expect(reads).toBe(2);
    nowMs += 60_000;
    expect(await judge()).toEqual(["hit", 7]);
    expect(reads).toBe(2);
  });

  test("that is not there is asked for each time, so that a pairing holds at once", async () => {
    answer = async () => ({ trusted: false, epoch: 0 });
    expect(await judge()).toBe("peer-not-trusted");
    answer = async () => ({ trusted: true, epoch: 1 });
    expect(await judge()).toEqual(["miss", 1]);
  });

  test("that ended meanwhile is forgotten when it is read again", async () => {
    await judge();
    answer = async () => ({ trusted: false, epoch: 8 });
    nowMs += 95_000;
    expect(await judge()).toBe("peer-not-trusted");
    expect(await judge()).toBe("peer-not-trusted");
  });

  test("that was found ended in the background is not remembered as ended: a pairing after that holds at once", async () => {
    await judge();
    nowMs += 80_000;
    answer = async () => ({ trusted: false, epoch: 8 });
    await judge();
    await Promise.all(scope.waiting);
    answer = async () => ({ trusted: true, epoch: 9 });
    expect(await judge()).toEqual(["miss", 9]);
  });

  test("can be asked for afresh, whatever is remembered", async () => {
    await judge();
    answer = async () => ({ trusted: true, epoch: 9 });
    expect(await judge()).toEqual(["hit", 7]);
    expect(await judge({ fresh: true })).toEqual(["miss", 9]);
    expect(await judge()).toEqual(["hit", 9]);
  });

  test("of a thousand requests at the moment its time is up, one reads it", async () => {
    await judge();
    nowMs += 90_000;
    const judged = await Promise.all(Array.from({ length: 1_000 }, () => judge()));
    expect(judged.every((verdict) => Array.isArray(verdict))).toBe(true);
    expect(reads).toBe(2);
  });
});

describe("trust while the store fails", () => {
  test("that was never read is unavailable, and nobody gets in", async () => {
    answer = fails;
    expect(await judge()).toBe("trust-unavailable");
  });

  test("that is remembered is served to the end of its stale time, and warned of once a minute", async () => {
    await judge();
    answer = fails;
    nowMs += 400_000;
    for (let round = 0; round < 20; round += 1) expect(await judge()).toEqual(["stale", 7]);
    const warnings = (scope.log as ReturnType<typeof recordingLog>).lines.filter(
      (line) => line.event === "dependency.served_stale",
    );
    expect(warnings).toHaveLength(1);
    expect(warnings[0]?.fields).toMatchObject({ dependency: "trust", ageMs: 400_000 });
    nowMs += 500_000;
    expect(await judge()).toBe("trust-unavailable");
  });

  test("opens the breaker after five failures, with one probe after its time, and heals", async () => {
    answer = fails;
    for (let round = 0; round < 50; round += 1) await judge();
    expect(reads).toBe(5);
    expect(stage.breaker().state).toBe("open");
    expect(log.lines.map((line) => line.event)).toEqual(["breaker.changed"]);
    nowMs += 30_000;
    expect(await judge()).toBe("trust-unavailable");
    expect(reads).toBe(6);
    nowMs += 30_000;
    answer = async () => TRUSTED;
    expect(await judge()).toEqual(["miss", 7]);
    expect(stage.breaker().state).toBe("closed");
  });

  test("a removal that was read is not undone by a store that fails afterwards", async () => {
    await judge();
    answer = async () => ({ trusted: false, epoch: 8 });
    nowMs += 95_000;
    await judge();
    answer = fails;
    expect(await judge()).toBe("trust-unavailable");
  });

  test("a store that hangs is given up at its time-out", async () => {
    const hanging = createTrustStage({
      settings: { ...TRUST_SETTINGS, storeTimeoutMs: 20 },
      log,
      lookUpGroup: async () => null,
      lookUp: () => new Promise(() => {}),
    });
    const judged = await hanging.judge(alice, bob, scope);
    expect(judged.ok ? null : judged.error.reason).toBe("trust-unavailable");
  });
});

test("the memory of pairs is bounded", async () => {
  const small = createTrustStage({
    settings: TRUST_SETTINGS,
    log,
    lookUpGroup: async () => null,
    lookUp: async () => {
      reads += 1;
      return TRUSTED;
    },
    maxEntries: 10,
  });
  for (let round = 0; round < 100; round += 1) await small.judge(alice, newAgentDid(), scope);
  await small.judge(alice, bob, scope);
  for (let round = 0; round < 10; round += 1) await small.judge(alice, newAgentDid(), scope);
  reads = 0;
  await small.judge(alice, bob, scope);
  expect(reads).toBe(1);
});

test("pairs that were refused push no trusted pair out of the memory", async () => {
  const small = createTrustStage({
    settings: TRUST_SETTINGS,
    log,
    lookUpGroup: async () => null,
    lookUp: async (a, b) => {
      reads += 1;
      return [a, b].includes(bob) ? TRUSTED : { trusted: false, epoch: 0 };
    },
    maxEntries: 10,
  });
  await small.judge(alice, bob, scope);
  for (let round = 0; round < 100; round += 1) await small.judge(alice, newAgentDid(), scope);
  reads = 0;
  await small.judge(alice, bob, scope);
  expect(reads).toBe(0);
});

test("trust: a pair that is not trusted pushes out none that is", async () => {
  stage = createTrustStage({
    settings: TRUST_SETTINGS,
    log,
    lookUpGroup: async () => null,
    lookUp: () => ((reads += 1), answer()),
    maxEntries: 1,
  });
  await judge();
  answer = async () => ({ trusted: false, epoch: 7 });
  await stage.judge(newAgentDid(), newAgentDid(), scope);
  expect(await judge()).toEqual(["hit", 7]);
  expect(reads).toBe(2);
});
