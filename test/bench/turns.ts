/** Rows take turns: one at a time, but while one only waits for time to pass, others go on. */
import { setTimeout as sleep } from "node:timers/promises";

/** Lets other rows go on for at least so long; comes back when none of them is at work. */
export type Pause = (atLeastMs: number) => Promise<void>;

type Going = { turn: Promise<"done" | "paused">; dueAtMs: number; resume(): void };

/** @param run never rejects */
export async function takeTurns<Row>(
  rows: readonly Row[],
  run: (row: Row, pause: Pause) => Promise<void>,
): Promise<void> {
  let paused: Going[] = [];
  const goOn = async (going: Going): Promise<void> => {
    if ((await going.turn) === "paused") paused.push(going);
  };
  const resumeDue = async (): Promise<void> => {
    const nowMs = performance.now();
    const due = paused.filter(({ dueAtMs }) => dueAtMs <= nowMs);
    paused = paused.filter(({ dueAtMs }) => dueAtMs > nowMs);
    for (const going of due) {
      going.resume();
      // oxlint-disable-next-line no-await-in-loop -- one row at a time
      await goOn(going);
    }
  };
  // oxlint-disable no-await-in-loop -- one row at a time
  for (const row of rows) {
    await goOn(begin(row, run));
    await resumeDue();
  }
  while (paused.length > 0) {
    await sleep(Math.max(0, Math.min(...paused.map(({ dueAtMs }) => dueAtMs)) - performance.now()));
    await resumeDue();
  }
  // oxlint-enable no-await-in-loop
}

function begin<Row>(row: Row, run: (row: Row, pause: Pause) => Promise<void>): Going {
  let turn = Promise.withResolvers<"done" | "paused">();
  const going: Going = { turn: turn.promise, dueAtMs: 0, resume: () => undefined };
  const pause: Pause = (atLeastMs) =>
    new Promise((resolve) => {
      going.dueAtMs = performance.now() + atLeastMs;
      going.resume = () => {
        turn = Promise.withResolvers();
        going.turn = turn.promise;
        resolve();
      };
      turn.resolve("paused");
    });
  void run(row, pause).then(() => turn.resolve("done"));
  return going;
}
