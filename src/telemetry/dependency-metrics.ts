/** What the guards before a dependency are counted by. */
import { count } from "./metrics.ts";

export function countTransition({ dependency, from, to }: { dependency: string; from: string; to: string }): void {
  count("sallyport_breaker_transitions", { dependency, from, to });
}

export function countCall({ dependency, outcome }: { dependency: string; outcome: "ok" | "failed" }): void {
  count("sallyport_dependency_calls", { dependency, outcome });
}
