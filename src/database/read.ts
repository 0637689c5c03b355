/** Statements that run by themselves, and the failure that a caller may repeat. */
import { ProxyError } from "../wire/problem.ts";
import { bind, type Statement, type Store } from "./statement.ts";

/**
 * @param db the database, or a session that fixes how fresh the rows must be
 * @returns the rows that a statement selects or returns
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export function readAll<T>(db: Store, statement: Statement<T[]>): Promise<T[]> {
  return run(db, statement);
}

/** The same for one row. @returns the first, or null */
export async function readFirst<T>(db: Store, statement: Statement<T[]>): Promise<T | null> {
  return (await run(db, statement))[0] ?? null;
}

/**
 * Runs a statement that returns no rows.
 *
 * @returns D1's result, with `meta.changes`
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails; the change may then have been made
 */
export function execute(db: Store, statement: Statement<D1Result>): Promise<D1Result> {
  return run(db, statement);
}

async function run<T>(db: Store, statement: Statement<T>): Promise<T> {
  const { on, result } = bind(db, statement);
  return result(await read(on.all()));
}

/**
 * Awaits what was asked of D1 directly.
 *
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function read<T>(asked: Promise<T>): Promise<T> {
  try {
    return await asked;
  } catch (error) {
    throw storeFailure(error);
  }
}

/** @returns what a caller is told of a failure of D1, which stands as its cause */
export function storeFailure(cause: unknown): ProxyError {
  return new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { reason: "D1 failed", cause });
}
