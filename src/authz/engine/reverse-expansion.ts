import { reversePlan } from "./expansion.ts";
import type { Model } from "./model.ts";
import { WILDCARD } from "./tuple.ts";
import { typeOf, type TupleIndex, type Userset } from "./tuple-index.ts";

/**
 * The objects of a type that a subject may be related to: found from the subject backward, sorted, each once. A superset of
 * those it is related to; each has still to be checked.
 */
export function candidateObjects(
  model: Model,
  tuples: TupleIndex,
  target: { type: string; relation: string; subject: string },
): string[] {
  const plan = reversePlan(model, target.type, target.relation);
  const found = new Set<string>();
  const queue: Userset[] = [];
  const reach = (object: string, relation: string): void => {
    const key = `${object}#${relation}`;
    if (found.has(key)) return;
    found.add(key);
    queue.push({ object, relation });
  };
  const followTuplesTo = (subject: string): void => {
    for (const { object, relation } of tuples.relatedTo(subject)) {
      for (const step of plan.direct) {
        if (step.direct === relation && step.type === typeOf(object)) reach(object, step.relation);
      }
    }
  };
  const hash = target.subject.indexOf("#");
  if (hash >= 0) {
    const object = target.subject.slice(0, hash);
    const relation = target.subject.slice(hash + 1);
    reach(object, relation);
    for (const step of plan.names) {
      if (step.name === relation && step.type === typeOf(object)) reach(object, step.relation);
    }
  } else {
    followTuplesTo(target.subject);
    followTuplesTo(`${typeOf(target.subject)}:${WILDCARD}`);
  }
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    followTuplesTo(`${next.object}#${next.relation}`);
    for (const { object, relation } of tuples.relatedTo(next.object)) {
      for (const step of plan.from) {
        if (step.next === next.relation && step.tupleset === relation && step.type === typeOf(object)) {
          reach(object, step.relation);
        }
      }
    }
  }
  const suffix = `#${target.relation}`;
  return [...found]
    .filter((key) => key.endsWith(suffix) && typeOf(key) === target.type)
    .map((key) => key.slice(0, -suffix.length))
    .toSorted();
}
