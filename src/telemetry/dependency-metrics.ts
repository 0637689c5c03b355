/** What the guards before a dependency are counted by. */
import { count } from "./metrics.ts";

/** A breaker has changed its state. */
export function countTransition({ dependency, from, to }: { dependency: string; from: string; to: string }): void {
  count("sallyport_breaker_transitions", { dependency, from, to });
}

/** A dependency was called. */
export function countCall({ dependency, outcome }: { dependency: string; outcome: "ok" | "failed" }): void {
  count("sallyport_dependency_calls", { dependency, outcome });
}
