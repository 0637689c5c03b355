/**
 * What the model alone says about where a question can lead, so that storage can be read for it at once.
 *
 * Forward, from an object: which tuples bear on `type#relation`. Backward, from a subject: which relations can follow from a
 * tuple, so that the objects worth checking are found without looking at the others.
 */
import type { Model, Rewrite } from "./model.ts";

/** To decide `type#relation`, tuples of `direct` on the same object are read. */
export type DirectStep = { readonly type: string; readonly relation: string; readonly direct: string };
/** To decide `type#relation`, `next` is asked of every subject of `tupleset` on the same object. */
export type FromStep = {
  readonly type: string;
  readonly relation: string;
  readonly tupleset: string;
  readonly next: string;
};

export type ExpansionPlan = { readonly direct: readonly DirectStep[]; readonly from: readonly FromStep[] };

/** Everything that bears on a relation, exclusions and all operands included, for every relation of the model. */
export function forwardPlan(model: Model): ExpansionPlan {
  const direct: DirectStep[] = [];
  const from: FromStep[] = [];
  for (const [type, relations] of model.types) {
    for (const relation of relations.keys()) {
      const steps = stepsOf(model, type, relation, everyOperand);
      direct.push(...steps.direct);
      from.push(...steps.from);
    }
  }
  return { direct, from };
}

/** Whoever is related by `name` is related by `relation` too: the computed relations, and each relation itself. */
export type NameStep = { readonly type: string; readonly relation: string; readonly name: string };

export type ReversePlan = ExpansionPlan & {
  /** For a userset that asks: it is related to itself, so to whatever follows from its own relation. */
  readonly names: readonly NameStep[];
  /** Whether objects found for the target may lead to further ones (a folder in a folder). */
  readonly targetIsRecursive: boolean;
};

/**
 * What can lead to `targetType#targetRelation`, backward: a superset of what does. Of an intersection only the first
 * operand is followed and of an exclusion only the base, since nothing is related that these do not hold; the check then
 * decides. So in a model the narrower operand is written first.
 */
export function reversePlan(model: Model, targetType: string, targetRelation: string): ReversePlan {
  const direct: DirectStep[] = [];
  const from: FromStep[] = [];
  const names: NameStep[] = [];
  const seen = new Set<string>();
  let targetIsRecursive = false;
  const queue: [type: string, relation: string][] = [[targetType, targetRelation]];
  const visit = (type: string, relation: string): void => {
    if (!(model.types.get(type)?.has(relation) ?? false)) return;
    if (type === targetType && relation === targetRelation) targetIsRecursive = true;
    queue.push([type, relation]);
  };
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const [type, relation] = next;
    if (seen.has(`${type}#${relation}`)) continue;
    seen.add(`${type}#${relation}`);
    const own = stepsOf(model, type, relation, candidateOperands);
    direct.push(...own.direct);
    from.push(...own.from);
    names.push(...own.names);
    for (const step of own.direct) {
      for (const subject of subjectsOf(model, type, step.direct)) {
        const [subjectType = "", subjectRelation] = subject.split("#");
        if (subjectRelation !== undefined) visit(subjectType, subjectRelation);
      }
    }
    for (const step of own.from) {
      for (const subject of subjectsOf(model, type, step.tupleset)) visit(subject, step.next);
    }
  }
  return { direct, from, names, targetIsRecursive };
}

function subjectsOf(model: Model, type: string, relation: string): Iterable<string> {
  return model.types.get(type)?.get(relation)?.subjects ?? [];
}

function everyOperand(rewrite: Rewrite): readonly Rewrite[] {
  switch (rewrite.kind) {
    case "union":
    case "intersection":
      return rewrite.children;
    case "difference":
      return [rewrite.base, rewrite.subtract];
    default:
      return [];
  }
}

function candidateOperands(rewrite: Rewrite): readonly Rewrite[] {
  switch (rewrite.kind) {
    case "intersection":
      return rewrite.children.slice(0, 1);
    case "difference":
      return [rewrite.base];
    default:
      return everyOperand(rewrite);
  }
}

/** The steps of one relation, its computed relations unfolded. */
function stepsOf(
  model: Model,
  type: string,
  relation: string,
  operands: (rewrite: Rewrite) => readonly Rewrite[],
): ExpansionPlan & { names: readonly NameStep[] } {
  const direct: DirectStep[] = [];
  const from: FromStep[] = [];
  const names: NameStep[] = [];
  const seen = new Set<string>();
  const follow = (name: string): void => {
    if (seen.has(name)) return;
    seen.add(name);
    names.push({ type, relation, name });
    const definition = model.types.get(type)?.get(name);
    if (definition !== undefined) walk(definition.rewrite, name);
  };
  const walk = (rewrite: Rewrite, name: string): void => {
    if (rewrite.kind === "direct") direct.push({ type, relation, direct: name });
    else if (rewrite.kind === "computed") follow(rewrite.relation);
    else if (rewrite.kind === "from") from.push({ type, relation, tupleset: rewrite.tupleset, next: rewrite.relation });
    else for (const operand of operands(rewrite)) walk(operand, name);
  };
  follow(relation);
  return { direct, from, names };
}
