/**
 * Whether an actor may do something with a task. One question is asked of the graph and its answer stands: nothing that was
 * refused is asked again in other words. A refusal to an actor that may not read the task is the answer for a task that does not
 * exist, and costs the same reads; one that may read it is told which permission is missing.
 */
import type { Actor } from "../authz/actor.ts";
import { agentObject, taskObject } from "../authz/grants.ts";
import { isPermitted } from "../authz/permission.ts";
import { isEnforced } from "../authz/tenants.ts";
import type { CallContext } from "../call/context.ts";
import { ProxyError } from "../wire/problem.ts";
import { isUlid } from "../wire/ulid.ts";
import { findTask, findTasksForOperator, type Found, type Target, type TaskKey, type TaskRow } from "./store.ts";

export type TaskPermission = "read" | "update" | "cancel" | "delete";

/** Asked for in place of what is not there: no subject is related to it. */
const DUMMY_TASK = taskObject("00000000000000000000000000");
const DUMMY_AGENT = agentObject("none");

/** The refusal to whom the task is unknown. */
export const noSuchTask = (reason: string): ProxyError => new ProxyError("PROXY_NOT_FOUND", { reason });

/**
 * Finds a task that the actor may do this with.
 *
 * @param actor null for the operator
 * @throws ProxyError PROXY_NOT_FOUND; PROXY_AUTH_FORBIDDEN with `data.permission` where the actor may read it and no more;
 *         AUTHZ_UNAVAILABLE when the graph cannot say
 */
export async function permittedTask(
  ctx: CallContext,
  actor: Actor | null,
  key: TaskKey,
  permission: TaskPermission,
  operatorsAgent: string | null = null,
): Promise<TaskRow> {
  if (actor === null) return tasksForOperator(ctx, key, operatorsAgent);
  const found = await findTask(ctx.db, actor, key);
  return decideOn(ctx, actor, found, permission);
}

/**
 * Finds a task whose own agent the actor is, or acts for.
 *
 * @throws ProxyError PROXY_NOT_FOUND; PROXY_AUTH_FORBIDDEN where the actor may read it; AUTHZ_UNAVAILABLE when the graph cannot say
 */
export async function ownTask(ctx: CallContext, actor: Actor, key: TaskKey): Promise<TaskRow> {
  const found = await findTask(ctx.db, actor, key);
  if (found.row !== null && found.row.agentDid === actor.agentDid) return found.row;
  await decideOn(ctx, actor, found, "read");
  throw new ProxyError("PROXY_AUTH_FORBIDDEN", {
    reason: "not the task's agent",
    detail: "Only the task's own agent says what becomes of it.",
    data: { permission: "agent" },
  });
}

/** Decides on what was read; the graph is asked in any case. */
async function decideOn(ctx: CallContext, actor: Actor, found: Found, permission: TaskPermission): Promise<TaskRow> {
  const { config } = ctx;
  // What the actor cannot see by the rule of the task's tenant is from here on a task that does not exist.
  const isVisible = (row: TaskRow): boolean =>
    isEnforced(config, found.taskEnforce) ? found.isMember : mayByCreator(actor, row, found);
  const row = found.row !== null && isVisible(found.row) ? found.row : null;
  const enforced = isEnforced(config, row === null ? found.callerEnforce : found.taskEnforce);
  const object = row !== null && isUlid(row.taskId) ? taskObject(row.taskId) : DUMMY_TASK;
  const { subject } = actor;
  const granted = await ask(ctx, enforced, { subject, relation: permission, object });
  if (row !== null && (!enforced || granted)) return row;
  // Decides which refusal it is, and nothing else; asked of the dummy task too, so that every refusal costs the same.
  const mayRead = permission !== "read" && (await ask(ctx, enforced, { subject, relation: "read", object }));
  if (row === null) throw noSuchTask("no such task, one of another tenant, or neither creator nor the agent's owner");
  if (!mayRead) throw noSuchTask(`the graph does not grant ${permission}`);
  throw new ProxyError("PROXY_AUTH_FORBIDDEN", {
    reason: `the graph grants read and not ${permission}`,
    detail: `This takes the permission ${permission} on the task.`,
    data: { permission },
  });
}

/**
 * The graph is asked even where it does not decide yet, so that every refusal costs the same reads; D1's, that is. What it
 * answers is not listened to there, nor that it cannot.
 */
async function ask(
  ctx: CallContext,
  enforced: boolean,
  question: { subject: string; relation: string; object: string },
): Promise<boolean> {
  if (enforced) return isPermitted(ctx, question);
  if (ctx.config.authzGraph !== "d1") return false;
  try {
    await isPermitted(ctx, question);
  } catch (error) {
    if (!(error instanceof ProxyError)) throw error;
  }
  return false;
}

/** While the graph does not decide: the creator does, and the owner of the task's agent. Contract §6, `FGAC_ENFORCE`. */
function mayByCreator(actor: Actor, row: TaskRow, found: Pick<Found, "agentOwner" | "callerTenantId">): boolean {
  // A person may have agents in several tenants; an agent or a service account is in one.
  if (actor.kind !== "device" && found.callerTenantId !== row.tenantId) return false;
  if (actor.serviceAccountId !== null) return row.creatorServiceAccountId === actor.serviceAccountId;
  return actor.userId !== null && (row.creatorUserId === actor.userId || found.agentOwner === actor.userId);
}

async function tasksForOperator(ctx: CallContext, key: TaskKey, agentDid: string | null): Promise<TaskRow> {
  const [row, another] = await findTasksForOperator(ctx.db, key, agentDid);
  if (another !== undefined) {
    throw new ProxyError("PROXY_BAD_REQUEST", {
      detail: "taskName: several tenants have a task of this name; add agentDid.",
    });
  }
  if (row === undefined) throw noSuchTask("no such task");
  return row;
}

/**
 * Whether the actor may make a task for an agent. The graph is asked whether or not there is such an agent.
 *
 * @throws ProxyError AUTHZ_UNAVAILABLE when the graph cannot say
 */
export async function mayCreate(ctx: CallContext, actor: Actor, agentDid: string, target: Target): Promise<boolean> {
  const { config } = ctx;
  const isVisible = target.tenantId !== null && (target.isMember || !isEnforced(config, target.enforce));
  const enforced = isEnforced(config, isVisible ? target.enforce : target.callerEnforce);
  const object = isVisible ? agentObject(agentDid) : DUMMY_AGENT;
  const granted = await ask(ctx, enforced, { subject: actor.subject, relation: "create_task", object });
  if (!isVisible || target.isRevoked) return false;
  if (enforced) return granted;
  if (actor.kind !== "device" && target.callerTenantId !== target.tenantId) return false;
  if (actor.serviceAccountId !== null) return actor.agentDid === agentDid;
  return actor.agentDid === agentDid || target.owner === actor.userId;
}

/** Whether the actor may read the task whose name it wanted. Asked of the dummy task too, so that a refusal costs the same. */
export async function mayReadExisting(ctx: CallContext, actor: Actor, target: Target): Promise<boolean> {
  const row = target.existing;
  const enforced = isEnforced(ctx.config, target.enforce);
  const object = row === null ? DUMMY_TASK : taskObject(row.taskId);
  const granted = await ask(ctx, enforced, { subject: actor.subject, relation: "read", object });
  if (row === null) return false;
  return enforced
    ? granted
    : mayByCreator(actor, row, { agentOwner: target.owner, callerTenantId: target.callerTenantId });
}
