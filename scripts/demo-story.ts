/** How the demo is shown: chapters, and checks that can fail. */

/** How the demo speaks: chapters, and checks that are counted. */
export type Story = {
  /** Opens a chapter. */
  readonly chapter: (title: string, ...explanation: string[]) => void;
  /**
   * Does something and says that it came out as promised.
   *
   * @param promise what is promised, in plain words
   * @param act resolves to what is worth showing of the outcome; throws where the promise is not kept
   */
  readonly check: (promise: string, act: () => Promise<string | void>) => Promise<void>;
  /** How many promises were kept so far. */
  readonly kept: () => number;
};

/** A promise that was not kept. */
export class Broken extends Error {
  override readonly name = "Broken";
}

/** @param write prints one line @param colours whether the terminal shows them */
export function tellStory(write: (line: string) => void, colours: boolean): Story {
  const paint = (code: number, text: string): string => (colours ? `\u001B[${code}m${text}\u001B[0m` : text);
  let chapters = 0;
  let kept = 0;
  return {
    chapter(title, ...explanation) {
      chapters += 1;
      write("");
      write(paint(1, `${chapters}. ${title}`));
      for (const line of explanation) write(paint(2, `   ${line}`));
    },
    async check(promise, act) {
      try {
        const outcome = await act();
        kept += 1;
        write(`   ${paint(32, "✓")} ${promise}${typeof outcome === "string" ? paint(2, `  (${outcome})`) : ""}`);
      } catch (error) {
        write(`   ${paint(31, "✗")} ${promise}`);
        throw error instanceof Broken ? error : new Broken(`${promise}: ${String(error)}`, { cause: error });
      }
    },
    kept: () => kept,
  };
}

/** @throws Broken when what came is not what was promised */
export function expect(holds: boolean, came: unknown): asserts holds {
  if (!holds) throw new Broken(`came out otherwise: ${JSON.stringify(came)}`);
}
