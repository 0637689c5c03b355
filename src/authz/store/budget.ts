/** What one call may read of the graph, over all its statements: each of them is bounded, and so is what they come to. */
import type { AuthzError } from "../engine/check.ts";
import { tooComplex } from "../engine/check.ts";

/** The bounds of a call: statements, and entries of the graph that they follow, reach or return. */
export type BudgetLimits = { statements: number; entries: number };

/** A list or a check of an agent, a device or an API key. */
export const CALL_LIMITS: BudgetLimits = { statements: 24, entries: 200_000 };
/** The operator's listing of everything that a subject may reach, up to 20,000 objects in one answer. */
export const OPERATOR_LIMITS: BudgetLimits = { statements: 64, entries: 600_000 };

export type Budget = {
  /** @returns whether there is enough left for one more statement */
  isLeft(): boolean;
  /** Counts one statement and what it came to. */
  spend(entries: number): void;
  /** The error of a call that would need more, with the bounds in its words. */
  exceeded(): AuthzError;
};

/** @returns a budget for one call */
export function createBudget(limits: BudgetLimits = CALL_LIMITS): Budget {
  let { statements, entries } = limits;
  return {
    isLeft: () => statements > 0 && entries > 0,
    spend(spent) {
      statements -= 1;
      entries -= spent;
    },
    exceeded: () =>
      tooComplex(
        `it takes more than ${limits.statements} statements or ${limits.entries} entries of the graph, which is the most for one call`,
      ),
  };
}
