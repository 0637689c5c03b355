/** The methods of contract §5, Tasks. */
import * as z from "zod/mini";
import { actorOf } from "../../authz/actor.ts";
import { permittedTask } from "../../tasks/access.ts";
import { createTask } from "../../tasks/create.ts";
import { listTasks } from "../../tasks/list.ts";
import { recordOperatorAccess } from "../../tasks/operator-access.ts";
import { sendToTask } from "../../tasks/send.ts";
import { changeShare, type Share } from "../../tasks/share.ts";
import { REPORTED_STATES, TASK_STATES } from "../../tasks/state.ts";
import { shownTask, type TaskKey } from "../../tasks/store.ts";
import { cancelTask, deleteTask, interruptTask, updateTask } from "../../tasks/update.ts";
import { JsonText, keptJson } from "../../wire/json-text.ts";
import { codePoints } from "../../wire/text.ts";
import { ProxyError } from "../../wire/problem.ts";
import { defineMethod, type Method } from "../method.ts";
import { PERMISSIONS } from "../permissions.ts";
import { agentDid, plainText, timeMs } from "../schemas.ts";

const PAGE_MAX = 100;
/** `params`, `metadata` and `result`, as JSON; a row of D1 holds 2 MB. */
const OBJECT_BYTES_MAX = 262_144;
/** What stands around it in a message has to fit as well, and is judged where it is sent. */
const CONTENT_BYTES_MAX = 1_048_576;

const taskId = plainText(1, 128);
const taskName = plainText(1, 128);
/** What an agent says of a task may have lines; counted in code points. */
const STATUS_MESSAGE_MAX = 4_096;
const statusMessage = z.string().check(
  z.maxLength(2 * STATUS_MESSAGE_MAX),
  z.refine((text: string) => text.isWellFormed(), "holds half a character"),
  z.refine((text: string) => codePoints(text) <= STATUS_MESSAGE_MAX, `is longer than ${STATUS_MESSAGE_MAX} characters`),
);
/** Kept to the byte: neither the spelling of a number nor a member's name changes on its way. */
const objectText = keptJson(OBJECT_BYTES_MAX).check(
  z.refine((text: JsonText) => text.json.startsWith("{") || text.json === "null", "is no object"),
);
const NO_OBJECT = "{}";
const shownObject = z.custom<JsonText>((value) => value instanceof JsonText);

/** By id or by name, and not by both. The operator, who is in no tenant, may add an agent of the tenant that a name is of. */
const keyMembers = { taskId: z.optional(taskId), taskName: z.optional(taskName), agentDid: z.optional(agentDid) };
type KeyParams = { taskId?: string | undefined; taskName?: string | undefined; agentDid?: string | undefined };
const oneKey = z.refine<KeyParams>(
  (params) => (params.taskId === undefined) !== (params.taskName === undefined),
  "give either taskId or taskName",
);

const task = z.object({
  taskId: z.string(),
  name: z.nullable(z.string()),
  tenantId: z.string(),
  agentDid: z.string(),
  status: z.enum(TASK_STATES),
  params: shownObject,
  metadata: shownObject,
  result: z.optional(shownObject),
  statusMessage: z.optional(z.string()),
  creatorUserId: z.nullable(z.string()),
  creatorServiceAccountId: z.nullable(z.string()),
  createdAtMs: timeMs,
  updatedAtMs: timeMs,
  endedAtMs: z.optional(timeMs),
});
const oneTask = z.object({ task });

const create = defineMethod({
  name: "task/create",
  surface: "rpc",
  permission: PERMISSIONS["task/create"],
  params: z.object({
    agentDid,
    name: z.optional(z.nullable(taskName)),
    params: z.optional(objectText),
    metadata: z.optional(objectText),
  }),
  keeps: ["params", "metadata"],
  result: oneTask,
  handler: async (ctx, { agentDid: forAgent, name, params, metadata }) => ({
    task: await createTask(ctx, {
      agentDid: forAgent,
      name: name ?? null,
      params: objectOf(params),
      metadata: objectOf(metadata),
    }),
  }),
});

const get = defineMethod({
  name: "task/get",
  surface: "rpc",
  permission: PERMISSIONS["task/get"],
  params: z.object(keyMembers).check(oneKey),
  result: oneTask,
  handler: async (ctx, params) => {
    const row = await permittedTask(ctx, actorOf(ctx.principal), keyOf(params), "read", params.agentDid ?? null);
    await recordOperatorAccess(ctx, "task.get", row);
    return { task: shownTask(row) };
  },
});

const list = defineMethod({
  name: "task/list",
  surface: "rpc",
  permission: PERMISSIONS["task/list"],
  params: z.object({
    agentDid: z.optional(agentDid),
    status: z.optional(z.enum(TASK_STATES)),
    cursor: z.optional(z.string().check(z.regex(/^[0-9A-HJKMNP-TV-Z]{26}$/))),
    limit: z.optional(z.int().check(z.minimum(1), z.maximum(PAGE_MAX))),
  }),
  result: z.object({ tasks: z.array(task), nextCursor: z.optional(z.string()) }),
  handler: (ctx, params) =>
    listTasks(ctx, {
      agentDid: params.agentDid ?? null,
      status: params.status ?? null,
      cursor: params.cursor ?? null,
      limit: params.limit ?? PAGE_MAX,
    }),
});

const cancel = defineMethod({
  name: "task/cancel",
  surface: "rpc",
  permission: PERMISSIONS["task/cancel"],
  params: z.object(keyMembers).check(oneKey),
  result: oneTask,
  handler: async (ctx, params) => ({ task: await cancelTask(ctx, keyOf(params), params.agentDid ?? null) }),
});

const interrupt = defineMethod({
  name: "task/interrupt",
  surface: "rpc",
  permission: PERMISSIONS["task/interrupt"],
  params: z.object(keyMembers).check(oneKey),
  result: oneTask,
  handler: async (ctx, params) => ({ task: await interruptTask(ctx, keyOf(params), params.agentDid ?? null) }),
});

const update = defineMethod({
  name: "task/update",
  surface: "rpc",
  permission: PERMISSIONS["task/update"],
  params: z
    .object({
      taskId: z.optional(taskId),
      taskName: z.optional(taskName),
      status: z.enum(REPORTED_STATES),
      statusMessage: z.optional(statusMessage),
      result: z.optional(keptJson(OBJECT_BYTES_MAX)),
    })
    .check(oneKey),
  keeps: ["result"],
  result: oneTask,
  handler: async (ctx, { status, statusMessage: message, result, ...key }) => ({
    task: await updateTask(ctx, keyOf(key), { state: status, statusMessage: message, result: result?.json }),
  }),
});

const remove = defineMethod({
  name: "task/delete",
  surface: "rpc",
  permission: PERMISSIONS["task/delete"],
  params: z.object(keyMembers).check(oneKey),
  result: oneTask,
  handler: async (ctx, params) => ({ task: await deleteTask(ctx, keyOf(params), params.agentDid ?? null) }),
});

const shareShape = { taskId, subject: plainText(1, 512), relation: z.enum(["editor", "viewer"]) };

const share = defineMethod({
  name: "task/share",
  surface: "rpc",
  permission: PERMISSIONS["task/share"],
  params: z.object({ ...shareShape, expiresAtMs: z.optional(timeMs) }),
  result: z.object({ ...shareShape, expiresAtMs: z.optional(timeMs) }),
  handler: (ctx, params): Promise<Share> => changeShare(ctx, "register", params),
});
const unshare = defineMethod({
  name: "task/unshare",
  surface: "rpc",
  permission: PERMISSIONS["task/unshare"],
  params: z.object(shareShape),
  result: z.object(shareShape),
  handler: (ctx, params): Promise<Share> => changeShare(ctx, "deregister", params),
});

const messageSend = sending("message/send", "message");
const eventSend = sending("event/send", "event");

export const taskMethods: readonly Method[] = [
  create,
  get,
  list,
  cancel,
  interrupt,
  update,
  remove,
  share,
  unshare,
  messageSend,
  eventSend,
];

function sending(name: "message/send" | "event/send", kind: "message" | "event"): Method {
  return defineMethod({
    name,
    surface: "rpc",
    permission: PERMISSIONS[name],
    params: z.object({ ...keyMembers, content: keptJson(CONTENT_BYTES_MAX) }).check(oneKey),
    keeps: ["content"],
    result: z.object({ deliveryId: z.string() }),
    handler: (ctx, params) => sendToTask(ctx, kind, keyOf(params), params.content, params.agentDid ?? null),
  });
}

/** @returns the object's text; that of an empty one for none, or null */
function objectOf(text: JsonText | undefined): string {
  return text === undefined || text.json === "null" ? NO_OBJECT : text.json;
}

function keyOf(params: KeyParams): TaskKey {
  if (params.taskId !== undefined) return { taskId: params.taskId };
  if (params.taskName !== undefined) return { taskName: params.taskName };
  throw new ProxyError("PROXY_BAD_REQUEST", { detail: "give either taskId or taskName" });
}
