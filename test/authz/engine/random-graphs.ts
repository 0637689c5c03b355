/** Small random models, tuples and questions, and an evaluator that knows nothing of the engine's way of working. */
import * as fc from "fast-check";
import type { ModelDocument, RewriteDocument, TypeRestriction } from "../../../src/authz/engine/model.ts";
import type { Tuple } from "../../../src/authz/engine/tuple.ts";

export type RandomCase = {
  document: ModelDocument;
  tuples: Tuple[];
  contextual: Tuple[];
  subject: string;
};

const TYPES = ["team", "doc"] as const;
const RELATIONS = ["a", "b", "c"] as const;
const IDS = ["1", "2", "3"] as const;
/** `up` is every type's tupleset: direct and of plain objects. 2 types × 3 objects × 4 relations stay above depth 25. */
const TUPLESET = "up";

const restriction: fc.Arbitrary<TypeRestriction> = fc.oneof(
  { weight: 4, arbitrary: fc.constant({ type: "user" }) },
  { weight: 2, arbitrary: fc.constant({ type: "user", wildcard: {} }) },
  {
    weight: 3,
    arbitrary: fc.record({ type: fc.constantFrom(...TYPES), relation: fc.constantFrom(...RELATIONS) }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constantFrom(...TYPES) }) },
);

const rewrite: fc.Arbitrary<RewriteDocument> = fc.letrec<{ node: RewriteDocument; leaf: RewriteDocument }>((tie) => ({
  leaf: fc.oneof(
    { weight: 8, arbitrary: fc.constant({ this: {} }) },
    { weight: 2, arbitrary: fc.record({ computedUserset: fc.record({ relation: fc.constantFrom(...RELATIONS) }) }) },
    {
      weight: 2,
      arbitrary: fc.record({
        tupleToUserset: fc.record({
          tupleset: fc.constant({ relation: TUPLESET }),
          computedUserset: fc.record({ relation: fc.constantFrom(...RELATIONS) }),
        }),
      }),
    },
  ),
  node: fc.oneof(
    { maxDepth: 2, depthIdentifier: "rewrite" },
    tie("leaf"),
    fc.record({ union: fc.record({ child: fc.array(tie("node"), { minLength: 1, maxLength: 3 }) }) }),
    fc.record({ intersection: fc.record({ child: fc.array(tie("node"), { minLength: 1, maxLength: 3 }) }) }),
    fc.record({ difference: fc.record({ base: tie("node"), subtract: tie("node") }) }),
  ),
})).node;

const model: fc.Arbitrary<ModelDocument> = fc
  .array(fc.record({ rewrite, subjects: fc.array(restriction, { minLength: 2, maxLength: 5 }) }), {
    minLength: TYPES.length * RELATIONS.length,
    maxLength: TYPES.length * RELATIONS.length,
  })
  .map((bodies) => ({
    schema_version: "1.1",
    type_definitions: [
      { type: "user", relations: {}, metadata: null },
      ...TYPES.map((type, typeIndex) => {
        const relations: Record<string, RewriteDocument> = { [TUPLESET]: { this: {} } };
        const metadata: Record<string, { directly_related_user_types: TypeRestriction[] }> = {
          [TUPLESET]: { directly_related_user_types: TYPES.map((parent) => ({ type: parent })) },
        };
        for (const [index, relation] of RELATIONS.entries()) {
          const body = bodies[typeIndex * RELATIONS.length + index];
          if (body === undefined) throw new Error("one body for each relation");
          relations[relation] = body.rewrite;
          metadata[relation] = { directly_related_user_types: body.subjects };
        }
        return { type, relations, metadata: { relations: metadata } };
      }),
    ],
  }));

const object = fc.tuple(fc.constantFrom(...TYPES), fc.constantFrom(...IDS)).map(([type, id]) => `${type}:${id}`);
const userset = fc.tuple(object, fc.constantFrom(...RELATIONS)).map(([of, relation]) => `${of}#${relation}`);
const anySubject = fc.oneof(fc.constantFrom("user:ann", "user:bob"), fc.constantFrom("user:*"), object, userset);

const person = fc.constantFrom("user:ann", "user:ann", "user:*");

/** Some of these the model does not allow: they have to be ignored. */
const tuple: fc.Arbitrary<Tuple> = fc.oneof(
  { weight: 1, arbitrary: fc.record({ object, relation: fc.constantFrom(...RELATIONS), subject: anySubject }) },
  { weight: 3, arbitrary: fc.record({ object, relation: fc.constantFrom(...RELATIONS), subject: userset }) },
  { weight: 3, arbitrary: fc.record({ object, relation: fc.constantFrom(...RELATIONS), subject: person }) },
  { weight: 2, arbitrary: fc.record({ object, relation: fc.constant(TUPLESET), subject: object }) },
);

export const randomCase: fc.Arbitrary<RandomCase> = fc.record({
  document: model,
  tuples: fc.array(tuple, { minLength: 4, maxLength: 36, size: "max" }),
  contextual: fc.array(tuple, { maxLength: 3 }),
  subject: fc.oneof({ weight: 4, arbitrary: fc.constant("user:ann") }, { weight: 1, arbitrary: anySubject }),
});

/** Every question that can be asked of a case. */
export function questionsOf(): { object: string; relation: string }[] {
  return TYPES.flatMap((type) =>
    IDS.flatMap((id) => RELATIONS.map((relation) => ({ object: `${type}:${id}`, relation }))),
  );
}

export const RANDOM_TYPES = TYPES;
export const RANDOM_RELATIONS = RELATIONS;

/**
 * Every `object#relation` to which the subject is related, by brute force over the whole universe: guess the set of grants,
 * recompute it from the document until it holds still, once assuming the most of exclusions and once the least, until
 * neither changes. Works on the document itself, tuple by tuple.
 */
export function naiveGrants(document: ModelDocument, tuples: readonly Tuple[], subject: string): Set<string> {
  const allowed = tuples.filter((candidate) => naivelyAllowed(document, candidate));
  let certain = new Set<string>();
  for (;;) {
    const possible = grow(document, allowed, subject, certain);
    const next = grow(document, allowed, subject, possible);
    if (next.size === certain.size) return next;
    certain = next;
  }
}

function grow(
  document: ModelDocument,
  tuples: readonly Tuple[],
  subject: string,
  excluded: ReadonlySet<string>,
): Set<string> {
  const grants = new Set<string>();
  for (let before = -1; before !== grants.size;) {
    before = grants.size;
    for (const definition of document.type_definitions) {
      for (const id of IDS) {
        for (const [relation, body] of Object.entries(definition.relations ?? {})) {
          const of = `${definition.type}:${id}`;
          const key = `${of}#${relation}`;
          const node = { of, relation, tuples, subject };
          for (const [path, exclusion] of exclusionsIn(body, "")) {
            if (
              holds(exclusion.base, node, `${path}b`, grants) &&
              !holds(exclusion.subtract, node, `${path}s`, excluded)
            ) {
              grants.add(`${key} ${path}`);
            }
          }
          if (key === subject || holds(body, node, "", grants)) grants.add(key);
        }
      }
    }
  }
  return grants;
}

type Node = { of: string; relation: string; tuples: readonly Tuple[]; subject: string };

/** An exclusion is a statement of its own, named by its place, whether the model writes it inline or as a relation. */
function* exclusionsIn(
  body: RewriteDocument,
  path: string,
): Generator<[path: string, exclusion: { base: RewriteDocument; subtract: RewriteDocument }]> {
  for (const [index, child] of (body.union ?? body.intersection)?.child.entries() ?? []) {
    yield* exclusionsIn(child, `${path}${index}`);
  }
  if (body.difference === undefined) return;
  yield [path, body.difference];
  yield* exclusionsIn(body.difference.base, `${path}b`);
  yield* exclusionsIn(body.difference.subtract, `${path}s`);
}

function holds(body: RewriteDocument, node: Node, path: string, grants: ReadonlySet<string>): boolean {
  const { of, relation, tuples, subject } = node;
  if (body.this !== undefined) {
    const everyone = subject.includes("#") ? subject : `${subject.split(":")[0] ?? ""}:*`;
    return tuples.some(
      (candidate) =>
        candidate.object === of &&
        candidate.relation === relation &&
        (candidate.subject === subject || candidate.subject === everyone || grants.has(candidate.subject)),
    );
  }
  if (body.computedUserset !== undefined) return grants.has(`${of}#${body.computedUserset.relation}`);
  if (body.tupleToUserset !== undefined) {
    const { tupleset, computedUserset } = body.tupleToUserset;
    return tuples.some(
      (candidate) =>
        candidate.object === of &&
        candidate.relation === tupleset.relation &&
        grants.has(`${candidate.subject}#${computedUserset.relation}`),
    );
  }
  if (body.union !== undefined) {
    return body.union.child.some((child, index) => holds(child, node, `${path}${index}`, grants));
  }
  if (body.intersection !== undefined) {
    return body.intersection.child.every((child, index) => holds(child, node, `${path}${index}`, grants));
  }
  return grants.has(`${of}#${relation} ${path}`);
}

function naivelyAllowed(document: ModelDocument, candidate: Tuple): boolean {
  const [type] = candidate.object.split(":");
  const definition = document.type_definitions.find((known) => known.type === type);
  const restrictions = definition?.metadata?.relations?.[candidate.relation]?.directly_related_user_types ?? [];
  const [entity = "", relation] = candidate.subject.split("#");
  const [subjectType, id] = entity.split(":");
  return restrictions.some((allowed) => {
    if (allowed.type !== subjectType) return false;
    if (allowed.wildcard !== undefined) return id === "*" && relation === undefined;
    return allowed.relation === relation && id !== "*";
  });
}
