import { expect, test } from "vitest";
import { NotNow, RpcError } from "../../../src/client/index.ts";
import { createTasks, type TaskHandler } from "../../../src/client/methods/tasks.ts";

const PEER = "did:cdi:registry.example:agent:01K9ZJ8Q6V3N5T7W2X4Y6Z8A0C";
const TASK_ID = "01K9ZJ8Q6V3N5T7W2X4Y6Z8A0B";
const TASK = {
  taskId: TASK_ID,
  name: null,
  tenantId: "t",
  agentDid: "a",
  status: "running",
  params: {},
  metadata: {},
  creatorUserId: null,
  creatorServiceAccountId: null,
  createdAtMs: 1,
  updatedAtMs: 1,
};

type Handlers = {
  onMessage(message: { payload: unknown; fromAgentDid: string | null }): Promise<void>;
  onEvent(event: { event: string; payload: unknown }): void;
};

/** A server with one task. @param statuses what it is at, look after look; the last one stays */
function serverAt(...statuses: string[]) {
  const updates: Record<string, unknown>[] = [];
  const failures: Error[] = [];
  const tasks = createTasks<Handlers>(
    async (method, params) => {
      if (method === "task/get")
        return { task: { ...TASK, status: statuses.length > 1 ? statuses.shift() : statuses[0] } };
      const failure = failures.shift();
      if (failure !== undefined) throw failure;
      updates.push({ ...params });
      return { task: { ...TASK, ...params } };
    },
    (handlers) => handlers,
  );
  return { tasks, updates, failures };
}

const message = { fromAgentDid: PEER, payload: { kind: "message", taskId: TASK_ID, content: { n: 1 } } };
const failed = (code: string): RpcError =>
  new RpcError({ code, message: code, number: -32_009, data: null, retryable: false, retryAfterMs: null });

async function served(handler: TaskHandler) {
  const { tasks, updates } = serverAt("running");
  await tasks.serve(handler).onMessage(message);
  return updates;
}

test("waiting for a task looks until it has ended, also while it wants input", async () => {
  const { tasks } = serverAt("running", "input_required", "interrupted", "failed");
  expect(await tasks.task(TASK_ID).wait({ everyMs: 1 })).toMatchObject({ taskId: TASK_ID, status: "failed" });
});

test("waiting for a task ends when its signal is aborted", async () => {
  const controller = new AbortController();
  const waiting = serverAt("running").tasks.task(TASK_ID).wait({ everyMs: 3_600_000, signal: controller.signal });
  controller.abort(new Error("enough"));
  await expect(waiting).rejects.toThrow("enough");
});

test("what a handler returns completes its task, and is the result", async () => {
  expect(await served(({ content, fromAgentDid }) => ({ got: content, from: fromAgentDid }))).toEqual([
    { taskId: TASK_ID, status: "completed", result: { got: { n: 1 }, from: PEER } },
  ]);
  expect(await served(() => undefined)).toEqual([{ taskId: TASK_ID, status: "completed" }]);
});

test("what a handler throws fails its task, in so many words as the server takes", async () => {
  const updates = await served(() => Promise.reject(new Error("😀".repeat(5_000))));
  expect(updates).toEqual([{ taskId: TASK_ID, status: "failed", statusMessage: "😀".repeat(4_096) }]);
});

test.each(["canceled", "completed", "interrupted"])(
  "a task that is %s aborts the signal of its handler",
  async (status) => {
    const { tasks, updates } = serverAt("running");
    const started = Promise.withResolvers<void>();
    const handlers = tasks.serve(({ signal }) => {
      started.resolve();
      return new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error)));
    });
    const working = handlers.onMessage(message);
    await started.promise;
    handlers.onEvent({ event: "task.updated", payload: { taskId: "another", status } });
    handlers.onEvent({ event: "task.updated", payload: { taskId: TASK_ID, status } });
    await working;
    expect(updates).toEqual([]);
  },
);

test("a handler is not run for a task that has ended, nor for an event, and a message of a peer is left to other programs", async () => {
  let runs = 0;
  const count = (): void => void (runs += 1);
  await serverAt("canceled").tasks.serve(count).onMessage(message);
  const handlers = serverAt("running").tasks.serve(count);
  await handlers.onMessage({ ...message, payload: { ...message.payload, kind: "event" } });
  await expect(handlers.onMessage({ ...message, payload: "hello" })).rejects.toThrow(NotNow);
  expect(runs).toBe(0);
  await handlers.onMessage(message);
  expect(runs).toBe(1);
});

test("a message is acknowledged where its task has ended meanwhile, and comes again where the server was out of reach", async () => {
  const { tasks, failures } = serverAt("running");
  const handlers = tasks.serve(() => 1);
  failures.push(failed("PROXY_CONFLICT"));
  await handlers.onMessage(message);
  failures.push(failed("AUTHZ_UNAVAILABLE"));
  await expect(handlers.onMessage(message)).rejects.toThrow("AUTHZ_UNAVAILABLE");
});
