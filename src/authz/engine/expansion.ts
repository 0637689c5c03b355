/**
 * What the model alone says about where a question can lead, so that storage can be read for it at once.
 *
 * Forward, from an object: which tuples bear on `type#relation`. Backward, from a subject: which relations can follow from a
 * tuple, so that the objects worth checking are found without looking at the others.
 */
import type { Model, Rewrite } from "./model.ts";
import { WILDCARD } from "./tuple.ts";

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

export type ForwardPlan = {
  /** Where the subject's own tuple is looked for. */
  readonly own: readonly DirectStep[];
  /** Where usersets among the subjects are followed. */
  readonly groups: readonly DirectStep[];
  readonly from: readonly FromStep[];
  /** Whether `type:*` of the subject's type can stand anywhere here. */
  readonly everyone: boolean;
};

/**
 * Everything that bears on the given relations for a kind of subject (`user`, or `group#member` of a userset), exclusions and
 * all operands included. Relations that no tuple can join to such a subject are left out: they are false whatever stands.
 */
export function forwardPlan(model: Model, roots: readonly NodeKind[], subjectKind: string): ForwardPlan {
  const leadsToSubject = kindsLeadingTo(model, subjectKind);
  const own: DirectStep[] = [];
  const groups: DirectStep[] = [];
  const from: FromStep[] = [];
  let everyone = false;
  const seen = new Set<string>();
  const queue = [...roots];
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const { type, relation } = next;
    if (seen.has(`${type}#${relation}`) || !leadsToSubject.has(`${type}#${relation}`)) continue;
    seen.add(`${type}#${relation}`);
    const steps = stepsOf(model, type, relation, everyOperand);
    for (const step of steps.direct) {
      const subjects = subjectsOf(model, type, step.direct);
      const takesEveryone = subjects.has(`${subjectKind}:${WILDCARD}`);
      if (takesEveryone) everyone = true;
      if (takesEveryone || subjects.has(subjectKind)) own.push(step);
      const usersets = [...subjects].filter((subject) => leadsToSubject.has(subject));
      if (usersets.length > 0) groups.push(step);
      queue.push(...usersets.map(kindOf));
    }
    for (const step of steps.from) {
      const parents = [...subjectsOf(model, type, step.tupleset)].filter((parent) =>
        leadsToSubject.has(`${parent}#${step.next}`),
      );
      if (parents.length > 0) from.push(step);
      queue.push(...parents.map((parent) => ({ type: parent, relation: step.next })));
    }
  }
  return { own, groups, from, everyone };
}

/** Where an object's tuple leads: the relations that are asked of the subjects of `type#tupleset`. */
export function relationsFrom(model: Model, type: string, tupleset: string): string[] {
  const next = [...(model.types.get(type)?.keys() ?? [])].flatMap((relation) =>
    stepsOf(model, type, relation, everyOperand)
      .from.filter((step) => step.tupleset === tupleset)
      .map((step) => step.next),
  );
  return [...new Set(next)];
}

export type NodeKind = { readonly type: string; readonly relation: string };

/** Every `type#relation` that some tuples could relate to such a subject. */
function kindsLeadingTo(model: Model, subjectKind: string): ReadonlySet<string> {
  const known = new Set<string>();
  for (let before = -1; before !== known.size;) {
    before = known.size;
    for (const [type, relations] of model.types) {
      for (const relation of relations.keys()) {
        const key = `${type}#${relation}`;
        if (!known.has(key) && (key === subjectKind || leads(model, type, relation, subjectKind, known)))
          known.add(key);
      }
    }
  }
  return known;
}

function leads(model: Model, type: string, relation: string, subjectKind: string, known: ReadonlySet<string>): boolean {
  const steps = stepsOf(model, type, relation, everyOperand);
  if (steps.names.some((step) => known.has(`${type}#${step.name}`))) return true;
  return (
    steps.direct.some((step) =>
      [...subjectsOf(model, type, step.direct)].some(
        (subject) => subject === subjectKind || subject === `${subjectKind}:${WILDCARD}` || known.has(subject),
      ),
    ) ||
    steps.from.some((step) =>
      [...subjectsOf(model, type, step.tupleset)].some((parent) => known.has(`${parent}#${step.next}`)),
    )
  );
}

function kindOf(userset: string): NodeKind {
  const [type = "", relation = ""] = userset.split("#");
  return { type, relation };
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

/** Nothing is related but what some subject of `tupleset` has the asking subject as its `relation` for, by a tuple of its own. */
export type TupleGuard = { readonly tupleset: string; readonly relation: string };

/** The guard before a relation, where it is an intersection with one; null where groups or everyone could open it. */
export function tupleGuardOf(model: Model, type: string, relation: string): TupleGuard | null {
  const relations = model.types.get(type);
  const rewrite = relations?.get(relation)?.rewrite;
  if (rewrite?.kind !== "intersection") return null;
  for (const child of rewrite.children) {
    const operand = child.kind === "computed" ? relations?.get(child.relation)?.rewrite : child;
    if (operand?.kind !== "from") continue;
    const isPlain = [...subjectsOf(model, type, operand.tupleset)].every(
      (parent) =>
        model.types.get(parent)?.get(operand.relation)?.rewrite.kind === "direct" &&
        [...subjectsOf(model, parent, operand.relation)].every((subject) => !/[#*]/.test(subject)),
    );
    if (isPlain) return { tupleset: operand.tupleset, relation: operand.relation };
  }
  return null;
}

function subjectsOf(model: Model, type: string, relation: string): ReadonlySet<string> {
  return model.types.get(type)?.get(relation)?.subjects ?? new Set();
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
