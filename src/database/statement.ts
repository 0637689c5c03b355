/**
 * Statements as values. drizzle writes them from the schema, without a database; `database/read.ts` and `database/batch.ts` run
 * them on the database or session that they are given. So a statement is made wherever its rule stands, goes into the batch of
 * its effect, and an error is D1's own and never repeats the values that were bound, as drizzle's errors do.
 */
import { fillPlaceholders, type SQL } from "drizzle-orm";
import type { DrizzleD1Database } from "drizzle-orm/d1";
import type { RunnableQuery } from "drizzle-orm/runnable-query";
import {
  type SelectedFieldsOrdered,
  SQLiteAsyncDialect,
  SQLiteDeleteBase,
  SQLiteInsertBuilder,
  SQLiteSelectBuilder,
  type SQLiteSession,
  type SQLiteTable,
  SQLiteUpdateBuilder,
} from "drizzle-orm/sqlite-core";
import * as drizzleUtils from "drizzle-orm/utils";

/** Where a statement runs: the database, or a session that fixes how fresh what it reads must be. */
export type Store = Pick<D1Database, "prepare" | "batch">;

/** What {@link query} builds: rows where it selects or returns them, a D1Result otherwise. */
export type Statement<T = unknown> = RunnableQuery<T, "sqlite">;

/** Values for `sql.placeholder("name")`, by name. */
export type Values = Readonly<Record<string, string | number | null>>;

/** A statement whose text is known, as drizzle prepares it. */
type Prepared = {
  getQuery(): { sql: string; params: unknown[] };
  mapResult(result: unknown, isFromBatch?: boolean): unknown;
};

/** drizzle's own mapping of a row to the selected fields; it leaves it out of its types, not out of its package. */
const { mapResultRow } = drizzleUtils as unknown as {
  mapResultRow(fields: SelectedFieldsOrdered, row: unknown[], notNullable?: Record<string, boolean>): unknown;
};

/** What drizzle's builders ask to prepare a statement: its text is taken, and nothing is run. */
const dialect = new SQLiteAsyncDialect();
const session = { prepareQuery: built, prepareOneTimeQuery: built } as unknown as SQLiteSession<
  "async",
  D1Result,
  Record<string, never>,
  Record<string, never>
>;

/** A statement that is awaited, as drizzle's own may be. */
function refuse(): Promise<never> {
  return Promise.reject(new Error("a statement runs by database/read.ts or database/batch.ts, never by itself"));
}

/** @param fields what the statement selects or returns, in order; a statement without gives D1's own result */
function built(written: ReturnType<Prepared["getQuery"]>, fields?: SelectedFieldsOrdered): Prepared {
  const prepared = {
    fields,
    run: refuse,
    all: refuse,
    get: refuse,
    values: refuse,
    execute: refuse,
    // Set by the builder of a select with joins.
    joinsNotNullableMap: undefined as Record<string, boolean> | undefined,
    getQuery: () => written,
    mapResult(result: D1Result<Record<string, unknown>>): unknown {
      if (fields === undefined) return result;
      return result.results.map((row) => mapResultRow(fields, Object.values(row), prepared.joinsNotNullableMap));
    },
  };
  return prepared;
}

/** What is built of drizzle's: its own driver would run statements, and repeat bound values in its errors. */
type Builder = Pick<DrizzleD1Database, "select" | "insert" | "update" | "delete"> & {
  /** Rows of SQL that the builder cannot say. */
  all<Row>(text: SQL): Statement<Row[]>;
  /** D1's result of such SQL. */
  run(text: SQL): Statement<D1Result>;
};

/**
 * Builds statements: `select`, `insert`, `update` and `delete` as drizzle documents them, and `all<Row>(sql`…`)` or
 * `run(sql`…`)` for SQL that the builder cannot say.
 */
export const query: Builder = {
  select: ((fields?: Record<string, never>) =>
    new SQLiteSelectBuilder({ fields, session, dialect })) as unknown as Builder["select"],
  insert: ((table: SQLiteTable) => new SQLiteInsertBuilder(table, session, dialect)) as unknown as Builder["insert"],
  update: ((table: SQLiteTable) => new SQLiteUpdateBuilder(table, session, dialect)) as unknown as Builder["update"],
  delete: ((table: SQLiteTable) => new SQLiteDeleteBase(table, session, dialect)) as unknown as Builder["delete"],
  all: <Row>(text: SQL) =>
    ({ getQuery: () => dialect.sqlToQuery(text), mapResult: (from: D1Result) => from.results }) as unknown as Statement<
      Row[]
    >,
  run: (text: SQL) =>
    ({
      getQuery: () => dialect.sqlToQuery(text),
      mapResult: (from: D1Result) => from,
    }) as unknown as Statement<D1Result>,
};

/**
 * A statement whose text is written once for the isolate: building one takes 10 to 40 µs, binding it less than one.
 *
 * @param build called at the first use; what differs between calls stands there as `sql.placeholder("name")`
 * @returns the statement with its values
 */
export function preparedStatement<T>(build: () => Statement<T>): (values: Values) => Statement<T> {
  let made: Prepared | null = null;
  return (values) => {
    const prepared = (made ??= prepare(build()));
    const { sql, params } = prepared.getQuery();
    const withValues: Prepared = {
      getQuery: () => ({ sql, params: fillPlaceholders(params, values) }),
      mapResult: prepared.mapResult.bind(prepared),
    };
    return withValues as unknown as Statement<T>;
  };
}

/** A statement bound to where it runs, and what makes its result of D1's. */
export type Bound<T> = { readonly on: D1PreparedStatement; result(from: D1Result): T };

/** @returns the statement, ready to run on `db` */
export function bind<T>(db: Store, statement: Statement<T>): Bound<T> {
  const prepared = prepare(statement);
  const { sql, params } = prepared.getQuery();
  return {
    on: db.prepare(sql).bind(...params),
    result(from) {
      assertNamed(prepared, from.results[0]);
      return prepared.mapResult(from, true) as T;
    },
  };
}

/** @returns the SQL of a statement, with `?` where a value is bound */
export function textOf(statement: Statement): string {
  return prepare(statement).getQuery().sql;
}

function prepare(statement: Statement): Prepared {
  const made = statement as unknown as Prepared | { prepare(): Prepared };
  return "prepare" in made ? made.prepare() : made;
}

/** D1's rows are objects, so of two columns of one name, as a join may have, one is missing and drizzle would take the wrong one. */
function assertNamed(prepared: Prepared & { fields?: readonly unknown[] | undefined }, row: unknown): void {
  if (prepared.fields === undefined || typeof row !== "object" || row === null) return;
  if (Object.keys(row).length !== prepared.fields.length) {
    throw new Error("two columns of a statement have one name: give one of them another by sql`…`.as(name)");
  }
}
