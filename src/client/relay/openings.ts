/** Who waits for the relay socket to open. */
import { RelayInterruptedError } from "../transport/errors.ts";
import type { Timer } from "./socket-life.ts";

/** Calls that wait for the socket to open. */
export type Openings = {
  /** Resolves when it is open, rejects when the connection has stopped. */
  wait(): Promise<void>;
  opened(): void;
  stopped(error: Error): void;
};

/** @returns openings, for which nobody waits yet */
export function createOpenings(): Openings {
  const waiting = new Set<{ readonly resolve: () => void; readonly reject: (error: Error) => void }>();
  const settleAll = (settle: (each: { resolve: () => void; reject: (error: Error) => void }) => void): void => {
    for (const each of waiting) settle(each);
    waiting.clear();
  };
  return {
    wait: () => new Promise((resolve, reject) => waiting.add({ resolve, reject })),
    opened: () => settleAll(({ resolve }) => resolve()),
    stopped: (error) => settleAll(({ reject }) => reject(error)),
  };
}

/** @throws RelayInterruptedError `TIMEOUT` */
export async function inTime(opened: Promise<void>, timeoutMs: number): Promise<void> {
  let timer: Timer | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    const error = new RelayInterruptedError("TIMEOUT", `the relay did not open within ${timeoutMs} ms`);
    timer = setTimeout(() => reject(error), timeoutMs);
  });
  try {
    await Promise.race([opened, late]);
  } finally {
    clearTimeout(timer);
  }
}
