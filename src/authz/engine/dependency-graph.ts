/**
 * A check as a graph of what it depends on: one node for each `object#relation` that the question can lead to, connected by the
 * model's rewrites and the tuples. Each stands in it once, however many paths lead there, so that its size is bounded by the
 * tuples and never by the number of paths.
 */
import type { Model, Rewrite } from "./model.ts";
import { formatTuple, WILDCARD } from "./tuple.ts";
import { typeOf, type TupleIndex } from "./tuple-index.ts";

/** How many tuples may be followed one after another from the question (OpenFGA's resolution limit). */
export const MAX_DEPTH = 25;
/** How large a graph may grow, in nodes and edges; beyond it a check fails rather than runs on. */
export const MAX_GRAPH_SIZE = 1_000_000;

export type Node = {
  /**
   * `true` is granted by a tuple; `open` lies deeper than {@link MAX_DEPTH} and is not known; `or`, `and` have any number
   * of inputs, `difference` has two, the base and what is subtracted.
   */
  readonly kind: "true" | "open" | "or" | "and" | "difference";
  /** Positions of the nodes that it depends on. */
  readonly inputs: number[];
  /** For explanations: `object#relation`, the tuple of a leaf, the rewrite's name of what lies between. */
  readonly label: string;
  /** For explanations: the tuple that leads to each input, where one does. */
  readonly via: (string | null)[];
};

export type DependencyGraph = {
  readonly nodes: readonly Node[];
  /** The nodes of the questions asked, in their order. */
  readonly roots: readonly number[];
  readonly hasDifference: boolean;
  readonly hasOpen: boolean;
};

/** The graph grew beyond {@link MAX_GRAPH_SIZE}. */
export class GraphTooLarge extends Error {
  override readonly name = "GraphTooLarge";
}

/** `object#relation` on its way into the graph: expanded once, at the fewest steps from the question. */
type Relation = { node: number; object: string; relation: string; depth: number; expanded: boolean };

/**
 * Builds the graph for "is `subject` related to each of `roots`?".
 *
 * @param subject a subject that has been validated against the model
 * @param roots `object#relation` pairs whose type and relation the model knows
 * @throws GraphTooLarge
 */
export function buildDependencyGraph(
  model: Model,
  tuples: TupleIndex,
  subject: string,
  roots: readonly { object: string; relation: string }[],
): DependencyGraph {
  const builder = createBuilder(model, tuples, subject);
  const rootNodes = roots.map(({ object, relation }) => builder.relationAt(object, relation, 0));
  return { roots: rootNodes, ...builder.expandAll() };
}

type Builder = {
  /** @returns the node of `object#relation`, to be expanded at this depth or a smaller one */
  relationAt(object: string, relation: string, atDepth: number): number;
  /** Expands what has been asked for, step by step, and what that leads to. */
  expandAll(): Omit<DependencyGraph, "roots">;
};

function createBuilder(model: Model, tuples: TupleIndex, subject: string): Builder {
  const nodes: Node[] = [];
  const relations = new Map<string, Relation>();
  const isUserset = subject.includes("#");
  const everyone = isUserset ? null : `${typeOf(subject)}:${WILDCARD}`;
  let size = 0;
  let hasDifference = false;
  /** Relations to expand, by how many tuples were followed to reach them; a computed relation costs nothing. */
  let level: Relation[] = [];
  let nextLevel: Relation[] = [];
  let depth = 0;

  const grow = (): void => {
    size += 1;
    if (size > MAX_GRAPH_SIZE) throw new GraphTooLarge();
  };
  const add = (kind: Node["kind"], label: string): number => {
    grow();
    nodes.push({ kind, inputs: [], label, via: [] });
    return nodes.length - 1;
  };
  const connect = (from: number, to: number, via: string | null): void => {
    grow();
    nodes[to]?.inputs.push(from);
    nodes[to]?.via.push(via);
  };

  const relationAt: Builder["relationAt"] = (object, relation, atDepth) => {
    const key = `${object}#${relation}`;
    const known = relations.get(key);
    if (known !== undefined) {
      if (!known.expanded && atDepth < known.depth) {
        known.depth = atDepth;
        level.push(known);
      }
      return known.node;
    }
    const reached: Relation = { node: add("or", key), object, relation, depth: atDepth, expanded: false };
    relations.set(key, reached);
    (atDepth === depth ? level : nextLevel).push(reached);
    return reached.node;
  };

  const direct = (object: string, relation: string): number => {
    const node = add("or", `${object}#${relation} by a tuple`);
    for (const holder of everyone === null || everyone === subject ? [subject] : [subject, everyone]) {
      if (!tuples.has(object, relation, holder)) continue;
      connect(add("true", formatTuple({ object, relation, subject: holder })), node, null);
      return node;
    }
    for (const userset of tuples.usersets(object, relation)) {
      const via = formatTuple({ object, relation, subject: `${userset.object}#${userset.relation}` });
      connect(relationAt(userset.object, userset.relation, depth + 1), node, via);
    }
    return node;
  };

  const from = (object: string, tupleset: string, relation: string): number => {
    const node = add("or", `${relation} from ${tupleset} of ${object}`);
    for (const parent of tuples.objects(object, tupleset)) {
      if (!(model.types.get(typeOf(parent))?.has(relation) ?? false)) continue;
      const via = formatTuple({ object, relation: tupleset, subject: parent });
      connect(relationAt(parent, relation, depth + 1), node, via);
    }
    return node;
  };

  const build = (rewrite: Rewrite, object: string, relation: string): number => {
    if (rewrite.kind === "direct") return direct(object, relation);
    if (rewrite.kind === "computed") return relationAt(object, rewrite.relation, depth);
    if (rewrite.kind === "from") return from(object, rewrite.tupleset, rewrite.relation);
    if (rewrite.kind === "difference") {
      hasDifference = true;
      const node = add("difference", `exclusion of ${object}#${relation}`);
      connect(build(rewrite.base, object, relation), node, null);
      connect(build(rewrite.subtract, object, relation), node, null);
      return node;
    }
    const node = add(rewrite.kind === "union" ? "or" : "and", `${rewrite.kind} of ${object}#${relation}`);
    for (const child of rewrite.children) connect(build(child, object, relation), node, null);
    return node;
  };

  const expand = (reached: Relation): void => {
    reached.expanded = true;
    if (isUserset && subject === `${reached.object}#${reached.relation}`) {
      // A userset is related to itself, whatever the model says of it.
      connect(add("true", `${subject} is itself`), reached.node, null);
      return;
    }
    const definition = model.types.get(typeOf(reached.object))?.get(reached.relation);
    if (definition === undefined) return;
    connect(build(definition.rewrite, reached.object, reached.relation), reached.node, null);
  };

  const expandAll: Builder["expandAll"] = () => {
    while (level.length > 0 && depth < MAX_DEPTH) {
      // It grows while it is worked through: a computed relation is of the same depth.
      for (const reached of level) if (!reached.expanded) expand(reached);
      level = nextLevel;
      nextLevel = [];
      depth += 1;
    }
    const open = level.filter((reached) => !reached.expanded);
    for (const { node, object, relation } of open) {
      connect(add("open", `${object}#${relation} lies too deep`), node, null);
    }
    return { nodes, hasDifference, hasOpen: open.length > 0 };
  };

  return { relationAt, expandAll };
}
