/**
 * Tasks (contract §5): waiting for one to end, and working on those of the agent itself.
 *
 * @example
 * ```ts
 * const made = await agent.call("task/create", { agentDid: agent.agentDid, params: {} });
 * const serving = agent.tasks.serve(({ content }) => ({ booked: content.day }));
 * await agent.call("message/send", { taskId: made.task.taskId, content: { day: "Friday" } });
 * const done = await agent.tasks.task(made.task.taskId).wait();
 * serving.close();
 * console.log(done.status, done.result.booked); // completed Friday
 * ```
 */
import * as z from "zod/mini";
import { NotNow, RpcError } from "../transport/errors.ts";
import { parseAnswer } from "../transport/http-call.ts";
import type { CallMethod } from "./rpc.ts";

const status = z.enum(["running", "input_required", "interrupted", "completed", "failed", "rejected", "canceled"]);
const task = z.object({
  taskId: z.string(),
  name: z.nullable(z.string()),
  tenantId: z.string(),
  agentDid: z.string(),
  status,
  params: z.unknown(),
  metadata: z.unknown(),
  result: z.optional(z.unknown()),
  statusMessage: z.optional(z.string()),
  creatorUserId: z.nullable(z.string()),
  creatorServiceAccountId: z.nullable(z.string()),
  createdAtMs: z.number(),
  updatedAtMs: z.number(),
  endedAtMs: z.optional(z.number()),
});
const oneTask = z.object({ task });
/** What `message/send` and `event/send` deliver. */
const sentToTask = z.object({ kind: z.enum(["message", "event"]), taskId: z.string(), content: z.unknown() });
const taskUpdated = z.object({ taskId: z.string(), status });

export type TaskStatus = z.infer<typeof status>;
/** A task, its JSON parsed; times in milliseconds since 1970. */
export type Task = z.infer<typeof task>;

/** A message to a task, at work. */
export type TaskWork = {
  readonly taskId: string;
  /** What the message holds. */
  readonly content: unknown;
  /**
   * Who sent it: an agent, or null and `fromSubject`. A message to a task is told by its form alone, and a peer of the agent can send
   * the same form without having `update` on the task: work that matters looks who asked for it.
   */
  readonly fromAgentDid: string | null;
  readonly fromSubject?: string | undefined;
  /** Aborts when the task ends otherwise, e.g. because it is canceled, and when it is interrupted. */
  readonly signal: AbortSignal;
};

/** Works on a task. What it resolves to is the result of the completed task; what it throws fails it. */
export type TaskHandler = (work: TaskWork) => unknown;

export type WaitOptions = {
  readonly signal?: AbortSignal | undefined;
  /** Between two looks, in milliseconds; 1,000 by default. */
  readonly everyMs?: number | undefined;
};

export type Tasks<Connection> = {
  /** One task, by its id. */
  task(taskId: string): {
    /** @throws RpcError `PROXY_NOT_FOUND` for one that the caller may not read */
    get(): Promise<Task>;
    /** Resolves to the task when it has ended. @throws the signal's reason, and as `get` */
    wait(options?: WaitOptions): Promise<Task>;
  };
  /**
   * Opens a relay connection of its own, and runs the handler for each message to a task of the agent. A message is acknowledged when
   * its task's outcome is on the server; until then it comes again, so a handler may run twice. A message that is about no task is
   * left to the agent's other programs, and comes again until one of them takes it.
   */
  serve(handler: TaskHandler): Connection;
};

/** A message, as far as it is looked at. */
type Sent = {
  readonly payload: unknown;
  readonly fromAgentDid: string | null;
  readonly fromSubject?: string | undefined;
};

/** What a relay connection hands over. */
type Incoming = {
  readonly onMessage: (message: Sent) => Promise<void>;
  readonly onEvent: (event: { readonly event: string; readonly payload: unknown }) => void;
};

const EVERY_MS = 1_000;
/** What the server takes of a message about a task, in code points. */
const STATUS_MESSAGE_MAX = 4_096;

const hasEnded = (at: TaskStatus): boolean => at !== "running" && at !== "input_required" && at !== "interrupted";

/** @param connect opens a relay connection of the agent */
export function createTasks<Connection>(
  call: CallMethod,
  connect: (handlers: Incoming) => Connection,
): Tasks<Connection> {
  const get = async (taskId: string): Promise<Task> => parseAnswer(oneTask, await call("task/get", { taskId })).task;
  return {
    task: (taskId) => ({
      get: () => get(taskId),
      async wait({ signal, everyMs = EVERY_MS } = {}) {
        for (;;) {
          signal?.throwIfAborted();
          const found = await get(taskId);
          if (hasEnded(found.status)) return found;
          await pause(everyMs, signal);
        }
      },
    }),
    serve: (handler) => connect(workOn(call, get, handler)),
  };
}

function workOn(call: CallMethod, get: (taskId: string) => Promise<Task>, handler: TaskHandler): Incoming {
  const atWork = new Map<string, Set<AbortController>>();

  const run = async ({ taskId, ...sent }: Omit<TaskWork, "signal">): Promise<void> => {
    const controller = new AbortController();
    const controllers = atWork.get(taskId) ?? new Set();
    atWork.set(taskId, controllers.add(controller));
    try {
      // Asked after the controller is there: a cancel between the two is in one of them.
      if (hasEnded((await get(taskId)).status)) return;
      const outcome = await outcomeOf(handler, { taskId, ...sent, signal: controller.signal });
      if (!controller.signal.aborted) await report(call, taskId, outcome);
    } catch (error) {
      if (!isOver(error)) throw error;
    } finally {
      controllers.delete(controller);
      if (controllers.size === 0) atWork.delete(taskId);
    }
  };

  return {
    async onMessage({ payload, fromAgentDid, fromSubject }) {
      const sent = sentToTask.safeParse(payload);
      // Whoever else holds a socket of the agent gets it: nothing that was meant for somebody is acknowledged for them.
      if (!sent.success) throw new NotNow("the message is about no task");
      const { kind, taskId, content } = sent.data;
      if (kind === "message") await run({ taskId, content, fromAgentDid, fromSubject });
    },
    onEvent({ event, payload }) {
      const updated = event === "task.updated" ? taskUpdated.safeParse(payload) : null;
      if (updated?.success !== true) return;
      const { taskId, status: at } = updated.data;
      if (!hasEnded(at) && at !== "interrupted") return;
      for (const controller of atWork.get(taskId) ?? []) controller.abort(new Error(`the task is ${at}`));
    },
  };
}

type Outcome = { status: "completed"; result?: unknown } | { status: "failed"; statusMessage: string };

async function outcomeOf(handler: TaskHandler, work: TaskWork): Promise<Outcome> {
  try {
    const result = await handler(work);
    return result === undefined ? { status: "completed" } : { status: "completed", result };
  } catch (error) {
    const words = error instanceof Error ? error.message : String(error);
    return { status: "failed", statusMessage: Array.from(words.toWellFormed()).slice(0, STATUS_MESSAGE_MAX).join("") };
  }
}

async function report(call: CallMethod, taskId: string, outcome: Outcome): Promise<void> {
  await call("task/update", { taskId, ...outcome });
}

/** Whether a task has ended, or gone, meanwhile: nothing is left to say of it. */
function isOver(error: unknown): boolean {
  return error instanceof RpcError && (error.code === "PROXY_CONFLICT" || error.code === "PROXY_NOT_FOUND");
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  // It may have been aborted during the last look, and says so only once.
  signal?.throwIfAborted();
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", abort, { once: true });
  });
}
