/** Why a check was decided as it was: the tuples that it rests on, or those that were missing. */
import type { DependencyGraph, Node } from "./dependency-graph.ts";
import type { Evaluation } from "./evaluation.ts";

/** Why a check was decided as it was, for people. */
export type Explanation = {
  readonly allowed: boolean;
  /** Allowed: the tuples it rests on, from the object asked about to the subject, each once. */
  readonly path: readonly string[];
  /** Denied: what was looked for and did not stand, outermost first. */
  readonly missing: readonly string[];
};

/** At most this many lines: an explanation is read by a person. */
const MAX_LINES = 100;

/** Explains the first root of a decided graph. */
export function explainDecision(graph: DependencyGraph, evaluation: Evaluation, subject: string): Explanation {
  const root = graph.roots[0] ?? -1;
  const allowed = evaluation.verdicts[0] === "allowed";
  return {
    allowed,
    path: allowed ? provingTuples(graph, evaluation, root) : [],
    missing: allowed ? [] : missingGrants(graph, evaluation, root, subject),
  };
}

/** The tuples of one proof: of an `or` the input proven first, of an `and` all, of an exclusion its base. */
function provingTuples(graph: DependencyGraph, { provenAt }: Evaluation, root: number): string[] {
  const path = new Set<string>();
  const seen = new Set<number>();
  const stepOf = (node: number): number => provenAt[node] ?? -1;
  const visit = (index: number): void => {
    const node = graph.nodes[index];
    if (node === undefined || seen.has(index)) return;
    seen.add(index);
    if (node.kind === "true") path.add(node.label);
    for (const position of provingInputs(node, stepOf)) {
      const via = node.via[position];
      if (typeof via === "string") path.add(via);
      visit(node.inputs[position] ?? -1);
    }
  };
  visit(root);
  return [...path].slice(0, MAX_LINES);
}

function provingInputs(node: Node, stepOf: (node: number) => number): number[] {
  if (node.kind === "and") return node.inputs.map((_, position) => position);
  if (node.kind === "difference") return [0];
  const proven = node.inputs
    .map((input, position) => ({ position, step: stepOf(input) }))
    .filter(({ step }) => step !== -1)
    .toSorted((a, b) => a.step - b.step);
  return proven.slice(0, 1).map(({ position }) => position);
}

/** What failed on the way down: the operands that do not hold, and the tuples that would have made them hold. */
function missingGrants(graph: DependencyGraph, { provenAt }: Evaluation, root: number, subject: string): string[] {
  const lines = new Set<string>();
  const seen = new Set<number>();
  const holds = (node: number): boolean => (provenAt[node] ?? -1) !== -1;
  const queue = [root];
  for (let next = queue.shift(); next !== undefined && lines.size < MAX_LINES; next = queue.shift()) {
    const node = graph.nodes[next];
    if (node === undefined || seen.has(next)) continue;
    seen.add(next);
    const [base = -1, subtract = -1] = node.inputs;
    if (node.kind === "difference" && holds(base)) {
      lines.add(holds(subtract) ? `${node.label}: the excluded part holds` : `${node.label}: it cannot be settled`);
    } else if (node.label.endsWith(BY_A_TUPLE)) {
      lines.add(`no tuple of ${node.label.slice(0, -BY_A_TUPLE.length)} leads to ${subject}`);
    } else if (node.kind === "or" && node.inputs.length === 0) {
      lines.add(`nothing for ${node.label}`);
    }
    for (const input of node.kind === "difference" ? [base] : node.inputs) if (!holds(input)) queue.push(input);
  }
  return [...lines];
}

/** How the graph labels the node of a relation's own tuples. */
const BY_A_TUPLE = " by a tuple";
