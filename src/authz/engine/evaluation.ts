/**
 * What a dependency graph says. The meaning is the well-founded one: the least set of grants that tuples support. A cycle supports
 * nothing, so it is false; a grant that would rest on its own denial (a cycle through an exclusion) is neither true nor
 * false, and what is not true is not granted.
 */
import type { DependencyGraph } from "./dependency-graph.ts";

/** `unknown` means that the answer lies deeper than a check may look. */
export type Verdict = "allowed" | "denied" | "unknown";

export type Evaluation = {
  /** One verdict for each root, in order. */
  readonly verdicts: readonly Verdict[];
  /** For each node the step at which it was found true, or -1: a node rests on nodes of lower steps. */
  readonly provenAt: Int32Array;
};

/**
 * Evaluates every root. Work is linear in the graph for each layer of exclusions that stand on one another.
 */
export function evaluate(graph: DependencyGraph): Evaluation {
  const dependents = dependentsOf(graph);
  const size = graph.nodes.length;
  let lower: Int32Array = new Int32Array(size).fill(-1);
  let upper = lower;
  if (!graph.hasDifference && !graph.hasOpen) {
    lower = leastFixpoint(graph, dependents, lower, false);
    return { verdicts: graph.roots.map((root) => (isTrue(lower, root) ? "allowed" : "denied")), provenAt: lower };
  }
  // The alternating fixpoint: what is possible given what is proven, then what is proven given what is possible.
  for (let proven = -1; ;) {
    upper = leastFixpoint(graph, dependents, lower, true);
    lower = leastFixpoint(graph, dependents, upper, false);
    const nowProven = count(lower);
    const decided = graph.roots.every((root) => isTrue(lower, root) || !isTrue(upper, root));
    if (decided || nowProven === proven) break;
    proven = nowProven;
  }
  const verdicts = graph.roots.map((root): Verdict => {
    if (isTrue(lower, root)) return "allowed";
    return isTrue(upper, root) && graph.hasOpen ? "unknown" : "denied";
  });
  return { verdicts, provenAt: lower };
}

/** Which nodes read a node; a difference is listed under its base alone, its other input being fixed in each round. */
function dependentsOf(graph: DependencyGraph): number[][] {
  const dependents: number[][] = graph.nodes.map(() => []);
  graph.nodes.forEach((node, index) => {
    const inputs = node.kind === "difference" ? node.inputs.slice(0, 1) : node.inputs;
    for (const input of inputs) dependents[input]?.push(index);
  });
  return dependents;
}

/** The least set of true nodes, a difference being true when its base is and `opposite` does not hold its second input. */
function leastFixpoint(
  graph: DependencyGraph,
  dependents: readonly number[][],
  opposite: Int32Array,
  openIsTrue: boolean,
): Int32Array {
  const { nodes } = graph;
  const provenAt = new Int32Array(nodes.length).fill(-1);
  const missing = new Int32Array(nodes.length);
  const queue: number[] = [];
  const prove = (index: number): void => {
    if (provenAt[index] !== -1) return;
    provenAt[index] = queue.length;
    queue.push(index);
  };
  nodes.forEach((node, index) => {
    missing[index] = node.inputs.length;
    if (node.kind === "true" || (node.kind === "open" && openIsTrue)) prove(index);
  });
  for (let next = 0; next < queue.length; next += 1) {
    for (const index of dependents[queue[next] ?? -1] ?? []) {
      const node = nodes[index];
      if (node === undefined) continue;
      if (node.kind === "or") prove(index);
      else if (node.kind === "difference") {
        if (!isTrue(opposite, node.inputs[1] ?? -1)) prove(index);
      } else {
        missing[index] = (missing[index] ?? 0) - 1;
        if (missing[index] === 0) prove(index);
      }
    }
  }
  return provenAt;
}

function isTrue(provenAt: Int32Array, node: number): boolean {
  return (provenAt[node] ?? -1) !== -1;
}

function count(provenAt: Int32Array): number {
  return provenAt.reduce((sum, step) => (step === -1 ? sum : sum + 1), 0);
}
