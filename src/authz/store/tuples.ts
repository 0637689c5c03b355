/** The relationship tuples in D1: statements to write and delete them in anybody's batch, and a paged read. */
import { type Undone, violates } from "../../database/batch.ts";
import { relationships } from "../../database/schema.ts";
import { decodeBase64Url, encodeBase64Url } from "../../wire/base64url.ts";
import { err, ok, type Result } from "../../wire/result.ts";
import { validateTuple, type Model } from "../engine/model.ts";
import { SALLYPORT_MODEL } from "./sallyport-model.ts";
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

/** What a D1 read needs: the database itself, or a session that fixes how fresh the answer must be. */
export type TupleStore = Pick<D1Database, "prepare">;

/** Tuples in one statement; a bound parameter holds 2 MB, a tuple at most about 1 KB. */
const TUPLES_PER_STATEMENT = 1_000;

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
  db: TupleStore,
  tuples: readonly Tuple[],
  options: { nowMs: number; model?: Model },
): D1PreparedStatement[] {
  const model = options.model ?? SALLYPORT_MODEL;
  for (const tuple of tuples) {
    const valid = validateTuple(model, tuple);
    if (!valid.ok) throw new TupleNotAllowed(`${formatTuple(tuple)}: ${valid.error}`);
  }
  return chunksOf(tuples).map((columns) =>
    db
      .prepare(
        `INSERT INTO relationships
           (object_type, object_id, relation, subject_type, subject_id, subject_relation, created_at_ms)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, ?2 FROM json_each(?1)
         WHERE true
         ON CONFLICT (object_type, object_id, relation, subject_type, subject_id, subject_relation) DO NOTHING`,
      )
      .bind(columns, options.nowMs),
  );
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
export function deleteTuples(db: TupleStore, tuples: readonly Tuple[]): D1PreparedStatement[] {
  return chunksOf(tuples).map((columns) =>
    db
      .prepare(
        `DELETE FROM relationships
         WHERE (object_type, object_id, relation, subject_type, subject_id, subject_relation) IN
           (SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?1))`,
      )
      .bind(columns),
  );
}

/**
 * Statements that delete every tuple in which an object stands, as object and as subject: what is deleted leaves no grant
 * behind that a later object of the same name could inherit.
 */
export function deleteTuplesOf(db: TupleStore, object: string): D1PreparedStatement[] {
  const parsed = parseObject(object);
  if (!parsed.ok) throw new TupleNotAllowed(`${object}: ${parsed.error}`);
  const { type, id } = parsed.value;
  return [
    db.prepare("DELETE FROM relationships WHERE object_type = ?1 AND object_id = ?2").bind(type, id),
    db.prepare("DELETE FROM relationships WHERE subject_type = ?1 AND subject_id = ?2").bind(type, id),
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
  const conditions: string[] = [];
  const values: (string | number)[] = [];
  const where = (column: string, value: string): void => {
    values.push(value);
    conditions.push(`${column} = ?${values.length}`);
  };
  const problem = filterConditions(filter, where);
  if (problem !== null) return err(problem);
  if (page.cursor !== undefined) {
    const after = parseCursor(page.cursor);
    if (after === null) return err("the cursor is malformed");
    const first = values.length + 1;
    values.push(...after);
    conditions.push(`(${KEY_COLUMNS}) > (${after.map((_, index) => `?${first + index}`).join(", ")})`);
  }
  values.push(page.limit + 1);
  const clause = conditions.length === 0 ? "" : `WHERE ${conditions.join(" AND ")}`;
  const { results } = await db
    .prepare(`SELECT ${KEY_COLUMNS} FROM relationships ${clause} ORDER BY ${KEY_COLUMNS} LIMIT ?${values.length}`)
    .bind(...values)
    .all<TupleRow>();
  const rows = results.slice(0, page.limit);
  const last = rows.at(-1);
  const tuples = rows.map(tupleOfRow);
  return ok(
    results.length > page.limit && last !== undefined ? { tuples, nextCursor: formatCursor(last) } : { tuples },
  );
}

export type TupleRow = {
  object_type: string;
  object_id: string;
  relation: string;
  subject_type: string;
  subject_id: string;
  subject_relation: string;
};

/** A row of `relationships` as a tuple. */
export function tupleOfRow(row: TupleRow): Tuple {
  return {
    object: formatObject(row.object_type, row.object_id),
    relation: row.relation,
    subject: formatSubject({ type: row.subject_type, id: row.subject_id, relation: row.subject_relation }),
  };
}

const KEY_COLUMNS = "object_type, object_id, relation, subject_type, subject_id, subject_relation";

function filterConditions(filter: TupleFilter, where: (column: string, value: string) => void): string | null {
  if (filter.object !== undefined) {
    const problem = typedCondition("object", filter.object, where);
    if (problem !== null) return problem;
  }
  if (filter.relation !== undefined) {
    const relation = parseRelation(filter.relation);
    if (!relation.ok) return relation.error;
    where("relation", relation.value);
  }
  return filter.subject === undefined ? null : typedCondition("subject", filter.subject, where);
}

function typedCondition(
  side: "object" | "subject",
  text: string,
  where: (column: string, value: string) => void,
): string | null {
  if (text.endsWith(":") && text.indexOf(":") === text.length - 1) {
    const type = parseTypeName(text.slice(0, -1));
    if (!type.ok) return type.error;
    where(`${side}_type`, type.value);
    return null;
  }
  if (side === "object") {
    const object = parseObject(text);
    if (!object.ok) return object.error;
    where("object_type", object.value.type);
    where("object_id", object.value.id);
    return null;
  }
  const subject = parseSubject(text);
  if (!subject.ok) return subject.error;
  where("subject_type", subject.value.type);
  where("subject_id", subject.value.id);
  where("subject_relation", subject.value.relation);
  return null;
}

function chunksOf(tuples: readonly Tuple[]): string[] {
  const chunks: string[] = [];
  for (let start = 0; start < tuples.length; start += TUPLES_PER_STATEMENT) {
    chunks.push(JSON.stringify(tuples.slice(start, start + TUPLES_PER_STATEMENT).map(columnsOf)));
  }
  return chunks;
}

function columnsOf(tuple: Tuple): string[] {
  const parsed = parseTuple(tuple);
  if (!parsed.ok) throw new TupleNotAllowed(`${formatTuple(tuple)}: ${parsed.error}`);
  const { object, relation, subject } = parsed.value;
  return [object.type, object.id, relation, subject.type, subject.id, subject.relation];
}

/** A cursor is the last tuple's key. It grants nothing: it only says where to go on. */
function formatCursor(row: TupleRow): string {
  const key = [row.object_type, row.object_id, row.relation, row.subject_type, row.subject_id, row.subject_relation];
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
