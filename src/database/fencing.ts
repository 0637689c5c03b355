/**
 * Fencing tokens in D1: what has ended commits nothing any more. This file alone knows the tables `fence` and `authority_epochs`,
 * and the constraint `authority_is_current`, by which a batch is undone.
 */
import { type SQL, sql } from "drizzle-orm";
import { excluded, names } from "./columns.ts";
import { authorityEpochs, fence } from "./schema.ts";
import { query, type Statement } from "./statement.ts";

/** An authority at one moment: its name, e.g. `device:<did>/<deviceId>`, and its epoch, which rises when it ends. */
export type FencingToken = { readonly authority: string; readonly epoch: number };

/** Fencing tokens that one statement raises; as bound JSON they stay far below D1's 2 MB a value. */
const TOKENS_PER_STATEMENT = 5_000;

const { authority, epoch } = authorityEpochs;
const ON_CONFLICT = sql`ON CONFLICT (${names(authority)}) DO UPDATE SET ${names(epoch)} = MAX(${epoch}, ${excluded(epoch)})`;

/** The fence in D1: undoes its batch once any of the authorities has been raised above the epoch of its token. */
export function fenceStatement(tokens: readonly FencingToken[]): Statement<D1Result> {
  const begun = JSON.stringify(tokens.map((token) => [token.authority, token.epoch]));
  return query.insert(fence).select(
    sql`SELECT 0 FROM json_each(${begun}) AS begun LEFT JOIN ${authorityEpochs} ON ${authority} = begun.value ->> 0
      WHERE COALESCE(${epoch}, 0) > begun.value ->> 1 LIMIT 1`,
  );
}

/**
 * Whether an authority has been raised above an epoch, as an SQL condition.
 *
 * @param name an expression for the authority's name
 * @param begun an expression for the epoch
 */
export function isRaisedAbove(name: SQL, begun: SQL): SQL {
  return sql`EXISTS (SELECT 1 FROM ${authorityEpochs} WHERE ${authority} = ${name} AND ${epoch} > ${begun})`;
}

/**
 * Raises authorities to the epochs of their tokens; never lowers one, and writes nothing for one that is there already.
 *
 * @returns one statement, or a few for more authorities than one takes
 */
export function raiseStatements(tokens: readonly FencingToken[]): Statement<D1Result>[] {
  const statements: Statement<D1Result>[] = [];
  for (let start = 0; start < tokens.length; start += TOKENS_PER_STATEMENT) {
    const some = tokens.slice(start, start + TOKENS_PER_STATEMENT).map((token) => [token.authority, token.epoch]);
    statements.push(raise(sql`SELECT value ->> 0, value ->> 1 FROM json_each(${JSON.stringify(some)}) WHERE TRUE`));
  }
  return statements;
}

/**
 * The same for authorities that D1 knows best itself.
 *
 * @param authorities a SELECT of two columns, authority and epoch, with a WHERE (SQLite takes ON for a join without one)
 */
export function raiseForStatement(authorities: SQL): Statement<D1Result> {
  return raise(authorities);
}

function raise(authorities: SQL): Statement<D1Result> {
  const raised = sql`SELECT raised.authority, raised.epoch FROM raised WHERE NOT EXISTS
    (SELECT 1 FROM ${authorityEpochs} AS held WHERE held.authority = raised.authority AND held.epoch >= raised.epoch)`;
  return query.run(
    sql`INSERT INTO ${authorityEpochs} (${names(authority, epoch)})
      WITH raised (authority, epoch) AS (${authorities}) ${raised} ${ON_CONFLICT}`,
  );
}

/** @returns whether D1 undid a batch because its fence found the authority ended */
export function isFenceFailure(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.message.includes("authority_is_current");
}
