/** The table for people. */
import type { Figure, Row, RowResult } from "./row.ts";

export function printResult(row: Row, { figures, notes = [] }: RowResult, tookSeconds: number): void {
  console.log(`\n${row.name}: ${row.about} (${tookSeconds.toFixed(0)} s)`);
  const width = Math.max(...figures.map(({ label }) => label.length));
  for (const figure of figures) {
    const { label, unit, goal } = figure;
    const verdict = goal === undefined ? "" : `   goal ${goal}${meets(figure) ? "" : "  MISSED"}`;
    console.log(`  ${label.padEnd(width)}  ${shown(figure.median).padStart(8)} ${unit}${range(figure)}${verdict}`);
  }
  for (const note of notes) console.log(`  ! ${note}`);
}

function range({ low, high, rounds }: Figure): string {
  return rounds > 1 ? `  (${shown(low)} … ${shown(high)}, ${rounds} rounds)` : "";
}

function shown(value: number): string {
  if (!Number.isFinite(value)) return "-";
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** A goal is written as people read it: `≥ 1.6`, `≤ 20`. */
export function meets({ median, goal }: Pick<Figure, "median" | "goal">): boolean {
  const [sign, limit] = goal?.split(" ") ?? [];
  if (sign === undefined || limit === undefined) return true;
  return sign === "≥" ? median >= Number(limit) : median <= Number(limit);
}
