/**
 * A check as a circuit: one gate for each `object#relation` that the question can depend on, wired by the model's rewrites
 * and the tuples. Each node stands in it once, however many paths lead there, so that its size is bounded by the tuples
 * and never by the number of paths.
 */
import type { Model, Rewrite } from "./model.ts";
import { formatTuple, WILDCARD } from "./tuple.ts";
import { typeOf, type TupleIndex } from "./tuple-index.ts";

/** How many tuples may be followed one after another from the question (OpenFGA's resolution limit). */
export const MAX_DEPTH = 25;
/** How large a circuit may grow, in gates and wires; beyond it a check fails rather than runs on. */
export const MAX_CIRCUIT_SIZE = 1_000_000;

export type Gate = {
  /**
   * `true` is granted by a tuple; `open` lies deeper than {@link MAX_DEPTH} and is not known; `or`, `and` have any number
   * of inputs, `difference` has two, the base and what is subtracted.
   */
  readonly kind: "true" | "open" | "or" | "and" | "difference";
  readonly inputs: number[];
  /** For explanations: `object#relation` of a node, the tuple of a leaf, the rewrite's name of what lies between. */
  readonly label: string;
  /** For explanations: the tuple that leads to each input, where one does. */
  readonly via: (string | null)[];
};

export type Circuit = {
  readonly gates: readonly Gate[];
  /** The gates of the questions asked, in their order. */
  readonly roots: readonly number[];
  readonly hasDifference: boolean;
  readonly hasOpen: boolean;
};

/** The circuit grew beyond {@link MAX_CIRCUIT_SIZE}. */
export class CircuitTooLarge extends Error {
  override readonly name = "CircuitTooLarge";
}

type Node = { gate: number; object: string; relation: string; depth: number; expanded: boolean };

/**
 * Builds the circuit for "is `subject` related to each of `roots`?".
 *
 * @param subject a subject that has been validated against the model
 * @param roots `object#relation` pairs whose type and relation the model knows
 * @throws CircuitTooLarge
 */
export function buildCircuit(
  model: Model,
  tuples: TupleIndex,
  subject: string,
  roots: readonly { object: string; relation: string }[],
): Circuit {
  const gates: Gate[] = [];
  const nodes = new Map<string, Node>();
  const isUserset = subject.includes("#");
  const everyone = isUserset ? null : `${typeOf(subject)}:${WILDCARD}`;
  let size = 0;
  let hasDifference = false;
  /** Nodes to expand, by how many tuples were followed to reach them; a computed relation costs nothing. */
  let level: Node[] = [];
  let nextLevel: Node[] = [];
  let depth = 0;

  const add = (kind: Gate["kind"], label: string): number => {
    size += 1;
    if (size > MAX_CIRCUIT_SIZE) throw new CircuitTooLarge();
    gates.push({ kind, inputs: [], label, via: [] });
    return gates.length - 1;
  };
  const wire = (from: number, to: number, via: string | null): void => {
    size += 1;
    if (size > MAX_CIRCUIT_SIZE) throw new CircuitTooLarge();
    gates[to]?.inputs.push(from);
    gates[to]?.via.push(via);
  };

  const nodeOf = (object: string, relation: string, atDepth: number): number => {
    const key = `${object}#${relation}`;
    const known = nodes.get(key);
    if (known !== undefined) {
      if (!known.expanded && atDepth < known.depth) {
        known.depth = atDepth;
        level.push(known);
      }
      return known.gate;
    }
    const node: Node = { gate: add("or", key), object, relation, depth: atDepth, expanded: false };
    nodes.set(key, node);
    (atDepth === depth ? level : nextLevel).push(node);
    return node.gate;
  };

  const direct = (object: string, relation: string): number => {
    const gate = add("or", `${object}#${relation} by a tuple`);
    for (const holder of everyone === null || everyone === subject ? [subject] : [subject, everyone]) {
      if (!tuples.has(object, relation, holder)) continue;
      wire(add("true", formatTuple({ object, relation, subject: holder })), gate, null);
      return gate;
    }
    for (const userset of tuples.usersets(object, relation)) {
      const via = formatTuple({ object, relation, subject: `${userset.object}#${userset.relation}` });
      wire(nodeOf(userset.object, userset.relation, depth + 1), gate, via);
    }
    return gate;
  };

  const from = (object: string, tupleset: string, relation: string): number => {
    const gate = add("or", `${relation} from ${tupleset} of ${object}`);
    for (const parent of tuples.objects(object, tupleset)) {
      if (!(model.types.get(typeOf(parent))?.has(relation) ?? false)) continue;
      const via = formatTuple({ object, relation: tupleset, subject: parent });
      wire(nodeOf(parent, relation, depth + 1), gate, via);
    }
    return gate;
  };

  const build = (rewrite: Rewrite, object: string, relation: string): number => {
    if (rewrite.kind === "direct") return direct(object, relation);
    if (rewrite.kind === "computed") return nodeOf(object, rewrite.relation, depth);
    if (rewrite.kind === "from") return from(object, rewrite.tupleset, rewrite.relation);
    if (rewrite.kind === "difference") {
      hasDifference = true;
      const gate = add("difference", `exclusion of ${object}#${relation}`);
      wire(build(rewrite.base, object, relation), gate, null);
      wire(build(rewrite.subtract, object, relation), gate, null);
      return gate;
    }
    const gate = add(rewrite.kind === "union" ? "or" : "and", `${rewrite.kind} of ${object}#${relation}`);
    for (const child of rewrite.children) wire(build(child, object, relation), gate, null);
    return gate;
  };

  const rootGates = roots.map(({ object, relation }) => nodeOf(object, relation, 0));
  while (level.length > 0 && depth < MAX_DEPTH) {
    for (const node of level) {
      if (node.expanded) continue;
      node.expanded = true;
      if (isUserset && subject === `${node.object}#${node.relation}`) {
        // A userset is related to itself, whatever the model says of it.
        wire(add("true", `${subject} is itself`), node.gate, null);
        continue;
      }
      const definition = model.types.get(typeOf(node.object))?.get(node.relation);
      if (definition !== undefined) wire(build(definition.rewrite, node.object, node.relation), node.gate, null);
    }
    level = nextLevel;
    nextLevel = [];
    depth += 1;
  }
  const open = level.filter((node) => !node.expanded);
  for (const node of open) wire(add("open", `${node.object}#${node.relation} lies too deep`), node.gate, null);
  return { gates, roots: rootGates, hasDifference, hasOpen: open.length > 0 };
}
