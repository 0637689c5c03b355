/** The relationship tuples in D1: statements to write and delete them in anybody's batch, and a paged read. */
import { and, asc, eq, type SQL, sql } from "drizzle-orm";
import type { SQLiteColumn } from "drizzle-orm/sqlite-core";
import { type Undone, violates } from "../../database/batch.ts";
import { names } from "../../database/columns.ts";
import { readAll } from "../../database/read.ts";
import { relationships } from "../../database/schema.ts";
import { query, type Statement, type Store } from "../../database/statement.ts";
import { decodeBase64Url, encodeBase64Url } from "../../wire/base64url.ts";
import { err, ok, type Result } from "../../wire/result.ts";
import { validateTuple, type Model } from "../engine/model.ts";
import {
  formatObject,
  formatSubject,
  formatTuple,
  parseObject,
  parseRelation,
  parseSubject,
  parseTuple,
  parseTypeName,
  type Tuple,
} from "../engine/tuple.ts";
import { SALLYPORT_MODEL } from "./sallyport-model.ts";

/** What a D1 read needs: the database itself, or a session that fixes how fresh the answer must be. */
export type TupleStore = Store;

/** Tuples in one statement; a bound parameter holds 2 MB, a tuple at most about 1 KB. */
const TUPLES_PER_STATEMENT = 1_000;

/** The tuple itself, in the order of {@link columnsOf}. */
export const TUPLE_KEY = [
  relationships.objectType,
  relationships.objectId,
  relationships.relation,
  relationships.subjectType,
  relationships.subjectId,
  relationships.subjectRelation,
] as const;
const KEY_NAMES = names(...TUPLE_KEY);
/** The tuple in a row of `json_each`, as {@link columnsOf} lays it out. */
export const TUPLE_OF_JSON = sql.raw("value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5");

/** A tuple that the model does not allow was about to be written: a caller's mistake, since input is validated before. */
export class TupleNotAllowed extends Error {
  override readonly name = "TupleNotAllowed";
}

/**
 * Statements that write tuples, for a batch together with the row they speak of. A tuple that stands already stays as it is.
 *
 * @throws TupleNotAllowed when the model refuses one; nothing is written then
 */
export function writeTuples(
  tuples: readonly Tuple[],
  { nowMs, model = SALLYPORT_MODEL }: { nowMs: number; model?: Model },
): Statement<D1Result>[] {
  assertAllowed(tuples, model);
  return chunksOf(tuples).map((chunk) =>
    query
      .insert(relationships)
      .select(sql`SELECT ${TUPLE_OF_JSON}, ${nowMs} FROM json_each(${chunk}) WHERE TRUE`)
      .onConflictDoNothing({ target: [...TUPLE_KEY] }),
  );
}

/** @throws TupleNotAllowed when the model refuses one of the tuples */
export function assertAllowed(tuples: readonly Tuple[], model: Model = SALLYPORT_MODEL): void {
  for (const tuple of tuples) {
    const valid = validateTuple(model, tuple);
    if (!valid.ok) throw new TupleNotAllowed(`${formatTuple(tuple)}: ${valid.error}`);
  }
}

/** @returns whether a batch was undone because a tuple would have put an object into a second tenant */
export function isSecondTenant(undone: Undone): boolean {
  return violates(undone, relationships.objectType, relationships.objectId);
}

/**
 * Statements that delete tuples; one that does not stand is no error. Also deletes what the model does not know any more.
 *
 * @throws TupleNotAllowed when one is not a tuple at all
 */
export function deleteTuples(tuples: readonly Tuple[]): Statement<D1Result>[] {
  return chunksOf(tuples).map((chunk) =>
    query.delete(relationships).where(sql`(${KEY_NAMES}) IN (SELECT ${TUPLE_OF_JSON} FROM json_each(${chunk}))`),
  );
}

/**
 * Statements that delete every tuple in which an object stands, as object and as subject: what is deleted leaves no grant
 * behind that a later object of the same name could inherit.
 *
 * @throws TupleNotAllowed for what is no object
 */
export function deleteTuplesOf(object: string): Statement<D1Result>[] {
  const parsed = parseObject(object);
  if (!parsed.ok) throw new TupleNotAllowed(`${object}: ${parsed.error}`);
  const { type, id } = parsed.value;
  const { objectType, objectId, subjectType, subjectId } = relationships;
  return [
    query.delete(relationships).where(and(eq(objectType, type), eq(objectId, id))),
    query.delete(relationships).where(and(eq(subjectType, type), eq(subjectId, id))),
  ];
}

/** Which tuples to read: an object may be `type:` or `type:id`, a subject `type:` or a whole subject. */
export type TupleFilter = { object?: string; relation?: string; subject?: string };

/**
 * Reads stored tuples, those of an older model included, in the order of their text.
 *
 * @param page `limit` tuples after `cursor`, which is a `nextCursor` of an earlier page
 * @returns a page, or what is wrong with the filter or the cursor
 */
export async function readTuples(
  db: TupleStore,
  filter: TupleFilter,
  page: { limit: number; cursor?: string },
): Promise<Result<{ tuples: Tuple[]; nextCursor?: string }, string>> {
  const conditions: SQL[] = [];
  const where: Where = (column, value) => void conditions.push(eq(column, value));
  const problem = filterConditions(filter, where);
  if (problem !== null) return err(problem);
  if (page.cursor !== undefined) {
    const after = parseCursor(page.cursor);
    if (after === null) return err("the cursor is malformed");
    conditions.push(
      sql`(${KEY_NAMES}) > (${sql.join(
        after.map((part) => sql`${part}`),
        sql`, `,
      )})`,
    );
  }
  const select = query
    .select()
    .from(relationships)
    .where(and(...conditions))
    .orderBy(...TUPLE_KEY.map((column) => asc(column)))
    .limit(page.limit + 1);
  const found = await readAll(db, select);
  const rows = found.slice(0, page.limit);
  const last = rows.at(-1);
  const tuples = rows.map(tupleOfRow);
  return ok(found.length > page.limit && last !== undefined ? { tuples, nextCursor: formatCursor(last) } : { tuples });
}

type TupleRow = Omit<typeof relationships.$inferSelect, "createdAtMs">;

function tupleOfRow(row: TupleRow): Tuple {
  return {
    object: formatObject(row.objectType, row.objectId),
    relation: row.relation,
    subject: formatSubject({ type: row.subjectType, id: row.subjectId, relation: row.subjectRelation }),
  };
}

/** Adds a condition. */
type Where = (column: SQLiteColumn, value: string) => void;

function filterConditions(filter: TupleFilter, where: Where): string | null {
  if (filter.object !== undefined) {
    const problem = typedCondition("object", filter.object, where);
    if (problem !== null) return problem;
  }
  if (filter.relation !== undefined) {
    const relation = parseRelation(filter.relation);
    if (!relation.ok) return relation.error;
    where(relationships.relation, relation.value);
  }
  return filter.subject === undefined ? null : typedCondition("subject", filter.subject, where);
}

function typedCondition(side: "object" | "subject", text: string, where: Where): string | null {
  if (text.endsWith(":") && text.indexOf(":") === text.length - 1) {
    const type = parseTypeName(text.slice(0, -1));
    if (!type.ok) return type.error;
    where(side === "object" ? relationships.objectType : relationships.subjectType, type.value);
    return null;
  }
  if (side === "object") {
    const object = parseObject(text);
    if (!object.ok) return object.error;
    where(relationships.objectType, object.value.type);
    where(relationships.objectId, object.value.id);
    return null;
  }
  const subject = parseSubject(text);
  if (!subject.ok) return subject.error;
  where(relationships.subjectType, subject.value.type);
  where(relationships.subjectId, subject.value.id);
  where(relationships.subjectRelation, subject.value.relation);
  return null;
}

function chunksOf(tuples: readonly Tuple[]): string[] {
  const chunks: string[] = [];
  for (let start = 0; start < tuples.length; start += TUPLES_PER_STATEMENT) {
    chunks.push(JSON.stringify(tuples.slice(start, start + TUPLES_PER_STATEMENT).map(columnsOf)));
  }
  return chunks;
}

/**
 * @returns a tuple's six parts, in the order of the table
 * @throws TupleNotAllowed when it is not a tuple at all
 */
export function columnsOf(tuple: Tuple): string[] {
  const parsed = parseTuple(tuple);
  if (!parsed.ok) throw new TupleNotAllowed(`${formatTuple(tuple)}: ${parsed.error}`);
  const { object, relation, subject } = parsed.value;
  return [object.type, object.id, relation, subject.type, subject.id, subject.relation];
}

/** A cursor is the last tuple's key. It grants nothing: it only says where to go on. */
function formatCursor(row: TupleRow): string {
  const key = [row.objectType, row.objectId, row.relation, row.subjectType, row.subjectId, row.subjectRelation];
  return encodeBase64Url(new TextEncoder().encode(JSON.stringify(key)));
}

function parseCursor(cursor: string): string[] | null {
  const bytes = decodeBase64Url(cursor);
  if (bytes === null) return null;
  let key: unknown;
  try {
    key = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
  if (!Array.isArray(key) || key.length !== 6) return null;
  const parts = key.filter((part): part is string => typeof part === "string");
  return parts.length === 6 ? parts : null;
}
