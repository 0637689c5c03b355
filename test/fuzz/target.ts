/** What is fuzzed: inputs of a shape, and what has to hold for each of them. */
import * as fc from "fast-check";

export type Target<I = unknown> = {
  readonly name: string;
  /** Of all inputs, this target's part; the parts of all targets are weighed against each other. */
  readonly weight: number;
  readonly arbitrary: fc.Arbitrary<I>;
  /**
   * Throws when something is accepted that should not be, refused that should not be, or answered in another way than promised.
   *
   * @returns whether the input was accepted, so that it reached what stands behind the first check
   */
  holds(input: I): boolean | Promise<boolean>;
  /** Of the inputs, how many have to be accepted for the rest to mean anything; 0 where nothing may be. */
  readonly acceptedAtLeast: number;
};

export type Outcome = {
  name: string;
  inputs: number;
  accepted: number;
  slowestMs: number;
  /** The smallest input that breaks it, as JSON, and why; null when all held. */
  counterexample: { input: string; why: string } | null;
};

/** Of fewer inputs no share is asked for. */
const ENOUGH_INPUTS = 400;
/** No input may keep anybody busy for longer. */
export const SLOWEST_MS = 1_000;

export function target<I>(definition: Target<I>): Target {
  return definition as Target;
}

export async function fuzz(
  { name, arbitrary, holds, acceptedAtLeast }: Target,
  inputs: number,
  seed: number,
): Promise<Outcome> {
  let slowestMs = 0;
  let count = 0;
  let accepted = 0;
  const property = fc.asyncProperty(arbitrary, async (input) => {
    count += 1;
    const startedAtMs = performance.now();
    if (await holds(input)) accepted += 1;
    const tookMs = performance.now() - startedAtMs;
    if (tookMs <= SLOWEST_MS) {
      slowestMs = Math.max(slowestMs, tookMs);
      return;
    }
    // Once more: this machine may have been busy with something else.
    const againAtMs = performance.now();
    await holds(input);
    const againMs = performance.now() - againAtMs;
    slowestMs = Math.max(slowestMs, Math.min(tookMs, againMs));
    if (againMs > SLOWEST_MS) throw new Error(`took ${Math.round(againMs)} ms`);
  });
  const details = await fc.check(property, { numRuns: inputs, seed, endOnFailure: false });
  if (!details.failed) {
    const isIdle = count >= ENOUGH_INPUTS && accepted < count * acceptedAtLeast;
    const why = `${accepted} of ${count} inputs were accepted, and ${acceptedAtLeast * 100} % should be: the rest proves little`;
    return { name, inputs: count, accepted, slowestMs, counterexample: isIdle ? { input: "", why } : null };
  }
  const [input] = details.counterexample ?? [];
  const why = details.errorInstance instanceof Error ? details.errorInstance.message : String(details.errorInstance);
  return {
    name,
    inputs: count,
    accepted,
    slowestMs,
    counterexample: { input: JSON.stringify(input) ?? "undefined", why: why.slice(0, 500) },
  };
}

/** Says what was expected to hold. */
export function must(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}
