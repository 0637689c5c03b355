/** The numbers of this isolate. Any folder counts here by a name of the table; the rest happens off its path. */
import { createLog, errorFields } from "./log.ts";
import { createMeter, type SendBatch } from "./meter.ts";

export const meter = createMeter({
  now: Date.now,
  // Not `setTimeout`: a test that fakes the clock must not hold numbers back.
  pause: (ms) => scheduler.wait(ms),
  newId: () => crypto.randomUUID(),
  // Off a request's path an error reaches the log alone.
  onLate: (error) => createLog().warn("metrics.batch_waits", errorFields(error)),
});

/** Adds to a counter. Never throws and never waits. */
export const { count, gauge, observe } = meter;

/** Sees to it that what was counted reaches the aggregate, in the background of this request or object. */
export function flushSoon(env: Env, background: (work: Promise<unknown>) => void): void {
  meter.flushSoon(background, sendTo(env));
}

/** Hands a batch to the aggregate, as flat text, which costs an RPC least. */
export function sendTo(env: Env): SendBatch {
  return (batch) => env.HOUSEKEEPING.getByName("main").addNumbers(JSON.stringify(batch));
}
