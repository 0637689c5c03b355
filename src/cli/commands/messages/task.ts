/** `sallyport task …`: tasks of agents, and what is sent to them. */
import type { Command } from "commander";
import * as z from "zod/mini";
import { JsonText, rawAt, rawElements } from "../../../wire/json-text.ts";
import { type Acting, acting, addActing, agentDidOf, expected, jsonGiven } from "../../session/acting-credential.ts";
import type { Family } from "../../session/command.ts";
import { mustConfirm, readInput, wholeNumber } from "../../session/input.ts";
import { table, timeText } from "../../terminal/output.ts";
import { usage } from "../../terminal/errors.ts";
import type { Session } from "../../session/session.ts";

const task = z.looseObject({
  taskId: z.string(),
  name: z.nullable(z.string()),
  agentDid: z.string(),
  status: z.string(),
  statusMessage: z.optional(z.string()),
  createdAtMs: z.number(),
  creatorUserId: z.nullable(z.string()),
  creatorServiceAccountId: z.nullable(z.string()),
});
type Task = z.infer<typeof task>;
const one = z.object({ task });
const page = z.object({ tasks: z.array(task), nextCursor: z.optional(z.string()) });
const sent = z.object({ deliveryId: z.string() });
const shared = z.object({
  taskId: z.string(),
  subject: z.string(),
  relation: z.string(),
  expiresAtMs: z.optional(z.number()),
});

type Named = Acting & { name: boolean };
type CreateOptions = Acting & { for?: string; name?: string; params?: string; metadata?: string };
type ListOptions = Acting & { for?: string; status?: string; limit?: number; cursor?: string; all: boolean };
type ShareOptions = Acting & { as: string; ttlSeconds?: number };
type UpdateOptions = Named & { message?: string; result?: string };
type WatchOptions = Named & { every: number };
type SendOptions = Named & { event: boolean };

/** Adds `task create|list|get|cancel|interrupt|update|watch|delete|share|unshare|send`. */
export const taskFamily: Family = (program, run) => {
  const tasks = program.command("task").description("tasks of agents: made, found, shared, ended");

  addActing(tasks.command("create").description("make a task for an agent"))
    .option("--for <agent>", "DID, or the name of an agent of this machine; the one that acts otherwise")
    .option("--name <name>", "unique within the tenant")
    .option("--params <json>", "what the agent is to work with")
    .option("--metadata <json>", "what it is to remember")
    .action((options: CreateOptions) => run((session) => create(session, options)));

  addActing(tasks.command("list").description("the tasks that you may read, oldest first"))
    .option("--for <agent>", "those of one agent: DID, or a name on this machine")
    .option(
      "--status <status>",
      "those that are running, input_required, interrupted, completed, failed, rejected or canceled",
    )
    .option("--limit <n>", "on one page, 1 to 100", wholeNumber("--limit", 1, 100))
    .option("--cursor <cursor>", "from the page before")
    .option("--all", "every page", false)
    .action((options: ListOptions) => run((session) => list(session, options)));

  byKey(tasks.command("get").description("a task, by its id")).action((key: string, options: Named) =>
    run((session) => change(session, "task/get", key, options)),
  );
  byKey(tasks.command("cancel").description("end a task and keep it")).action((key: string, options: Named) =>
    run((session) => change(session, "task/cancel", key, options)),
  );
  byKey(tasks.command("interrupt").description("stop a task that a message may continue")).action(
    (key: string, options: Named) => run((session) => change(session, "task/interrupt", key, options)),
  );
  byKey(tasks.command("update").description("say, as the task's agent, what becomes of it"))
    .argument("<status>", "running, input_required, completed, failed or rejected")
    .option("--message <text>", "in words")
    .option("--result <json>", "what came of it; - for standard input")
    .action((key: string, status: string, options: UpdateOptions) =>
      run((session) => update(session, key, status, options)),
    );
  byKey(tasks.command("watch").description("show each change of a task until it has ended"))
    .option("--every <seconds>", "look again after, 1 to 60", wholeNumber("--every", 1, 60), 2)
    .action((key: string, options: WatchOptions) => run((session) => watch(session, key, options)));
  byKey(tasks.command("delete").description("end a task and forget it, with everything it was shared with"))
    .option("--yes", "do not ask", false)
    .action((key: string, options: Named & { yes: boolean }) =>
      run(async (session) => {
        await mustConfirm(session, options.yes, `Delete the task ${key}?`);
        await change(session, "task/delete", key, options);
      }),
    );

  for (const command of ["share", "unshare"] as const) {
    const sharing = addActing(
      tasks.command(command).description(command === "share" ? "let another read or work on it" : "take that back"),
    )
      .argument("<task>", "its id")
      .argument("<subject>", "agent:<did>, user:<did>, service_account:<id> or group:<id>#member")
      .option("--as <relation>", "viewer or editor", "viewer")
      .action((taskId: string, subject: string, options: ShareOptions) =>
        run((session) => share(session, `task/${command}`, taskId, subject, options)),
      );
    if (command === "share")
      sharing.option("--ttl-seconds <n>", "it ends by itself after", wholeNumber("--ttl-seconds", 1, 1e10));
  }

  byKey(tasks.command("send").description("send JSON to the task's agent"))
    .argument("[json]", "the content; - or nothing for standard input")
    .option("--event", "as an event, not as a message", false)
    .action((key: string, json: string | undefined, options: SendOptions) =>
      run((session) => send(session, key, json, options)),
    );
};

function byKey(command: Command): Command {
  return addActing(command).argument("<task>", "its id").option("--name", "the argument is its name", false);
}

async function create(session: Session, options: CreateOptions): Promise<void> {
  const { name, params, metadata } = options;
  const { callText } = await acting(session, options);
  const made = await callText("task/create", {
    agentDid: await agentDidOf(session, options.for),
    ...(name === undefined ? {} : { name }),
    ...(params === undefined ? {} : { params: jsonGiven("--params", params) }),
    ...(metadata === undefined ? {} : { metadata: jsonGiven("--metadata", metadata) }),
  });
  await show(session, made);
}

async function list(session: Session, options: ListOptions): Promise<void> {
  const { callText } = await acting(session, options);
  const { limit, status } = options;
  const agentDid = options.for === undefined ? undefined : await agentDidOf(session, options.for);
  const tasks: Task[] = [];
  const texts: JsonText[] = [];
  let cursor = options.cursor;
  do {
    const answer = await callText("task/list", {
      ...(agentDid === undefined ? {} : { agentDid }),
      ...(status === undefined ? {} : { status }),
      ...(limit === undefined ? {} : { limit }),
      ...(cursor === undefined ? {} : { cursor }),
    });
    const read = expected(page, JSON.parse(answer));
    tasks.push(...read.tasks);
    texts.push(...rawElements(rawAt(answer, ["tasks"]) ?? "").map((text) => new JsonText(text)));
    cursor = read.nextCursor;
  } while (options.all && cursor !== undefined);
  const rows = tasks.map((each) => [
    each.taskId,
    each.name ?? "",
    each.status,
    timeText(each.createdAtMs),
    each.agentDid,
  ]);
  const words = tasks.length === 0 ? "no tasks" : table(["TASK", "NAME", "STATUS", "SINCE", "AGENT"], rows);
  await session.output.result({ tasks: texts, nextCursor: cursor ?? null }, words);
  if (cursor !== undefined) session.output.remark(`there is more: --cursor ${cursor}`);
}

async function change(session: Session, method: string, key: string, options: Named): Promise<void> {
  const { callText } = await acting(session, options);
  await show(session, await callText(method, keyOf(key, options)));
}

async function update(session: Session, key: string, status: string, options: UpdateOptions): Promise<void> {
  const { message, result } = options;
  const text = result === "-" ? await readInput(session, "-") : result;
  const { callText } = await acting(session, options);
  const updated = await callText("task/update", {
    ...keyOf(key, options),
    status,
    ...(message === undefined ? {} : { statusMessage: message }),
    ...(text === undefined ? {} : { result: jsonGiven("--result", text) }),
  });
  await show(session, updated);
}

const FINAL = ["completed", "failed", "rejected", "canceled"];

/** Reads the task until it has ended; what changes meanwhile goes to standard error, the end to standard output. */
async function watch(session: Session, key: string, options: WatchOptions): Promise<void> {
  const { callText } = await acting(session, options);
  let shownAs = "";
  for (;;) {
    const answer = await callText("task/get", keyOf(key, options));
    const { status, statusMessage } = expected(one, JSON.parse(answer)).task;
    if (FINAL.includes(status)) return show(session, answer);
    const line = statusMessage === undefined ? status : `${status}: ${statusMessage}`;
    if (line !== shownAs) session.output.remark(line);
    shownAs = line;
    await new Promise((resolve) => setTimeout(resolve, options.every * 1_000));
  }
}

async function share(
  session: Session,
  method: string,
  taskId: string,
  subject: string,
  options: ShareOptions,
): Promise<void> {
  const { as: relation, ttlSeconds } = options;
  if (relation !== "viewer" && relation !== "editor") throw usage("--as is viewer or editor");
  const { call } = await acting(session, options);
  const until = ttlSeconds === undefined ? {} : { expiresAtMs: Date.now() + ttlSeconds * 1_000 };
  const done = expected(shared, await call(method, { taskId, subject, relation, ...until }));
  const words = method === "task/share" ? `is ${relation} of` : `is no ${relation} any more of`;
  const end = done.expiresAtMs === undefined ? "" : `, until ${timeText(done.expiresAtMs)}`;
  await session.output.result(done, `${subject} ${words} ${taskId}${end}`);
}

async function send(session: Session, key: string, json: string | undefined, options: SendOptions): Promise<void> {
  const text = json === undefined || json === "-" ? await readInput(session, "-") : json;
  const content = jsonGiven("the content", text);
  const { call } = await acting(session, options);
  const method = options.event ? "event/send" : "message/send";
  const { deliveryId } = expected(sent, await call(method, { ...keyOf(key, options), content }));
  await session.output.result({ deliveryId }, `on its way: ${deliveryId}`);
}

const keyOf = (key: string, { name }: Named): Record<string, string> => (name ? { taskName: key } : { taskId: key });

/** @param result of a method that gives one task: its text, which is kept to the byte */
async function show(session: Session, result: string): Promise<void> {
  const each = expected(one, JSON.parse(result)).task;
  const creator = each.creatorUserId ?? each.creatorServiceAccountId ?? "the operator";
  const lines = [
    `${each.taskId}${each.name === null ? "" : `  ${each.name}`}`,
    `  status   ${each.status}${each.statusMessage === undefined ? "" : `: ${each.statusMessage}`}`,
    `  agent    ${each.agentDid}`,
    `  creator  ${creator}`,
    `  since    ${timeText(each.createdAtMs)}`,
  ];
  const came = rawAt(result, ["task", "result"]);
  if (came !== undefined) lines.push(`  result   ${came}`);
  await session.output.result({ task: new JsonText(rawAt(result, ["task"]) ?? "null") }, lines);
}
