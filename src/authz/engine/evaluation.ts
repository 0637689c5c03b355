/**
 * What a circuit says. The meaning is the well-founded one: the least set of grants that tuples support. A cycle supports
 * nothing, so it is false; a grant that would rest on its own denial (a cycle through an exclusion) is neither true nor
 * false, and what is not true is not granted.
 */
import type { Circuit } from "./dependency-graph.ts";

/** `unknown` means that the answer lies deeper than a check may look. */
export type Verdict = "allowed" | "denied" | "unknown";

export type Evaluation = {
  /** One verdict for each root, in order. */
  readonly verdicts: readonly Verdict[];
  /** For each gate the step at which it was found true, or -1: a gate rests on gates of lower steps. */
  readonly provenAt: Int32Array;
};

/**
 * Evaluates every root. Work is linear in the circuit for each layer of exclusions that stand on one another.
 */
export function evaluate(circuit: Circuit): Evaluation {
  const dependents = dependentsOf(circuit);
  const size = circuit.gates.length;
  let lower: Int32Array = new Int32Array(size).fill(-1);
  let upper = lower;
  if (!circuit.hasDifference && !circuit.hasOpen) {
    lower = leastFixpoint(circuit, dependents, lower, false);
    return { verdicts: circuit.roots.map((root) => (isTrue(lower, root) ? "allowed" : "denied")), provenAt: lower };
  }
  // The alternating fixpoint: what is possible given what is proven, then what is proven given what is possible.
  for (let proven = -1; ;) {
    upper = leastFixpoint(circuit, dependents, lower, true);
    lower = leastFixpoint(circuit, dependents, upper, false);
    const nowProven = count(lower);
    const decided = circuit.roots.every((root) => isTrue(lower, root) || !isTrue(upper, root));
    if (decided || nowProven === proven) break;
    proven = nowProven;
  }
  const verdicts = circuit.roots.map((root): Verdict => {
    if (isTrue(lower, root)) return "allowed";
    return isTrue(upper, root) && circuit.hasOpen ? "unknown" : "denied";
  });
  return { verdicts, provenAt: lower };
}

/** Which gates read a gate; a difference is listed under its base alone, its other input being fixed in each round. */
function dependentsOf(circuit: Circuit): number[][] {
  const dependents: number[][] = circuit.gates.map(() => []);
  circuit.gates.forEach((gate, index) => {
    const inputs = gate.kind === "difference" ? gate.inputs.slice(0, 1) : gate.inputs;
    for (const input of inputs) dependents[input]?.push(index);
  });
  return dependents;
}

/** The least set of true gates, a difference being true when its base is and `opposite` does not hold its second input. */
function leastFixpoint(
  circuit: Circuit,
  dependents: readonly number[][],
  opposite: Int32Array,
  openIsTrue: boolean,
): Int32Array {
  const { gates } = circuit;
  const provenAt = new Int32Array(gates.length).fill(-1);
  const missing = new Int32Array(gates.length);
  const queue: number[] = [];
  const prove = (index: number): void => {
    if (provenAt[index] !== -1) return;
    provenAt[index] = queue.length;
    queue.push(index);
  };
  gates.forEach((gate, index) => {
    missing[index] = gate.inputs.length;
    if (gate.kind === "true" || (gate.kind === "open" && openIsTrue)) prove(index);
  });
  for (let next = 0; next < queue.length; next += 1) {
    for (const index of dependents[queue[next] ?? -1] ?? []) {
      const gate = gates[index];
      if (gate === undefined) continue;
      if (gate.kind === "or") prove(index);
      else if (gate.kind === "difference") {
        if (!isTrue(opposite, gate.inputs[1] ?? -1)) prove(index);
      } else {
        missing[index] = (missing[index] ?? 0) - 1;
        if (missing[index] === 0) prove(index);
      }
    }
  }
  return provenAt;
}

function isTrue(provenAt: Int32Array, gate: number): boolean {
  return (provenAt[gate] ?? -1) !== -1;
}

function count(provenAt: Int32Array): number {
  return provenAt.reduce((sum, step) => (step === -1 ? sum : sum + 1), 0);
}
