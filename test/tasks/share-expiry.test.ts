/** A share that ends by itself is none from that moment on. */
import { env } from "cloudflare:workers";
import { beforeEach, expect, test } from "vitest";
import { removeExpired } from "../../src/authz/store/expiries.ts";
import { admit, type Agent, codeOf, createTask, register, result, rows, rpc, type Task } from "../support/world.ts";

let agent: Agent;
let reader: Agent;
let task: Task;
const MINUTE_MS = 60_000;

beforeEach(async () => {
  await env.DB.exec("DELETE FROM relationship_expiries");
  agent = await register();
  reader = await register();
  await admit(agent, `agent:${reader.did}`);
  task = await createTask(agent, { agentDid: agent.did });
});

const share = (expiresAtMs?: number, relation = "viewer", subject = `agent:${reader.did}`) => ({
  taskId: task.taskId,
  subject,
  relation,
  ...(expiresAtMs === undefined ? {} : { expiresAtMs }),
});
const get = async (): Promise<string | undefined> => codeOf(reader, "task/get", { taskId: task.taskId });
const listed = async (): Promise<string[]> =>
  ((await result(reader, "task/list", {})) as { tasks: Task[] }).tasks.map(({ taskId }) => taskId);
/** As if its time had come. */
const endAll = async (): Promise<void> =>
  void (await env.DB.prepare("UPDATE relationship_expiries SET expires_at_ms = ?1").bind(Date.now()).run());

test("it lets in until its end, and neither reads nor lists after it", async () => {
  const expiresAtMs = Date.now() + MINUTE_MS;
  expect(await result(agent, "task/share", share(expiresAtMs))).toEqual(share(expiresAtMs));
  expect((await rpc(reader, "task/get", { taskId: task.taskId })).error).toBeUndefined();
  expect(await listed()).toEqual([task.taskId]);
  await endAll();
  expect(await get()).toBe("PROXY_NOT_FOUND");
  expect(await listed()).toEqual([]);
});

test("one with a group ends for its members too", async () => {
  await env.DB.prepare(
    "INSERT INTO relationships (object_type, object_id, relation, subject_type, subject_id, created_at_ms) VALUES ('group', 'readers', 'member', 'agent', ?1, 0)",
  )
    .bind(reader.did)
    .run();
  await result(agent, "task/share", share(Date.now() + MINUTE_MS, "viewer", "group:readers#member"));
  expect((await rpc(reader, "task/get", { taskId: task.taskId })).error).toBeUndefined();
  await endAll();
  expect(await get()).toBe("PROXY_NOT_FOUND");
});

test("its end comes by the clock alone", async () => {
  const expiresAtMs = Date.now() + 1_000;
  await result(agent, "task/share", share(expiresAtMs));
  await expect.poll(get, { interval: 50 }).toBe("PROXY_NOT_FOUND");
  expect(Date.now()).toBeGreaterThanOrEqual(expiresAtMs);
});

test("shared again it has the new end, or none", async () => {
  await result(agent, "task/share", share(Date.now() + MINUTE_MS));
  await endAll();
  await result(agent, "task/share", share(Date.now() + MINUTE_MS));
  expect(await listed()).toEqual([task.taskId]);
  await endAll();
  await result(agent, "task/share", share());
  await endAll();
  expect(await listed()).toEqual([task.taskId]);
});

test("reconciliation removes what has ended, and nothing else", async () => {
  await result(agent, "task/share", share(Date.now() + MINUTE_MS));
  await endAll();
  await result(agent, "task/share", share(Date.now() + MINUTE_MS, "editor"));
  expect(await removeExpired({ db: env.DB, now: Date.now })).toBe(1);
  expect(await removeExpired({ db: env.DB, now: Date.now })).toBe(0);
  const left = await rows(
    "SELECT relation FROM relationships WHERE object_id = ?1 AND relation IN ('viewer', 'editor')",
    task.taskId,
  );
  expect(left).toEqual([{ relation: "editor" }]);
  expect(await rows("SELECT relation FROM relationship_expiries")).toEqual([{ relation: "editor" }]);
});

test("an end that has been is refused, and so is one that is no time", async () => {
  expect(await codeOf(agent, "task/share", share(Date.now() - 1))).toBe("PROXY_BAD_REQUEST");
  expect((await rpc(agent, "task/share", { ...share(), expiresAtMs: "tomorrow" })).error?.code).toBe(-32602);
});
