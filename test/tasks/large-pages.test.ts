/** Lists of large tasks: a page fits into a frame of the relay, and none is left out or shown twice for it. */
import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import { runtimeOf } from "../../src/runtime.ts";
import { MAX_SERVER_FRAME_BYTES, parseServerFrame } from "../../src/wire/frames.ts";
import { writeJson } from "../../src/wire/json-text.ts";
import { eventually } from "../support/gate.ts";
import {
  type Agent,
  authorization,
  createTask,
  fetchWorker,
  operator,
  register,
  result,
  type Task,
} from "../support/world.ts";
import { contextOf } from "../support/db-spy.ts";

type Page = { tasks: Task[]; nextCursor?: string };
type List = (params: Record<string, unknown>) => Promise<Page>;

const OBJECT_BYTES_MAX = 262_144;
/** As many bytes as a task may have, in as few characters. */
const largest = { text: "\u00e4".repeat((OBJECT_BYTES_MAX - '{"text":""}'.length - 1) / 2) };
const large = { text: "x".repeat(250_000) };
const bytesOf = (value: unknown): number => new TextEncoder().encode(JSON.stringify(value)).length;

let agent: Agent;
const made: string[] = [];

beforeAll(async () => {
  agent = await register();
  for (const params of [largest, largest, largest, largest, large, {}, {}, {}]) {
    // oxlint-disable-next-line no-await-in-loop -- in the order of the list
    const task = await createTask(agent, { agentDid: agent.did, params, metadata: params });
    made.push(task.taskId);
  }
  made.sort();
});

const lists: [by: string, List][] = [
  ["the graph", async (params) => (await result(agent, "task/list", params)) as Page],
  [
    "the graph, for one agent",
    async (params) => (await result(agent, "task/list", { ...params, agentDid: agent.did })) as Page,
  ],
  ["the operator", async (params) => (await result(operator, "task/list", { ...params, agentDid: agent.did })) as Page],
  ["who made them, while the graph does not decide", listByCreator],
  ["the relay", listByRelay],
];

describe.each(lists)("a list of large tasks by %s", (_by, list) => {
  test.each([100, 3, 1])("of %d at most fits into a frame page by page, with each task once", async (limit) => {
    const seen: string[] = [];
    const sizes: number[] = [];
    let cursor: string | undefined;
    do {
      // oxlint-disable-next-line no-await-in-loop -- one page after the other
      const page = await list({ limit, ...(cursor === undefined ? {} : { cursor }) });
      expect(page.tasks.length).toBeLessThanOrEqual(limit);
      expect(page.tasks.length).toBeGreaterThan(0);
      expect(bytesOf(page)).toBeLessThan(MAX_SERVER_FRAME_BYTES);
      sizes.push(page.tasks.length);
      seen.push(...page.tasks.map(({ taskId }) => taskId));
      cursor = page.nextCursor;
    } while (cursor !== undefined && sizes.length < 20);
    expect(seen).toEqual(made);
    // Two of the largest are what a frame holds.
    if (limit === 100) expect(sizes).toEqual([2, 2, 4]);
  });
});

test("a list of small tasks is as long as asked for", async () => {
  const other = await register();
  for (let n = 0; n < 4; n += 1) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await createTask(other, { agentDid: other.did, name: `n${n}` });
  }
  const page = (await result(other, "task/list", { limit: 3 })) as Page;
  expect(page.tasks).toHaveLength(3);
  const rest = (await result(other, "task/list", { cursor: page.nextCursor })) as Page;
  expect(rest.tasks).toHaveLength(1);
  expect(rest.nextCursor).toBeUndefined();
});

async function listByCreator(params: Record<string, unknown>): Promise<Page> {
  const settings = { ...env, FGAC_ENFORCE: "off" } as unknown as Env;
  const ctx = await contextOf(agent, env.DB, { settings });
  const reply = await runtimeOf(settings).dispatcher.dispatch(ctx, "rpc", "task/list", params);
  if (!reply.ok) throw new Error(reply.message);
  return JSON.parse(writeJson(reply.result)) as Page;
}

async function listByRelay(params: Record<string, unknown>): Promise<Page> {
  const headers = await authorization(agent, "", { method: "GET", path: "/relay/connect" });
  const request = new Request("https://proxy.example/relay/connect", { headers: { ...headers, Upgrade: "websocket" } });
  const socket = (await fetchWorker(request)).webSocket;
  if (socket === null) throw new Error("no socket");
  const texts: string[] = [];
  socket.addEventListener("message", ({ data }) => void texts.push(String(data)));
  socket.accept();
  socket.send(JSON.stringify({ type: "req", id: "r".repeat(128), method: "task/list", params }));
  await eventually(() => expect(texts).toHaveLength(1));
  socket.close(1_000);
  const frame = parseServerFrame(texts[0] ?? "");
  if (!frame.ok || frame.value.type !== "res") throw new Error(`no answer: ${JSON.stringify(frame).slice(0, 200)}`);
  expect(frame.value.ok).toBe(true);
  return frame.value.payload as Page;
}
