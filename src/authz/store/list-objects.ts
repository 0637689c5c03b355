/** Lists: candidates are found from the subject, page by page, and each is checked before it is listed. */
import { err, ok, type Result } from "../../wire/result.ts";
import {
  type filterAllowed,
  isTooComplex,
  type ListObjectsRequest,
  tooComplex,
  withContext,
  type AuthzError,
  type CheckRequest,
} from "../engine/check.ts";
import type { Model } from "../engine/model.ts";
import { formatObject } from "../engine/tuple.ts";
import { indexTuples, type TupleIndex } from "../engine/tuple-index.ts";
import type { Budget } from "./budget.ts";
import type { GraphRow } from "./queries.ts";
import { contextRoots, reverseSeeds, subjectKindOf, subjectParts } from "./roots.ts";
import { MAX_NODES, MAX_TUPLES, readRows, type ReadRows } from "./rows.ts";
import type { Statements } from "./statements.ts";
import type { TupleStore } from "./tuples.ts";

/** The most objects one page of a list holds. */
export const MAX_PAGE = 1_000;
/** How often a page goes on looking when candidates turn out not to be allowed. */
const MAX_ROUNDS = 8;
/** By how much fewer candidates are tried, where so many are too complex together; and by how much more, where they were not. */
const PART_SHRINKS_BY = 16;
const PART_GROWS_BY = 4;

/** One page of a list: `nextCursor`, where there may be more, is the id after which to go on. */
export type ObjectPage = { objects: string[]; nextCursor?: string };

/** Reads what checks of some objects of one type depend on. */
export type LoadTuples = (
  db: TupleStore,
  request: Pick<CheckRequest, "subject" | "relation" | "contextualTuples">,
  objects: readonly [string, ...string[]],
  budget: Budget,
) => Promise<Result<TupleIndex, AuthzError>>;

/** What a list works with. */
export type ListDeps = {
  model: Model;
  statements: Statements;
  store: TupleStore;
  load: LoadTuples;
  filter: typeof filterAllowed;
};

type Page = { limit?: number; cursor?: string; lenient?: boolean; budget: Budget };
/** Those that are allowed, and how many of the first candidates were decided. */
type Filtered = { allowed: string[]; decided: number };

/** @returns one page, or why nothing can be said: see `Graph.listObjects` */
export async function listPage(
  deps: ListDeps,
  request: ListObjectsRequest,
  page: Page,
): Promise<Result<ObjectPage, AuthzError>> {
  const limit = Math.min(page.limit ?? MAX_PAGE, MAX_PAGE);
  const find = createFinder(deps, request, limit);
  const objects: string[] = [];
  let cursor = page.cursor ?? "";
  let isAnyDecided = false;
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    if (!page.budget.isLeft()) return isAnyDecided ? ok({ objects, nextCursor: cursor }) : err(page.budget.exceeded());
    // oxlint-disable-next-line no-await-in-loop -- each round goes on where the last one ended
    const found = await find.after(cursor, page.budget);
    if (found.rows.reached >= MAX_NODES) return err(tooComplex("its subject leads to too many objects"));
    // oxlint-disable-next-line no-await-in-loop -- the same
    const filtered = await filterCandidates(deps, request, found, page);
    if (!filtered.ok) return filtered;
    const { allowed, decided } = filtered.value;
    if (decided < found.candidates.length && decided === 0 && !isAnyDecided) return err(page.budget.exceeded());
    isAnyDecided = true;
    objects.push(...allowed);
    if (objects.length > limit) return ok(pageOf(objects.slice(0, limit)));
    const isCut = find.isFull(found) || decided < found.candidates.length;
    cursor = (isCut ? found.rows.candidates[decided - 1] : found.rows.lastNamed) ?? cursor;
    if (decided < found.candidates.length) break;
    if (!isCut && !find.isNamedFull(found)) return ok({ objects });
  }
  return ok({ objects, nextCursor: cursor });
}

/** The next candidates, and what their checks depend on. */
type Found = { rows: ReadRows; candidates: readonly string[] };

type Finder = {
  after(cursor: string, budget: Budget): Promise<Found>;
  /** Whether there may be more candidates than were found, and more tuples that name one. */
  isFull(found: Found): boolean;
  isNamedFull(found: Found): boolean;
};

function createFinder({ model, statements, store }: ListDeps, request: ListObjectsRequest, limit: number): Finder {
  const context = contextRoots(model, request.contextualTuples);
  const text = statements.textOf({
    kind: "list",
    type: request.type,
    relation: request.relation,
    subjectKind: subjectKindOf(request.subject),
    context: context?.kinds ?? null,
  });
  const roots = JSON.stringify(context?.roots ?? []);
  const seeds = JSON.stringify(reverseSeeds(model, request));
  // A few more than asked for, so that single refusals do not cost another round trip.
  const candidateCount = limit + Math.min(limit, 20) + 1;
  // An object is often named twice: by its owner and by its parent.
  const namedCount = 3 * candidateCount;
  const subject = subjectParts(request.subject);
  return {
    async after(cursor, budget) {
      const values = [roots, ...subject, MAX_NODES, MAX_TUPLES + 1, seeds, cursor, candidateCount, namedCount];
      const rows = readRows(
        await store
          .prepare(text)
          .bind(...values)
          .raw<GraphRow>(),
      );
      budget.spend(rows.entries);
      return { rows, candidates: rows.candidates.map((id) => formatObject(request.type, id)) };
    },
    isFull: ({ candidates }) => candidates.length >= candidateCount,
    isNamedFull: ({ rows }) => rows.named >= namedCount,
  };
}

/** Checks candidates: all of them at once by what was read with them, or in parts where that is too complex. */
async function filterCandidates(
  deps: ListDeps,
  request: ListObjectsRequest,
  { rows, candidates }: Found,
  page: Page,
): Promise<Result<Filtered, AuthzError>> {
  if (rows.problem === null) {
    const tuples = withContext(deps.model, indexTuples(deps.model, rows.tuples), request.contextualTuples);
    const atOnce = deps.filter(deps.model, tuples, request.subject, request.relation, candidates);
    if (atOnce.ok) return ok({ allowed: atOnce.value, decided: candidates.length });
    if (!isTooComplex(atOnce.error)) return atOnce;
  }
  return filterInParts(deps, request, candidates, page);
}

/** Checks candidates in parts, each as large as can be decided at once, as far as the budget goes. */
async function filterInParts(
  { model, store, load, filter }: ListDeps,
  request: ListObjectsRequest,
  candidates: readonly string[],
  { budget, lenient = false }: Page,
): Promise<Result<Filtered, AuthzError>> {
  const allowed: string[] = [];
  let decided = 0;
  let size = Math.ceil(candidates.length / PART_SHRINKS_BY);
  while (decided < candidates.length && budget.isLeft()) {
    const [first, ...rest] = candidates.slice(decided, decided + size);
    if (first === undefined) break;
    const part: [string, ...string[]] = [first, ...rest];
    // oxlint-disable-next-line no-await-in-loop -- how large the next part may be is known by this one
    const tuples = await load(store, request, part, budget);
    const found = tuples.ok ? filter(model, tuples.value, request.subject, request.relation, part) : tuples;
    if (!found.ok) {
      if (!isTooComplex(found.error)) return found;
      if (rest.length > 0) {
        size = Math.ceil(part.length / PART_SHRINKS_BY);
        continue;
      }
      if (!lenient) return found;
    } else allowed.push(...found.value);
    decided += part.length;
    size *= PART_GROWS_BY;
  }
  return ok({ allowed, decided });
}

function pageOf(objects: string[]): ObjectPage {
  const last = objects.at(-1);
  return last === undefined ? { objects } : { objects, nextCursor: last.slice(last.indexOf(":") + 1) };
}
