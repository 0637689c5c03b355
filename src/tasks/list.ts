/** `task/list`: what the caller may read, found through the graph or by who made it, and not by filtering everything. At most three round trips. */
import { type Actor, actorOf } from "../authz/actor.ts";
import { taskObject } from "../authz/grants.ts";
import { graphUnavailable, unanswered } from "../authz/permission.ts";
import { sallyportGraph } from "../authz/store/graph.ts";
import { remoteGraphOf } from "../authz/sync/remote.ts";
import type { CallContext } from "../call/context.ts";
import { read } from "../database/read.ts";
import { noteBookmark, readSession } from "../database/session.ts";
import { isUlid } from "../wire/ulid.ts";
import { findReach, listEverything, listPermitted, type TaskPage } from "./list-queries.ts";
import { recordOperatorListing } from "./operator-access.ts";
import type { TaskState } from "./state.ts";
import { type ShownTask, shownTask } from "./store.ts";

/** How many of the graph's answers are looked through for the tasks of one agent, or in one state. */
const LOOKED_THROUGH_MAX = 1_000;

export type Page = { agentDid: string | null; status: TaskState | null; cursor: string | null; limit: number };

/**
 * A page, oldest first, of no more tasks than fit. One that is shorter than asked for has a `nextCursor` where there may be more.
 * It holds what `task/get` would show: of each task its own tenant says whether the graph decides or its creator does.
 *
 * @throws ProxyError PROXY_BAD_REQUEST for a list beyond the budget of one call; AUTHZ_UNAVAILABLE when the graph cannot say; PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function listTasks(ctx: CallContext, page: Page): Promise<{ tasks: ShownTask[]; nextCursor?: string }> {
  await recordOperatorListing(ctx, page.agentDid);
  const session = readSession(ctx);
  const listed = await listFrom(ctx, session, actorOf(ctx.principal), page);
  noteBookmark(ctx, session);
  return listed;
}

async function listFrom(ctx: CallContext, session: D1DatabaseSession, actor: Actor | null, page: Page) {
  if (actor === null) return shownPage(await listEverything(session, page), null);
  const enforced = ctx.config.fgacEnforce;
  const reach = await findReach(session, actor, enforced);
  // Where the graph decides nothing it is not asked, and its being out of reach does not matter.
  const wanted = page.agentDid === null && page.status === null ? page.limit : LOOKED_THROUGH_MAX;
  const { ids, more } = reach.graphDecides
    ? await readable(ctx, session, actor.subject, { limit: wanted, cursor: page.cursor })
    : { ids: [], more: null };
  return shownPage(await listPermitted(session, { actor, reach, enforced, ids, upTo: more }, page), more);
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
  if (remote !== null && remote.checkMany === null) {
    const found = await remote.search(question, page);
    if (!found.ok) throw graphUnavailable(found.error);
    return { ids: found.value, more: found.value.length < page.limit ? null : (found.value.at(-1) ?? null) };
  }
  const { limit, cursor } = page;
  const listed = await read(
    sallyportGraph.listObjects(session, question, { limit, lenient: true, ...(cursor === null ? {} : { cursor }) }),
  );
  if (!listed.ok) throw unanswered(listed.error);
  const ids = listed.value.objects.map((object) => object.slice(object.indexOf(":") + 1)).filter(isUlid);
  const more = listed.value.nextCursor ?? null;
  if (remote?.checkMany == null) return { ids, more };
  // Paged in D1, which has every tuple that the engine has, and asked in bulk: pages stay exact.
  const verdicts = await remote.checkMany(ids.map((id) => ({ subject, relation: "read", object: taskObject(id) })));
  if (!verdicts.ok) throw graphUnavailable(verdicts.error);
  return { ids: ids.filter((_, index) => verdicts.value[index] === true), more };
}

/** @param more where to go on behind the last of these rows */
function shownPage({ rows, hasMore }: TaskPage, more: string | null): { tasks: ShownTask[]; nextCursor?: string } {
  const nextCursor = hasMore ? (rows.at(-1)?.taskId ?? null) : more;
  const tasks = rows.map(shownTask);
  return nextCursor === null ? { tasks } : { tasks, nextCursor };
}
