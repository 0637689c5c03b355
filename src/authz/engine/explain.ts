import type { Circuit, Gate } from "./dependency-graph.ts";
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

/** Explains the first root of a decided circuit. */
export function explainDecision(circuit: Circuit, evaluation: Evaluation, subject: string): Explanation {
  const root = circuit.roots[0] ?? -1;
  const allowed = evaluation.verdicts[0] === "allowed";
  return {
    allowed,
    path: allowed ? provingTuples(circuit, evaluation, root) : [],
    missing: allowed ? [] : missingGrants(circuit, evaluation, root, subject),
  };
}

/** The tuples of one proof: of an `or` the input proven first, of an `and` all, of an exclusion its base. */
function provingTuples(circuit: Circuit, { provenAt }: Evaluation, root: number): string[] {
  const path = new Set<string>();
  const seen = new Set<number>();
  const stepOf = (gate: number): number => provenAt[gate] ?? -1;
  const visit = (index: number): void => {
    const gate = circuit.gates[index];
    if (gate === undefined || seen.has(index)) return;
    seen.add(index);
    if (gate.kind === "true") path.add(gate.label);
    for (const position of provingInputs(gate, stepOf)) {
      const via = gate.via[position];
      if (typeof via === "string") path.add(via);
      visit(gate.inputs[position] ?? -1);
    }
  };
  visit(root);
  return [...path].slice(0, MAX_LINES);
}

function provingInputs(gate: Gate, stepOf: (gate: number) => number): number[] {
  if (gate.kind === "and") return gate.inputs.map((_, position) => position);
  if (gate.kind === "difference") return [0];
  const proven = gate.inputs
    .map((input, position) => ({ position, step: stepOf(input) }))
    .filter(({ step }) => step !== -1)
    .toSorted((a, b) => a.step - b.step);
  return proven.slice(0, 1).map(({ position }) => position);
}

/** What failed on the way down: the operands that do not hold, and the tuples that would have made them hold. */
function missingGrants(circuit: Circuit, { provenAt }: Evaluation, root: number, subject: string): string[] {
  const lines = new Set<string>();
  const seen = new Set<number>();
  const holds = (gate: number): boolean => (provenAt[gate] ?? -1) !== -1;
  const queue = [root];
  for (let next = queue.shift(); next !== undefined && lines.size < MAX_LINES; next = queue.shift()) {
    const gate = circuit.gates[next];
    if (gate === undefined || seen.has(next)) continue;
    seen.add(next);
    const [base = -1, subtract = -1] = gate.inputs;
    if (gate.kind === "difference" && holds(base)) {
      lines.add(holds(subtract) ? `${gate.label}: the excluded part holds` : `${gate.label}: it cannot be settled`);
    } else if (gate.label.endsWith(BY_A_TUPLE)) {
      lines.add(`no tuple of ${gate.label.slice(0, -BY_A_TUPLE.length)} leads to ${subject}`);
    } else if (gate.kind === "or" && gate.inputs.length === 0) {
      lines.add(`nothing for ${gate.label}`);
    }
    for (const input of gate.kind === "difference" ? [base] : gate.inputs) if (!holds(input)) queue.push(input);
  }
  return [...lines];
}

/** How the circuit labels the gate of a relation's own tuples. */
const BY_A_TUPLE = " by a tuple";
