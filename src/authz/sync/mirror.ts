/**
 * Filling an engine from D1: one that was started empty, or is new, gets every tuple again. Page by page in the order of the
 * tuples; a page whose first and last tuple the engine holds is taken as there.
 */
import type { Log } from "../../telemetry/log.ts";
import { runBatch } from "../../database/batch.ts";
import { formatTuple, type Tuple } from "../engine/tuple.ts";
import { unendingAmong } from "../store/expiries.ts";
import { readTuples } from "../store/tuples.ts";
import { bulkOutboxStatements } from "./outbox.ts";
import type { ExceptionClass, RemoteGraph } from "./remote-call.ts";
import { sql } from "drizzle-orm";

/** Tuples of one page: as many as either engine takes in one write. */
const PAGE_TUPLES = 100;
/** Pages of one call, and the time after which no further one is begun. */
const PAGES_MAX = 100;
const TIME_MAX_MS = 5_000;

type MirrorDeps = { db: D1Database; graph: RemoteGraph; now: () => number; log: Log };

/**
 * Works through some pages. What is taken in D1 while a page is on its way is taken from the engine again, by the outbox.
 *
 * @param cursor where the last call ended; null to begin
 * @returns where to go on; null after the last page. An engine that does not answer is asked about the same page again
 */
export async function mirrorPages(deps: MirrorDeps, cursor: string | null): Promise<string | null> {
  const { db, graph, now, log } = deps;
  if (graph.mirror === null) return null;
  const endsAtMs = now() + TIME_MAX_MS;
  let after = cursor;
  for (let page = 0; page < PAGES_MAX && now() < endsAtMs; page += 1) {
    const position = after === null ? {} : { cursor: after };
    // oxlint-disable-next-line no-await-in-loop -- page after page
    const read = await readTuples(db.withSession("first-primary"), {}, { limit: PAGE_TUPLES, ...position });
    if (!read.ok) return null;
    // oxlint-disable-next-line no-await-in-loop -- as above
    const failed = await mirrorTuples(deps, graph.mirror, read.value.tuples);
    if (failed !== null) {
      log.warn("authz.mirror_waits", { exceptionClass: failed });
      return after;
    }
    if (read.value.nextCursor === undefined) return null;
    after = read.value.nextCursor;
  }
  return after;
}

async function mirrorTuples(
  { db, now, log }: MirrorDeps,
  mirror: NonNullable<RemoteGraph["mirror"]>,
  read: readonly Tuple[],
): Promise<ExceptionClass | null> {
  const tuples = await unendingAmong(db, read);
  for (const probe of [tuples[0], tuples.at(-1)]) {
    if (probe === undefined) return null;
    // oxlint-disable-next-line no-await-in-loop -- two
    const held = await mirror.holds(probe);
    if (!held.ok) return held.error;
    if (held.value) continue;
    // oxlint-disable-next-line no-await-in-loop -- once
    const added = await mirror.add(tuples);
    if (!added.ok) return added.error;
    // oxlint-disable-next-line no-await-in-loop -- once
    await takeBackGone(db, tuples, now());
    log.info("authz.mirrored", { count: tuples.length });
    return null;
  }
  return null;
}

/** What D1 does not have any more was taken while it was on its way. */
async function takeBackGone(db: D1Database, tuples: readonly Tuple[], nowMs: number): Promise<void> {
  const standing = new Set((await unendingAmong(db, tuples)).map(formatTuple));
  const gone = tuples.filter((tuple) => !standing.has(formatTuple(tuple)));
  if (gone.length === 0) return;
  const rows = JSON.stringify(gone.map(({ object, relation, subject }) => [object, subject, relation]));
  await runBatch(
    db,
    bulkOutboxStatements(
      sql`SELECT 'mirror-' || ${nowMs} || '-' || key, 'deregister', value ->> 0, value ->> 1, NULL, value ->> 2, ''
        FROM json_each(${rows}) WHERE TRUE`,
      nowMs,
    ),
  );
}
