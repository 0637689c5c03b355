import { describe, expect, test } from "vitest";
import { closeDecision, openDecision } from "../../src/auth/decision.ts";
import { REASONS, type Reason, refusalError, STAGES } from "../../src/auth/reasons.ts";
import { createLogLimit } from "../../src/telemetry/log-limit.ts";
import { PROBLEMS } from "../../src/wire/problem.ts";
import { NOW_MS, recordingLog } from "./fixture.ts";

const reasons = Object.keys(REASONS) as Reason[];

describe("every reason", () => {
  test.each(reasons)("%s has a stage, and a code that refuses", (reason) => {
    const { stage, code } = REASONS[reason];
    expect(STAGES).toContain(stage);
    expect(PROBLEMS[code].status).toBeGreaterThanOrEqual(400);
    expect(code).not.toBe("PROXY_INTERNAL");
  });

  test("is told to the wire by its code alone: equal codes read the same, but for what the caller itself sent", () => {
    for (const code of [
      "PROXY_AUTH_INVALID_AIT",
      "PROXY_AUTH_INVALID_TOKEN",
      "PROXY_AUTH_INVALID_PROOF",
      "PROXY_AUTH_REPLAY",
    ] as const) {
      const told = reasons
        .filter((reason) => REASONS[reason].code === code)
        .map((reason) => refusalError({ reason }).message);
      expect(new Set(told).size, code).toBe(1);
    }
  });

  test("that passes by itself says when to come back", () => {
    expect(refusalError({ reason: "trust-overloaded", retryAfterMs: 3_000 }).retryAfterMs).toBe(3_000);
  });
});

const at = (log: ReturnType<typeof recordingLog>) => ({
  nowMs: NOW_MS + 5,
  log,
  skewWarnSeconds: 200,
  limit: createLogLimit(),
});

describe("a decision", () => {
  test("is logged once, whoever closes it again", () => {
    const log = recordingLog();
    const decision = openDecision("route", NOW_MS);
    closeDecision(decision, { reason: "ait-revoked" }, at(log));
    closeDecision(decision, null, at(log));
    expect(log.lines).toHaveLength(1);
    expect(log.lines[0]?.fields).toMatchObject({
      outcome: "refused",
      stage: "revocation",
      reason: "ait-revoked",
      durationMs: 5,
    });
  });

  test.each<[Reason | null, string]>([
    [null, "info"],
    ["ait-revoked", "warn"],
    ["keys-unavailable", "error"],
    ["trust-unavailable", "error"],
    ["gate-outbox-full", "warn"],
    ["gate-rate-exceeded", "warn"],
  ])("for %s is logged at level %s", (reason, level) => {
    const log = recordingLog();
    closeDecision(openDecision("route", NOW_MS), reason === null ? null : { reason }, at(log));
    expect(log.lines[0]?.level).toBe(level);
  });

  test("that refuses what the caller has used up is logged once a minute for each agent, with a count", () => {
    const log = recordingLog();
    const limit = createLogLimit();
    const close = (agentDid: string, nowMs: number): void => {
      const decision = openDecision("route", nowMs);
      decision.agentDid = agentDid;
      closeDecision(decision, { reason: "gate-outbox-full" }, { nowMs, log, skewWarnSeconds: 200, limit });
    };
    for (const atMs of [0, 1, 59_999, 60_000]) close("alice", NOW_MS + atMs);
    close("bob", NOW_MS);
    expect(log.lines.map(({ level, fields }) => [level, fields?.["agentDid"], fields?.["leftOut"]])).toEqual([
      ["warn", "alice", 0],
      ["warn", "alice", 2],
      ["warn", "bob", 0],
    ]);
  });

  test("carries its stages' waiting and its caches as flat fields", () => {
    const log = recordingLog();
    const decision = openDecision("route", NOW_MS);
    decision.caches.trust = "stale";
    decision.durationsMs.trust = 12;
    closeDecision(decision, null, at(log));
    expect(log.lines[0]?.fields).toMatchObject({ trustCache: "stale", trustMs: 12 });
  });
});
