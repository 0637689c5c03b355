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
  /** @returns figures worth telling: what was done, and how much of it. Null when this machine cannot. */
  run(scene: Scene): Promise<Record<string, number | string>>;
};

export const count = (history: History, kind: History["events"][number]["kind"]): number =>
  history.events.filter((event) => event.kind === kind).length;

export const accepted = (history: History): number =>
  history.events.filter((event) => event.kind === "send" && event.outcome === 202).length;
