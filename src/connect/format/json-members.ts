/** JSON objects in which one member keeps its own text. */

/**
 * @param members written as JSON, the undefined ones left out
 * @param kept members that are JSON texts already, written as they are
 * @returns JSON text of one object
 */
export function jsonObject(
  members: Readonly<Record<string, unknown>>,
  kept: Readonly<Record<string, string>> = {},
): string {
  const written = Object.entries(members)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  const asTheyAre = Object.entries(kept).map(([name, text]) => `${JSON.stringify(name)}:${text}`);
  return `{${[...written, ...asTheyAre].join(",")}}`;
}

/** Headers of a body in JSON. */
export const JSON_HEADERS = { "Content-Type": "application/json" } as const;
