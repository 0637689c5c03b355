/** The creator columns come to a database that is in use: to a table with rows, and with children that go with their rows. */
import { applyD1Migrations, reset } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";

const TASKS = 200_000;

test(
  "keeps each of 200 000 tasks, and every row of a child that goes with its task",
  { timeout: 120_000 },
  async () => {
    await reset();
    const db = env.DB;
    const creators = env.TEST_MIGRATIONS.findIndex(({ name }) => name.startsWith("0006"));
    await applyD1Migrations(db, env.TEST_MIGRATIONS.slice(0, creators));
    await db
      .prepare(
        "CREATE TABLE task_notes (note_id INTEGER PRIMARY KEY, task_id TEXT NOT NULL REFERENCES tasks (task_id) ON DELETE CASCADE)",
      )
      .run();
    await db
      .prepare(
        `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
       INSERT INTO tasks (task_id, tenant_id, name, agent_did, status, params, metadata, created_at_ms, updated_at_ms)
       SELECT printf('%026d', i), 't', 'task ' || i, 'a', 'running', '{}', '{}', i, i FROM n`,
      )
      .bind(TASKS)
      .run();
    await db.prepare("INSERT INTO task_notes (task_id) SELECT task_id FROM tasks").run();
    await expect(db.prepare("SELECT creator_user_id FROM tasks").first()).rejects.toThrow(/no such column/);

    await applyD1Migrations(db, env.TEST_MIGRATIONS);

    expect(
      await db
        .prepare(
          `SELECT (SELECT COUNT(*) FROM tasks) AS tasks, (SELECT COUNT(*) FROM task_notes) AS notes, (SELECT SUM(created_at_ms) FROM tasks) AS times,
           (SELECT COUNT(*) FROM tasks WHERE creator_user_id IS NULL AND creator_service_account_id IS NULL) AS nobodys`,
        )
        .first(),
    ).toEqual({ tasks: TASKS, notes: TASKS, times: (TASKS * (TASKS + 1)) / 2, nobodys: TASKS });
    const two = db.prepare(
      "UPDATE tasks SET creator_user_id = 'u', creator_service_account_id = 's' WHERE name = 'task 1'",
    );
    expect(
      await db
        .prepare(
          "SELECT COUNT(*) AS n FROM tasks WHERE state IS NULL AND result IS NULL AND status_message IS NULL AND ended_at_ms IS NULL AND status = 'running'",
        )
        .first("n"),
    ).toBe(TASKS);
    const unknown = db.prepare("UPDATE tasks SET state = 'paused' WHERE name = 'task 1'");
    await expect(unknown.run()).rejects.toThrow(/tasks_state/);
    const noJson = db.prepare("UPDATE tasks SET result = '{' WHERE name = 'task 1'");
    await expect(noJson.run()).rejects.toThrow(/tasks_result/);
    await expect(two.run()).rejects.toThrow(/ck_tasks_at_most_one_creator/);
    await db.prepare("DELETE FROM tasks WHERE name = 'task 1'").run();
    expect(await db.prepare("SELECT COUNT(*) AS notes FROM task_notes").first("notes")).toBe(TASKS - 1);
    const plan = await db
      .prepare("EXPLAIN QUERY PLAN SELECT task_id FROM tasks WHERE creator_user_id = 'u' ORDER BY task_id")
      .all();
    expect(JSON.stringify(plan.results)).toContain("tasks_by_creator_user");
  },
);
