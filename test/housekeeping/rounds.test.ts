/** A round of housekeeping ends, whatever hangs in it, and the rounds go on. */
import { createScheduledController, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, expect, test, vi } from "vitest";
import { Housekeeping, JOB_TIMEOUT_MS } from "../../src/housekeeping/housekeeping.ts";
import { createRevocationPushes } from "../../src/housekeeping/revocation-push.ts";
import type { RoundLimits, RoundReport } from "../../src/resilience/round.ts";
import worker from "../../src/worker.ts";
import { housekeeping } from "../support/housekeeping.ts";
import { silentLog } from "../support/silent-log.ts";

const LIMITS: RoundLimits = { calls: 100, parallel: 16, durationMs: 20_000, callTimeoutMs: 30 };
const never = (): Promise<never> => new Promise(() => {});
const agents = (count: number, name: string): string[] => Array.from({ length: count }, (_, at) => `${name}-${at}`);

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** Runs rounds of pushes in an object of the test's own; each round in a new life of the pushes, as after an eviction. */
async function pushing(
  name: string,
  work: (round: (list: readonly string[] | null) => Promise<RoundReport>) => Promise<void>,
  endTokens: (did: string) => Promise<void>,
  clock: { nowMs: number },
) {
  await runInDurableObject(env.HOUSEKEEPING.getByName(name), async (_object, { storage }) => {
    await work(async (list) => {
      const pushes = createRevocationPushes(storage.sql);
      if (list !== null)
        pushes.take(
          list.map((agentDid) => ({ jti: `jti of ${agentDid}`, agentDid })),
          clock.nowMs,
        );
      return pushes.push(LIMITS, { endTokens, listMaxAgeMs: 1_800_000, now: () => clock.nowMs, log: silentLog });
    });
  });
}

test("revocations: a long list is pushed some gates a round, each once, and goes on where the last round ended", async () => {
  const list = agents(250, "agent");
  const ended: string[] = [];
  const clock = { nowMs: 1_000 };
  await pushing(
    "a long list",
    async (round) => {
      expect(await round(list)).toEqual({ done: 100, failed: 0, left: 1 });
      expect(await round(null)).toEqual({ done: 100, failed: 0, left: 1 });
      expect(await round(null)).toEqual({ done: 50, failed: 0, left: 0 });
      expect(await round(list)).toEqual({ done: 0, failed: 0, left: 0 });
    },
    async (did) => void ended.push(did),
    clock,
  );
  expect(ended.toSorted()).toEqual(list.toSorted());
});

test("revocations: gates that hang keep none of the others waiting beyond a round", async () => {
  const hanging = agents(120, "hanging");
  const others = agents(20, "other");
  const ended: string[] = [];
  let asked = 0;
  const clock = { nowMs: 1_000 };
  await pushing(
    "hanging gates",
    async (round) => {
      await round([...hanging, ...others]);
      await round(null);
      expect(ended.toSorted()).toEqual(others.toSorted());
      expect(asked).toBe(hanging.length);
      // Each hanging gate waits longer each time, and is asked once then.
      expect(await round(null)).toEqual({ done: 0, failed: 0, left: 0 });
      clock.nowMs += 15_000;
      expect((await round(null)).failed).toBe(100);
    },
    (did) => {
      if (!did.startsWith("hanging")) return Promise.resolve(void ended.push(did));
      asked += 1;
      return never();
    },
    clock,
  );
});

test("a round: a job that hangs is given up, logged, and the next ones are done", async () => {
  const lines: string[] = [];
  vi.spyOn(console, "error").mockImplementation((line: string) => void lines.push(line));
  vi.spyOn(console, "log").mockImplementation(() => {});
  // D1 hangs for whatever asks by a session; the retention jobs ask without one.
  const DB = new Proxy(env.DB, {
    get(target, name) {
      if (name === "withSession") {
        return () => ({ prepare: (text: string) => ({ bind: () => ({ all: never, text }) }), batch: never });
      }
      const member: unknown = Reflect.get(target, name);
      return typeof member === "function" ? (member.bind(target) as unknown) : member;
    },
  });
  await runInDurableObject(env.HOUSEKEEPING.getByName("a job hangs"), async (_object, ctx) => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const round = new Housekeeping(ctx, { ...env, DB }).alarm();
    let isOver = false;
    void round.then(() => (isOver = true));
    while (!isOver) {
      // oxlint-disable-next-line no-await-in-loop -- until the round is over
      await vi.advanceTimersByTimeAsync(JOB_TIMEOUT_MS / 10);
      // oxlint-disable-next-line no-await-in-loop
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(ctx.storage.kv.get("turn pairing tickets")).toMatchObject({ failures: 0 });
    await ctx.storage.deleteAlarm();
  });
  const failed = lines.map((line) => JSON.parse(line) as { event: string; job: string });
  const jobs = failed.filter(({ event }) => event === "housekeeping.failed").map(({ job }) => job);
  expect(jobs.slice(0, 2)).toEqual(["pending notifications", "pending fences"]);
});

test("the alarm: one that the platform has given up is armed again by the cron", async () => {
  housekeeping.isArmed = true;
  const main = env.HOUSEKEEPING.getByName("main");
  await runInDurableObject(main, (_object, { storage }) => storage.deleteAlarm());
  await worker.scheduled(createScheduledController(), env);
  const armed = await runInDurableObject(main, async (_object, { storage }) => storage.getAlarm());
  expect(armed === null ? "not armed" : "armed").toBe("armed");
});
