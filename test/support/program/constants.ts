/** Constants of a built bundle that are no settings, changed for a test: the code that uses them stays as it is. */

/**
 * @param bundle a script in which each constant stands as `NAME = <number>;`, the name numbered where it occurs in several files
 * @param constants name → what it is instead
 * @throws {Error} for a constant that is not there: the test would not be what it says
 */
export function withConstants(bundle: string, constants: Record<string, number>): string {
  let edited = bundle;
  for (const [name, value] of Object.entries(constants)) {
    const declaration = new RegExp(`\\b(${name}\\d*) = [0-9_e* ]+;`, "g");
    if (!declaration.test(edited)) throw new Error(`the bundle has no constant ${name}`);
    edited = edited.replace(declaration, `$1 = ${value};`);
  }
  return edited;
}
