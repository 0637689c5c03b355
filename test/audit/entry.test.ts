import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { auditStatement } from "../../src/audit/entry.ts";
import { auditRetentionStatements } from "../../src/audit/retention.ts";
import { runBatch } from "../../src/database/batch.ts";
import { execute } from "../../src/database/read.ts";
import { clock, NOW_MS, operatorCall, rows } from "../identity/fixture.ts";

const append = (action: string) =>
  execute(
    env.DB,
    auditStatement(operatorCall(), {
      action,
      subject: "agent:x",
      agentDid: null,
      result: "ok",
      details: { why: "test" },
    }),
  );

describe("the audit", () => {
  test("takes rows and lets none be changed or replaced", async () => {
    await append("one");
    await expect(env.DB.prepare("UPDATE audit SET result = 'else'").run()).rejects.toThrow(/append-only/);
    const replace =
      "INSERT OR REPLACE INTO audit (id, at_ms, actor, action, result) SELECT id, at_ms, 'nobody', action, result FROM audit";
    await expect(env.DB.prepare(replace).run()).rejects.toThrow(/append-only/);
    expect(await rows("SELECT actor, result, details FROM audit")).toEqual([
      { actor: "operator", result: "ok", details: '{"why":"test"}' },
    ]);
  });

  test("loses rows by retention alone, and only the old ones", async () => {
    clock.ms = NOW_MS + 1_000;
    await append("two");
    await expect(env.DB.prepare("DELETE FROM audit").run()).rejects.toThrow(/retention alone/);
    await runBatch(env.DB, auditRetentionStatements(NOW_MS + 1_000, 1_000));
    expect(await rows("SELECT action FROM audit")).toEqual([{ action: "two" }]);
    await expect(env.DB.prepare("DELETE FROM audit").run()).rejects.toThrow(/retention alone/);
  });

  test("loses no more rows at once than retention is told, the oldest first", async () => {
    for (const [ms, action] of [
      [3, "three"],
      [2, "two more"],
      [4, "four"],
    ] as const) {
      clock.ms = NOW_MS - 10_000 + ms;
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await append(action);
    }
    const old = () =>
      rows<{ action: string }>("SELECT action FROM audit WHERE at_ms < ?1 ORDER BY at_ms", NOW_MS - 5_000);
    await runBatch(env.DB, auditRetentionStatements(NOW_MS - 5_000, 2));
    expect(await old()).toEqual([{ action: "four" }]);
    await runBatch(env.DB, auditRetentionStatements(NOW_MS - 5_000, 2));
    expect(await old()).toEqual([]);
  });
});

describe("the epochs of authorities", () => {
  test("never fall and are never forgotten", async () => {
    await env.DB.prepare("INSERT INTO authority_epochs VALUES ('agent:x', 3)").run();
    await expect(env.DB.prepare("UPDATE authority_epochs SET epoch = 2").run()).rejects.toThrow(/only rises/);
    await expect(env.DB.prepare("DELETE FROM authority_epochs").run()).rejects.toThrow(/never forgotten/);
  });
});
