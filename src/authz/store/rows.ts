/** What the statements of the graph return, and when that is more than one statement may follow. */
import { tooComplex, type AuthzError } from "../engine/check.ts";
import { formatObject, formatSubject, type Tuple } from "../engine/tuple.ts";
import type { GraphRow } from "./queries.ts";

/** The most `object#relation` nodes one statement follows, and the most tuples it returns; beyond either it is an error. */
export const MAX_NODES = 20_000;
export const MAX_TUPLES = 50_000;

export type ReadRows = {
  tuples: Tuple[];
  /** Ids. */
  candidates: string[];
  /** How many tuples named a candidate, how many nodes were reached on the way to them, and the last id named. */
  named: number;
  reached: number;
  lastNamed: string | null;
  /** Everything that was followed, reached, named or returned: what the statement counts for in a budget. */
  entries: number;
  /** Why `tuples` are not all that the checks depend on, or null. */
  problem: AuthzError | null;
};

/** Takes the rows of one statement apart. */
export function readRows(rows: readonly GraphRow[]): ReadRows {
  const tuples: Tuple[] = [];
  const candidates: string[] = [];
  const counted = { n: 0, m: 0, r: 0 };
  let lastNamed: string | null = null;
  for (const [kind, objectType, objectId, relation, subjectType, subjectId, subjectRelation] of rows) {
    if (kind === "c") {
      candidates.push(String(objectId));
    } else if (kind !== "t") {
      counted[kind] = Number(objectId);
      if (kind === "m") lastNamed = relation;
    } else if (objectType !== null && relation !== null && subjectType !== null && subjectId !== null) {
      tuples.push({
        object: formatObject(objectType, String(objectId)),
        relation,
        subject: formatSubject({ type: subjectType, id: subjectId, relation: subjectRelation ?? "" }),
      });
    }
  }
  return {
    tuples,
    candidates,
    named: counted.m,
    reached: counted.r,
    lastNamed,
    entries: counted.n + counted.m + counted.r + tuples.length,
    problem: problemOf(counted.n, tuples.length),
  };
}

function problemOf(nodes: number, tuples: number): AuthzError | null {
  if (nodes >= MAX_NODES) return tooComplex("it leads to too many objects");
  return tuples >= MAX_TUPLES ? tooComplex("it depends on too many tuples") : null;
}
