/**
 * Writing both: a row and its tuples in one commit, and, where the graph is a remote one, what is pending for it in the same
 * commit and the sending after it.
 */
import { authorityEnded } from "../../call/caller.ts";
import type { CallContext } from "../../call/context.ts";
import type { Config } from "../../config.ts";
import { type BatchItem, type BatchResults, commitFenced, type Undone } from "../../database/batch.ts";
import { count } from "../../telemetry/metrics.ts";
import { err, ok, type Result } from "../../wire/result.ts";
import { outboxStatements, pending, type PendingChange } from "./outbox.ts";
import { remoteGraphOf } from "./remote.ts";
import type { ExceptionClass, GraphChange } from "./remote-call.ts";
import { type NotTaken, sendPending } from "./sending.ts";

/** What a write of the graph needs of its call. */
export type GraphWriter = Pick<CallContext, "db" | "config" | "now" | "log" | "authority" | "bookmarks">;

/** A dual write: which way, and what a remote graph is notified of. */
export type DualWrite = {
  op: GraphChange["op"];
  /** Empty where the graph is D1's own. */
  changes: readonly PendingChange[];
};

/** @returns the dual write of some changes; they are empty while the graph is D1's own */
export function dualWrite(
  around: { config: Config; now: () => number },
  op: GraphChange["op"],
  changes: readonly Omit<PendingChange, "op" | "id">[],
): DualWrite {
  if (around.config.authzGraph === "d1") return { op, changes: [] };
  return { op, changes: changes.map((change) => pending({ ...change, op }, around.now())) };
}

/** Why a commit was undone, where the caller can be told something better than that. */
export type Refused = Exclude<Undone, "authority-ended">;

/**
 * Commits one batch under the caller's authority: fence first, whole or not at all.
 *
 * @param dual counted when given; its outbox rows are part of the batch
 * @returns the results of `statements`, or why the batch was undone
 * @throws ProxyError when the authority has ended, or PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function commitWrite<const Items extends readonly BatchItem[]>(
  ctx: GraphWriter,
  statements: Items,
  dual: DualWrite | null,
): Promise<Result<BatchResults<Items>, Refused>> {
  const isLocal = dual !== null && dual.changes.length === 0;
  const tally = (what: "attempt" | "success" | "failure", exceptionClass: ExceptionClass): void => {
    if (isLocal) count(`task_fgac_dual_write_${what}`, { op: dual.op, exception_class: exceptionClass });
  };
  const session = ctx.db.withSession("first-primary");
  ctx.authority.assertCurrent();
  tally("attempt", "none");
  const pushed = dual === null ? [] : outboxStatements(dual.changes, ctx.now());
  const committed = await commitFenced(session, ctx.authority, [...statements, ...pushed]).catch((error: unknown) => {
    tally("failure", "store");
    throw error;
  });
  if (!committed.ok) {
    if (committed.error === "authority-ended") throw authorityEnded(ctx);
    if ("guard" in committed.error) tally("failure", "store");
    return err(committed.error);
  }
  tally("success", "none");
  if (ctx.bookmarks) ctx.bookmarks.latest = session.getBookmark() ?? ctx.bookmarks.latest;
  return ok(committed.value.slice(0, statements.length) as BatchResults<Items>);
}

/** Notifies a remote graph of what was committed. @returns why it did not take all of it, or null; the outbox has the rest */
export async function pushToRemote(ctx: GraphWriter, dual: DualWrite): Promise<NotTaken | null> {
  const graph = remoteGraphOf(ctx.config);
  if (graph === null || dual.changes.length === 0) return null;
  const { db, now, log } = ctx;
  return sendPending({ db, graph, now, log }, dual.changes);
}
