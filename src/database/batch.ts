/** One D1 batch: it is committed whole, or it is undone whole and says why. */
import { getTableName } from "drizzle-orm";
import type { SQLiteColumn } from "drizzle-orm/sqlite-core";
import { err, ok, type Result } from "../wire/result.ts";
import { fenceStatement, type FencingToken, isFenceFailure } from "./fencing.ts";
import { failedGuard, type GuardName } from "./guard.ts";
import { storeFailure } from "./read.ts";
import { bind, type Bound, type Statement, type Store } from "./statement.ts";

/** What a batch is made of. */
export type BatchItem = Statement | D1PreparedStatement;

/** Results in the order of the statements: rows of what selects or returns, D1's result of everything else. */
export type BatchResults<Items extends readonly BatchItem[]> = {
  -readonly [At in keyof Items]: Items[At] extends Statement<infer Rows> ? Rows : D1Result;
};

/** The authority that a batch is committed under. */
export type Fence = {
  /** @throws ProxyError when the authority has ended */
  assertCurrent(): void;
  /** What the batch is fenced by in D1: the caller's authority at this moment, or nothing for the operator. */
  fence(): readonly FencingToken[];
};

/**
 * Why a batch was undone: the authority that it stood under has ended, a guard of it did not hold, or a value is there already
 * that has to be unique (the columns as SQLite names them, see {@link violates}).
 */
export type Undone = "authority-ended" | { readonly guard: GuardName } | { readonly unique: string };

/**
 * Commits one batch under an authority: looks at the authority, then fence first, whole or not at all.
 *
 * @param db the database, or a session at its primary
 * @param fence null for what is done without a caller
 * @returns the results of `statements`, or why the batch was undone
 * @throws ProxyError when the authority has ended already; PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails, and the batch may
 *         then have been committed
 */
export async function commitFenced<const Items extends readonly BatchItem[]>(
  db: Store,
  fence: Fence | null,
  statements: Items,
): Promise<Result<BatchResults<Items>, Undone>> {
  fence?.assertCurrent();
  const tokens = fence?.fence() ?? [];
  const fences = tokens.length === 0 ? [] : [fenceStatement(tokens)];
  const answered = await batch(db, [...fences, ...statements]);
  if (answered.ok) return ok(answered.value.slice(fences.length) as BatchResults<Items>);
  const undone = undoneBy(answered.error);
  if (undone !== null) return err(undone);
  throw storeFailure(answered.error);
}

/**
 * Runs a batch that nothing undoes: reads of one moment, deletions of what is past.
 *
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails; the batch may then have been committed
 */
export async function runBatch<const Items extends readonly BatchItem[]>(
  db: Store,
  statements: Items,
): Promise<BatchResults<Items>> {
  const answered = await batch(db, statements);
  if (!answered.ok) throw storeFailure(answered.error);
  return answered.value as BatchResults<Items>;
}

/** @returns whether a batch was undone because these columns, those of one index in its order, have to be unique together */
export function violates(undone: Undone, ...columns: readonly SQLiteColumn[]): boolean {
  const names = columns.map(({ table, name }) => `${getTableName(table)}.${name}`).join(", ");
  return typeof undone === "object" && "unique" in undone && undone.unique === names;
}

/** @returns whether a batch was undone because this guard did not hold */
export function isUndoneBy(undone: Undone, name: GuardName): boolean {
  return typeof undone === "object" && "guard" in undone && undone.guard === name;
}

/** @returns whether a batch was undone by a guard of it */
export function isGuard(undone: Undone, name: GuardName): boolean {
  return typeof undone === "object" && "guard" in undone && undone.guard === name;
}

/** @returns how many rows the statement of a batch changed that changed most */
export function mostChanged(results: readonly D1Result[]): number {
  return Math.max(0, ...results.map(({ meta }) => meta.changes));
}

/** @returns what each statement came to, or what D1 threw */
async function batch(db: Store, items: readonly BatchItem[]): Promise<Result<unknown[], unknown>> {
  const bound = items.map((item): Bound<unknown> => {
    return isPrepared(item) ? { on: item, result: (from) => from } : bind(db, item);
  });
  let results: D1Result[];
  try {
    results = await db.batch(bound.map(({ on }) => on));
  } catch (error) {
    return err(error);
  }
  const mapped = bound.map(({ result }, at) => {
    const from = results[at];
    if (from === undefined) throw new Error("D1 answered a batch with fewer results than it has statements");
    return result(from);
  });
  return ok(mapped);
}

function isPrepared(item: BatchItem): item is D1PreparedStatement {
  return !("_" in item || "getSQL" in item || "getQuery" in item);
}

/** What the error of a batch says of its constraints; null where it is none of theirs. */
function undoneBy(error: unknown): Undone | null {
  if (isFenceFailure(error)) return "authority-ended";
  const guard = failedGuard(error);
  if (guard !== null) return { guard };
  const unique =
    error instanceof Error ? /UNIQUE constraint failed: ([\w., ]+?)(?::|$)/.exec(error.message)?.[1] : undefined;
  return unique === undefined ? null : { unique };
}
