/** The schema that the code is written by against the tables that the migrations make: neither says a thing that the other does not. */
import { env } from "cloudflare:workers";
import { is, type SQL } from "drizzle-orm";
import { getTableConfig, type SQLiteColumn, SQLiteSyncDialect, SQLiteTable } from "drizzle-orm/sqlite-core";
import { expect, test } from "vitest";
import * as schema from "../../src/database/schema.ts";

const dialect = new SQLiteSyncDialect();
const tables = Object.values(schema)
  .filter((value) => is(value, SQLiteTable))
  .map((table) => getTableConfig(table));

/** What drizzle has no words for. */
const WITHOUT_ROWID = new Set([
  "trust_pairs",
  "pair_tickets",
  "relationships",
  "relationship_expiries",
  "grants_taken",
  "invite_uses",
  "withdrawn_grants",
  "api_key_cleanup",
  "quota_usage",
  "group_members",
  "group_tokens",
  "group_fences",
  "audit_usage",
]);
const STRICT = new Set([
  "audit_usage",
  "relationships",
  "relationship_expiries",
  "grants_taken",
  "withdrawn_grants",
  "api_key_cleanup",
  "quota_usage",
]);

async function rows<Row>(text: string): Promise<Row[]> {
  return (await env.DB.prepare(text).all<Row>()).results;
}

/** SQL of drizzle's as a migration would write it: columns by their bare names. */
function written(sql: SQL): string {
  return squeezed(dialect.sqlToQuery(sql).sql.replaceAll(/"\w+"\."(\w+)"/g, "$1"));
}

function squeezed(text: string): string {
  return text.replaceAll(/\s+/g, " ").trim();
}

function isColumn(value: unknown): value is SQLiteColumn {
  return typeof value === "object" && value !== null && "name" in value;
}

/** The CHECKs in the text of a table, `name: condition` where they are named. */
function checksIn(createTable: string): string[] {
  const text = createTable.replaceAll(/--.*$/gm, "");
  return [...text.matchAll(/(?:CONSTRAINT\s+(\w+)\s+)?CHECK\s*\(/gi)].map((match) => {
    const start = match.index + match[0].length;
    let end = start;
    for (let depth = 1; depth > 0; end += 1) {
      if (text[end] === "(") depth += 1;
      else if (text[end] === ")") depth -= 1;
      else if (text[end] === undefined) throw new Error(`an open parenthesis in ${createTable}`);
    }
    const condition = squeezed(text.slice(start, end - 1));
    return match[1] === undefined ? condition : `${match[1]}: ${condition}`;
  });
}

test("schema: holds every table of the migrations, and no other", async () => {
  const made = await rows<{ name: string }>(
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '_cf_%' AND name <> 'd1_migrations'",
  );
  expect(tables.map(({ name }) => name).toSorted()).toEqual(made.map(({ name }) => name).toSorted());
});

test.for(tables)(
  "schema: $name has the columns of the migrations, with type, NOT NULL, default and key",
  async (table) => {
    type Info = { name: string; type: string; notnull: 0 | 1; dflt_value: string | null; pk: number; hidden: number };
    const made = await rows<Info>(
      `SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo('${table.name}')`,
    );
    const composite = table.primaryKeys[0]?.columns.map(({ name }) => name) ?? [];
    const said = table.columns.map((column) => ({
      name: column.name,
      type: column.getSQLType().toUpperCase(),
      // SQLite takes NULL in the key of a table with rowids unless the column says otherwise; drizzle never does.
      notnull: Number(column.notNull && (!column.primary || WITHOUT_ROWID.has(table.name))),
      dflt_value:
        column.default === undefined
          ? null
          : typeof column.default === "string"
            ? `'${column.default}'`
            : String(column.default),
      pk: column.primary ? 1 : composite.indexOf(column.name) + 1,
      hidden: 0,
    }));
    expect(said).toEqual(made);
  },
);

test.for(tables)("schema: $name is stored as the migrations say", async ({ name }) => {
  const [made] = await rows<{ wr: 0 | 1; strict: 0 | 1 }>(`SELECT wr, strict FROM pragma_table_list('${name}')`);
  expect({ wr: Number(WITHOUT_ROWID.has(name)), strict: Number(STRICT.has(name)) }).toEqual(made);
});

test.for(tables)("schema: $name has the CHECKs of the migrations, with their names", async (table) => {
  const [made] = await rows<{ sql: string }>(
    `SELECT sql FROM sqlite_master WHERE type = 'table' AND name = '${table.name}'`,
  );
  const expected = checksIn(made?.sql ?? "").toSorted();
  const said = table.checks
    .map((check) => {
      const condition = written(check.value);
      const named = `${check.name}: ${condition}`;
      return expected.includes(named) ? named : condition;
    })
    .toSorted();
  expect(said).toEqual(expected);
});

test.for(tables)("schema: $name has the foreign keys of the migrations", async (table) => {
  type ForeignKey = { table: string; from: string; to: string; on_update: string; on_delete: string };
  const made = await rows<ForeignKey>(
    `SELECT "table", "from", "to", on_update, on_delete FROM pragma_foreign_key_list('${table.name}') ORDER BY "from"`,
  );
  const said = table.foreignKeys
    .flatMap((key) => {
      const { columns, foreignTable, foreignColumns } = key.reference();
      return columns.map((column, at) => ({
        table: getTableConfig(foreignTable).name,
        from: column.name,
        to: foreignColumns[at]?.name,
        on_update: (key.onUpdate ?? "no action").toUpperCase(),
        on_delete: (key.onDelete ?? "no action").toUpperCase(),
      }));
    })
    .toSorted((one, other) => one.from.localeCompare(other.from));
  expect(said).toEqual(made);
});

type MadeIndex = { name: string; unique: 0 | 1; origin: "c" | "u" | "pk"; partial: 0 | 1; sql: string | null };

async function indexesOf(table: string): Promise<(MadeIndex & { columns: string[] })[]> {
  const made = await rows<MadeIndex>(
    `SELECT l.name, l."unique", l.origin, l.partial, m.sql FROM pragma_index_list('${table}') AS l
       LEFT JOIN sqlite_master AS m ON m.type = 'index' AND m.name = l.name`,
  );
  return Promise.all(
    made.map(async (index) => {
      const columns = await rows<{ name: string }>(
        `SELECT name FROM pragma_index_info('${index.name}') ORDER BY seqno`,
      );
      return { ...index, columns: columns.map(({ name }) => name) };
    }),
  );
}

const byName = (one: { name: string }, other: { name: string }): number => one.name.localeCompare(other.name);

test.for(tables)("schema: $name has the indexes of the migrations, with columns, UNIQUE and WHERE", async (table) => {
  const made = (await indexesOf(table.name))
    .filter(({ origin }) => origin === "c")
    .map(({ name, unique, partial, columns, sql }) => ({
      name,
      unique: unique === 1,
      columns,
      where: partial === 0 ? null : squeezed(sql?.split(/\bWHERE\b/i)[1] ?? ""),
    }));
  const said = table.indexes.map(({ config }) => ({
    name: config.name,
    unique: config.unique,
    columns: config.columns.map((column) => (isColumn(column) ? column.name : "an expression")),
    where: config.where === undefined ? null : written(config.where),
  }));
  expect(said.toSorted(byName)).toEqual(made.toSorted(byName));
});

test.for(tables)("schema: $name has the UNIQUE columns of the migrations", async (table) => {
  const made = (await indexesOf(table.name))
    .filter(({ origin }) => origin === "u")
    .map(({ columns }) => columns.join());
  const said = [
    ...table.columns.filter(({ isUnique }) => isUnique).map(({ name }) => name),
    ...table.uniqueConstraints.map(({ columns }) => columns.map(({ name }) => name).join()),
  ];
  expect(said.toSorted()).toEqual(made.toSorted());
});
