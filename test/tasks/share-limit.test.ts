/** A task is shared with so many subjects and no more. */
import { env } from "cloudflare:workers";
import { beforeEach, expect, test } from "vitest";
import { SHARES_MAX } from "../../src/tasks/share.ts";
import {
  admit,
  type Agent,
  codeOf,
  createTask,
  register,
  result,
  rows,
  rpc,
  type Task,
  tuplesOf,
} from "../support/world.ts";

let agent: Agent;
let task: Task;
const share = (subject: string, relation = "viewer") => ({ taskId: task.taskId, subject, relation });

beforeEach(async () => {
  agent = await register();
  await admit(agent, "user:last", "user:one-more");
  task = await createTask(agent, { agentDid: agent.did });
  await env.DB.prepare(
    `INSERT INTO relationships (object_type, object_id, relation, subject_type, subject_id, subject_relation, created_at_ms)
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2 - 1)
     SELECT 'task', ?1, IIF(i % 2, 'viewer', 'editor'), 'group', 'g' || i, 'member', 0 FROM n`,
  )
    .bind(task.taskId, SHARES_MAX)
    .run();
});

test("one share more than it may have is a conflict that says so, and leaves nothing behind", async () => {
  await result(agent, "task/share", share("user:last", "editor"));
  const before = [await tuplesOf(`task:${task.taskId}`), await rows("SELECT id FROM audit ORDER BY id")];
  const answer = await rpc(agent, "task/share", share("user:one-more"));
  expect(answer.error).toMatchObject({ data: { code: "PROXY_CONFLICT" } });
  expect(JSON.stringify(answer.error)).toContain("1000");
  expect([await tuplesOf(`task:${task.taskId}`), await rows("SELECT id FROM audit ORDER BY id")]).toEqual(before);
});

test("what is shared already may be shared again, and a share that is taken back makes room", async () => {
  await result(agent, "task/share", share("user:last"));
  await result(agent, "task/share", share("user:last"));
  await result(agent, "task/share", share("group:g1#member"));
  expect(await codeOf(agent, "task/share", share("user:last", "editor"))).toBe("PROXY_CONFLICT");
  expect(await codeOf(agent, "task/share", share("group:g1"))).toBe("PROXY_BAD_REQUEST");
  await result(agent, "task/unshare", share("group:g1#member"));
  await result(agent, "task/share", share("user:one-more"));
});

test("another task has room of its own", async () => {
  await result(agent, "task/share", share("user:last"));
  const other = await createTask(agent, { agentDid: agent.did });
  await result(agent, "task/share", { taskId: other.taskId, subject: "user:last", relation: "viewer" });
});
