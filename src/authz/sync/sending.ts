/** Sending what is pending to a remote graph: each row held, sent, and settled with the statements of the next. */
import { runBatch } from "../../database/batch.ts";
import { authzOutbox } from "../../database/schema.ts";
import type { Statement } from "../../database/statement.ts";
import type { Log } from "../../telemetry/log.ts";
import {
  acceptedStatement,
  clearOlderStatement,
  dropSupersededStatement,
  failedStatement,
  holdStatement,
  isReadBackLongEnough,
  isRefusedPermanently,
  logParked,
  parkStatement,
  type PendingChange,
  releasedStatement,
  takenStatement,
  wakeStatement,
} from "./outbox.ts";
import type { ExceptionClass, GraphChange, RemoteGraph } from "./remote-call.ts";

/** Not failed and not taken: an older row of the same object goes first, or another round has taken this one over. */
export type NotTaken = ExceptionClass | "waits";

/** A row that is held for sending. */
export type HeldRow = GraphChange & { id: string } & Pick<
    typeof authzOutbox.$inferSelect,
    "acceptedAtMs" | "parkedAtMs" | "attempts"
  >;

type Deps = { db: D1Database; graph: RemoteGraph; now: () => number; log: Log };

/** Sends rows one after the other. What became of one is written with the batch that holds the next. */
export type Sender = {
  /** @returns null when the graph has taken it, or a later row has made it pointless; otherwise why it has not */
  send(row: HeldRow, leaseId: string): Promise<NotTaken | null>;
  /** Lets go of a row unsent. */
  release(row: Pick<HeldRow, "id">, leaseId: string): void;
  /** Writes what became of the last row. */
  settle(): Promise<void>;
};

/** @returns a sender for rows of one round or one call; `settle` is called once all are sent */
export function createSender({ db, graph, now, log }: Deps): Sender {
  const session = db.withSession("first-primary");
  /** What is settled, written with the next statement that has to be. */
  let settled: Statement<D1Result>[] = [];

  const takeUp = async (row: HeldRow, leaseId: string): Promise<number | "superseded" | "waits"> => {
    const before = settled;
    settled = [];
    const results = await runBatch(session, [
      ...before,
      dropSupersededStatement(row.id, leaseId),
      clearOlderStatement(row, now()),
      holdStatement(row, leaseId, now()),
    ]);
    const [dropped, , held] = results.slice(before.length) as [{ id: string }[], D1Result, { version: number }[]];
    if (dropped.length > 0) return "superseded";
    return held[0]?.version ?? "waits";
  };

  const settleTaken = (row: HeldRow, leaseId: string): void => {
    const isRemoval = row.op === "deregister";
    settled.push(
      isRemoval ? acceptedStatement(row.id, leaseId, row.acceptedAtMs, now()) : takenStatement(row.id, leaseId),
      wakeStatement(row.object, now()),
    );
  };

  const settleFailed = (row: HeldRow, leaseId: string, error: ExceptionClass): void => {
    if (!isRefusedPermanently(row, error)) {
      settled.push(failedStatement(row.id, leaseId, error, now()));
      return;
    }
    if (row.parkedAtMs === null) logParked(log, row, error);
    settled.push(parkStatement(row.id, leaseId, error, now()), wakeStatement(row.object, now()));
  };

  /** A removal that was taken before is read back; where it stands again it is sent again. */
  const readBack = async (row: HeldRow, acceptedAtMs: number): Promise<ExceptionClass | null | "again"> => {
    const stands = await graph.stands(row);
    if (stands.ok) return stands.value ? "again" : null;
    if (!isReadBackLongEnough(acceptedAtMs, now())) return stands.error;
    log.warn("authz.removal_unverified", { object: row.object, exceptionClass: stands.error });
    return null;
  };

  const apply = async (row: HeldRow, version: number): Promise<ExceptionClass | null> => {
    const before = row.acceptedAtMs === null ? "again" : await readBack(row, row.acceptedAtMs);
    if (before !== "again") return before;
    if (row.acceptedAtMs !== null) log.warn("authz.removal_undone", { object: row.object, principal: row.principal });
    const applied = await graph.apply(row, version);
    return applied.ok ? null : applied.error;
  };

  return {
    async send(row, leaseId) {
      const version = await takeUp(row, leaseId);
      if (version === "superseded") {
        settled.push(wakeStatement(row.object, now()));
        return null;
      }
      if (version === "waits") {
        settled.push(releasedStatement(row.id, leaseId, true, now()));
        return "waits";
      }
      const error = await apply(row, version);
      if (error === null) settleTaken(row, leaseId);
      else settleFailed(row, leaseId, error);
      return error;
    },
    release: ({ id }, leaseId) => void settled.push(releasedStatement(id, leaseId, false, now())),
    async settle() {
      const last = settled;
      settled = [];
      if (last.length > 0) await runBatch(session, last);
    },
  };
}

/**
 * Sends what has just been committed, in order, up to the first that fails or has to wait.
 *
 * @returns why the graph did not take all of it, or null when it has
 */
export async function sendPending(deps: Deps, changes: readonly PendingChange[]): Promise<NotTaken | null> {
  const sender = createSender(deps);
  for (const [index, change] of changes.entries()) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other, in their order
    const notTaken = await sender.send({ ...change, acceptedAtMs: null, parkedAtMs: null, attempts: 0 }, change.id);
    if (notTaken === null) continue;
    for (const rest of changes.slice(index + 1)) sender.release(rest, rest.id);
    // oxlint-disable-next-line no-await-in-loop -- the last
    await sender.settle();
    return notTaken;
  }
  await sender.settle();
  return null;
}
