/**
 * What an operator took from an agent or a service account by hand. It is remembered in the commit that takes it, so that
 * reconciliation, to which a grant that was taken looks like one that was lost, does not give it back.
 */
import { parseTuple, type Tuple } from "../engine/tuple.ts";

type Holder = { type: "agent" | "service_account"; id: string; columns: string[] };

/** Whose grant a tuple is, of those that stand by themselves (see grants.ts); null for any other tuple. */
function holderOf(tuple: Tuple): Holder | null {
  const parsed = parseTuple(tuple);
  if (!parsed.ok) return null;
  const { object, relation, subject } = parsed.value;
  const columns = [object.type, object.id, relation, subject.type, subject.id, subject.relation];
  const isSingle = subject.relation === "";
  if (object.type === "tenant" && relation === "member" && isSingle) {
    if (subject.type === "agent" || subject.type === "service_account")
      return { type: subject.type, id: subject.id, columns };
    return null;
  }
  if (object.type !== "agent") return null;
  if (relation === "tenant" || relation === "owner") return { type: "agent", id: object.id, columns };
  if (relation !== "executor" || !isSingle) return null;
  if (subject.type === "service_account") return { type: "service_account", id: subject.id, columns };
  return subject.type === "agent" && subject.id === object.id ? { type: "agent", id: object.id, columns } : null;
}

function holdersOf(tuples: readonly Tuple[]): string {
  const holders = tuples.map(holderOf).filter((holder) => holder !== null);
  return JSON.stringify(holders.map(({ type, id, columns }) => [type, id, ...columns]));
}

/** @returns the statement that remembers from whom a delete takes; it goes before the delete, and remembers only what stands */
export function takenStatement(db: D1Database, deletes: readonly Tuple[], nowMs: number): D1PreparedStatement {
  return db
    .prepare(
      `INSERT INTO grants_taken (subject_type, subject_id, taken_at_ms)
       SELECT DISTINCT value ->> 0, value ->> 1, ?2 FROM json_each(?1)
       WHERE EXISTS (SELECT 1 FROM relationships WHERE object_type = value ->> 2 AND object_id = value ->> 3
         AND relation = value ->> 4 AND subject_type = value ->> 5 AND subject_id = value ->> 6 AND subject_relation = value ->> 7)
       ON CONFLICT DO NOTHING`,
    )
    .bind(holdersOf(deletes), nowMs);
}

/** @returns the statement that forgets it for those who are given a grant; it goes after the deletes of the same call */
export function givenStatement(db: D1Database, writes: readonly Tuple[]): D1PreparedStatement {
  return db
    .prepare(
      `DELETE FROM grants_taken
       WHERE (subject_type, subject_id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))`,
    )
    .bind(holdersOf(writes));
}

/** @returns whether an operator took a grant from a subject, as an SQL expression. @param id an expression for its id */
export function isTaken(type: Holder["type"], id: string): string {
  return `EXISTS (SELECT 1 FROM grants_taken WHERE subject_type = '${type}' AND subject_id = ${id})`;
}
