/** Where a question begins: the nodes of what it asks, of its contextual tuples, and of a userset that asks. */
import type { ListObjectsRequest } from "../engine/check.ts";
import { type NodeKind, relationsFrom, reversePlan } from "../engine/expansion.ts";
import type { Model } from "../engine/model.ts";
import { parseSubject, WILDCARD, type Tuple } from "../engine/tuple.ts";
import { typeOf } from "../engine/tuple-index.ts";

export type NodeKey = [type: string, id: string, relation: string];

/** @returns where contextual tuples lead, whether or not the question does: reading too much changes no answer; null without any */
export function contextRoots(
  model: Model,
  contextual: readonly Tuple[] | undefined,
): { roots: NodeKey[]; kinds: NodeKind[] } | null {
  if (contextual === undefined || contextual.length === 0) return null;
  const roots = contextual.flatMap((tuple): NodeKey[] => {
    const [type, id, relation] = subjectParts(tuple.subject);
    if (relation !== "") return [[type, id, relation]];
    if (id === WILDCARD) return [];
    return relationsFrom(model, typeOf(tuple.object), tuple.relation).map((next): NodeKey => [type, id, next]);
  });
  return { roots, kinds: roots.map(([type, , relation]) => ({ type, relation })) };
}

/** @returns what is reached without a stored tuple: the userset that asks, and whatever a contextual tuple stands on */
export function reverseSeeds(model: Model, request: ListObjectsRequest): NodeKey[] {
  const [type, id, relation] = subjectParts(request.subject);
  const plan = reversePlan(model, request.type, request.relation);
  const seeds: NodeKey[] = relation === "" ? [] : [[type, id, relation]];
  for (const step of plan.names) {
    if (step.name === relation && step.type === type) seeds.push([type, id, step.relation]);
  }
  for (const tuple of request.contextualTuples ?? []) {
    const objectType = typeOf(tuple.object);
    for (const step of plan.direct) {
      if (step.type === objectType && step.direct === tuple.relation) seeds.push(nodeOf(tuple.object, step.relation));
    }
    for (const step of plan.from) {
      if (step.type === objectType && step.tupleset === tuple.relation) seeds.push(nodeOf(tuple.object, step.relation));
    }
  }
  return seeds;
}

/** @param object `type:id` that has been validated */
export function nodeOf(object: string, relation: string): NodeKey {
  const colon = object.indexOf(":");
  return [object.slice(0, colon), object.slice(colon + 1), relation];
}

/** The parts of a subject that has been validated. */
export function subjectParts(subject: string): NodeKey {
  const parsed = parseSubject(subject);
  if (!parsed.ok) throw new Error(parsed.error);
  return [parsed.value.type, parsed.value.id, parsed.value.relation];
}

/** @returns `user`, or `group#member` of a userset */
export function subjectKindOf(subject: string): string {
  const [type, , relation] = subjectParts(subject);
  return relation === "" ? type : `${type}#${relation}`;
}
