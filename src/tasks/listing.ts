/** `task/list`: what the caller may read, found through the graph and not by filtering everything. At most three round trips. */
import { sallyportGraph } from "../authz/graph.ts";
import { graphUnavailable } from "../authz/permission.ts";
import { noteBookmark, readSession } from "../authz/read-session.ts";
import { remoteGraphOf } from "../authz/remote.ts";
import { read } from "../identity/commit.ts";
import type { CallContext } from "../rpc/method.ts";
import { isUlid } from "../wire/ulid.ts";
import { type Actor, actorOf } from "./actor.ts";
import { isEnforced } from "./decision.ts";
import { findCaller, listRows, pickRows, type ShownTask, shownTask, type TaskPage } from "./store.ts";

/** How many of the graph's answers are looked through for the tasks of one agent. */
const LOOKED_THROUGH_MAX = 1_000;

export type Page = { agentDid: string | null; cursor: string | null; limit: number };

/** A page, oldest first, of no more tasks than fit. One that is shorter than asked for has a `nextCursor` where there may be more. */
export async function listTasks(ctx: CallContext, page: Page): Promise<{ tasks: ShownTask[]; nextCursor?: string }> {
  const session = readSession(ctx);
  const listed = await listFrom(ctx, session, actorOf(ctx.principal), page);
  noteBookmark(ctx, session);
  return listed;
}

async function listFrom(ctx: CallContext, session: D1DatabaseSession, actor: Actor | null, page: Page) {
  if (actor === null) return shownPage(await read(listRows(session, null, page)), null);
  const caller = await read(findCaller(session, actor));
  if (!isEnforced(ctx.config, caller.enforce))
    return shownPage(await read(listRows(session, { actor, caller }, page)), null);

  const wanted = page.agentDid === null ? page.limit : LOOKED_THROUGH_MAX;
  const { ids, more } = await readable(ctx, session, actor.subject, { limit: wanted, cursor: page.cursor });
  return shownPage(await read(pickRows(session, ids, { actor, agentDid: page.agentDid, limit: page.limit })), more);
}

/** The next ids that the subject may read, and where to go on. */
async function readable(
  ctx: CallContext,
  session: D1DatabaseSession,
  subject: string,
  page: { limit: number; cursor: string | null },
): Promise<{ ids: string[]; more: string | null }> {
  const question = { subject, relation: "read", type: "task" };
  const remote = remoteGraphOf(ctx.config);
  if (remote !== null) {
    const found = await remote.search(question, page);
    if (!found.ok) throw graphUnavailable(found.error);
    return { ids: found.value, more: found.value.length < page.limit ? null : (found.value.at(-1) ?? null) };
  }
  const { limit, cursor } = page;
  const listed = await read(
    sallyportGraph.listObjects(session, question, { limit, ...(cursor === null ? {} : { cursor }) }),
  );
  if (!listed.ok) throw graphUnavailable(listed.error.reason);
  const ids = listed.value.objects.map((object) => object.slice(object.indexOf(":") + 1)).filter(isUlid);
  return { ids, more: listed.value.nextCursor ?? null };
}

/** @param more where to go on behind the last of these rows */
function shownPage({ rows, hasMore }: TaskPage, more: string | null): { tasks: ShownTask[]; nextCursor?: string } {
  const nextCursor = hasMore ? (rows.at(-1)?.task_id ?? null) : more;
  const tasks = rows.map(shownTask);
  return nextCursor === null ? { tasks } : { tasks, nextCursor };
}
