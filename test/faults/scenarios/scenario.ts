/** One way of breaking the program. */
import type { History } from "../history.ts";
import type { Random } from "../random.ts";

export type Scene = {
  history: History;
  random: Random;
  /** How many kills the run asks for. */
  kills: number;
  say(line: string): void;
};

export type Scenario = {
  name: string;
  /** What is done to it, for the table. */
  does: string;
  /** Figures that must not be 0: a run in which nothing happened proves nothing. */
  needs: readonly string[];
  /** @returns figures worth reporting: what was done, and how much of it; `cannot`, and why, where this machine is not able to. */
  run(scene: Scene): Promise<Record<string, number | string>>;
};

export const count = (history: History, kind: History["events"][number]["kind"]): number =>
  history.events.filter((event) => event.kind === kind).length;

/** Messages, however often each was acknowledged. */
export const accepted = (history: History): number =>
  new Set(
    history.events.flatMap((event) =>
      event.kind === "send" && event.outcome === 202 && event.deliveryId !== null ? [event.deliveryId] : [],
    ),
  ).size;

/** How often something came again: of deliveries, those after the first. */
export function repeats(history: History): number {
  const delivers = history.events.filter((event) => event.kind === "deliver");
  return delivers.length - new Set(delivers.map(({ deliveryId }) => deliveryId)).size;
}

export const deadLettered = (history: History): number =>
  new Set(
    history.events.flatMap((event) =>
      event.kind === "ended" && event.state === "dead_lettered" ? [event.deliveryId] : [],
    ),
  ).size;
