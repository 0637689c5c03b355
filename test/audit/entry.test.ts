import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { auditStatement } from "../../src/audit/entry.ts";
import { auditRetentionStatements } from "../../src/audit/retention.ts";
import { isFenceFailure } from "../../src/database/fencing.ts";
import { clock, NOW_MS, operatorCall, rows } from "../identity/fixture.ts";

const append = (action: string) =>
  auditStatement(operatorCall(), {
    action,
    subject: "agent:x",
    agentDid: null,
    result: "ok",
    details: { why: "test" },
  }).run();

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
    await env.DB.batch(auditRetentionStatements(env.DB, NOW_MS + 1_000, 1_000));
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
    await env.DB.batch(auditRetentionStatements(env.DB, NOW_MS - 5_000, 2));
    expect(await old()).toEqual([{ action: "four" }]);
    await env.DB.batch(auditRetentionStatements(env.DB, NOW_MS - 5_000, 2));
    expect(await old()).toEqual([]);
  });
});

const fence = (epoch: number) =>
  env.DB.prepare(
    `INSERT INTO fence (current) SELECT 0
     WHERE COALESCE((SELECT epoch FROM authority_epochs WHERE authority = ?1), 0) <> ?2`,
  ).bind("agent:x", epoch);

const effect = () =>
  env.DB.prepare("INSERT INTO audit (id, at_ms, actor, action, result) VALUES (?1, ?2, 'a', 'effect', 'ok')").bind(
    crypto.randomUUID(),
    NOW_MS * 2,
  );

describe("the fence", () => {
  test("lets a batch of the current epoch through, epoch 0 where nothing is written, and undoes one of another", async () => {
    await env.DB.batch([fence(0), effect()]);
    await env.DB.prepare("INSERT INTO authority_epochs VALUES ('agent:x', 3)").run();
    await env.DB.batch([fence(3), effect()]);
    const stale = env.DB.batch([fence(2), effect()]);
    expect(await stale.then(() => "committed", isFenceFailure)).toBe(true);
    expect(await rows("SELECT action FROM audit WHERE action = 'effect'")).toHaveLength(2);
    expect(await rows("SELECT * FROM fence")).toEqual([]);
  });

  test("never falls and is never forgotten", async () => {
    await expect(env.DB.prepare("UPDATE authority_epochs SET epoch = 2").run()).rejects.toThrow(/only rises/);
    await expect(env.DB.prepare("DELETE FROM authority_epochs").run()).rejects.toThrow(/never forgotten/);
  });
});
