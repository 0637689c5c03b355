/** Columns in SQL that is written by hand: named by the schema, never as text. */
import { type SQL, sql } from "drizzle-orm";
import type { SQLiteColumn } from "drizzle-orm/sqlite-core";

/** What a statement selects: columns, and `sql<Type>` for what is computed. */
export type Selection = Record<string, SQLiteColumn | SQL>;

/** A row of a {@link Selection}. */
export type RowOf<S extends Selection> = {
  [Key in keyof S]: S[Key] extends SQLiteColumn
    ? S[Key]["_"]["notNull"] extends true
      ? S[Key]["_"]["data"]
      : S[Key]["_"]["data"] | null
    : S[Key] extends SQL<infer Type>
      ? Type
      : never;
};

/**
 * The list of a SELECT or RETURNING, each column under its key: `"t"."task_id" AS "taskId", …`. The rows are {@link RowOf} it:
 * `query.all<RowOf<typeof SHOWN>>(sql`SELECT ${selected(SHOWN)} FROM …`)`.
 */
export function selected(selection: Selection): SQL {
  const list = Object.entries(selection).map(([key, column]) => sql`${column} AS ${sql.identifier(key)}`);
  return sql.join(list, sql`, `);
}

/** Bare names, as the column list of an INSERT or the left side of a SET takes them: `"task_id", "name"`. */
export function names(...columns: readonly SQLiteColumn[]): SQL {
  return sql.join(
    columns.map(({ name }) => sql.identifier(name)),
    sql`, `,
  );
}

/** The value that an INSERT could not put there, in its ON CONFLICT DO UPDATE. */
export function excluded(column: SQLiteColumn): SQL {
  return sql`excluded.${sql.identifier(column.name)}`;
}
