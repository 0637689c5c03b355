/** Inputs that look right and are wrong in one place: a right one, and what a stranger may do to it. */
import * as fc from "fast-check";

/** Text with everything in it that texts can have: controls, halves of surrogate pairs, letters that look like others, long runs. */
export const anyText: fc.Arbitrary<string> = fc.oneof(
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.string({ unit: "grapheme", maxLength: 40 }),
  fc.string({ maxLength: 20 }),
  fc.constantFrom(
    "",
    " ",
    "\u0000",
    "\n",
    "\ud800",
    "__proto__",
    "constructor",
    "\u202e",
    "\ufeff",
    "а",
    "％",
    "*",
    "#",
    ":",
    "null",
    "../",
    "a".repeat(5_000),
  ),
);

/** A text with a few of its characters changed, doubled, taken out or put in. */
export function mutated(text: fc.Arbitrary<string>): fc.Arbitrary<string> {
  const edit = fc.record({
    at: fc.nat(),
    how: fc.constantFrom("replace", "insert", "remove", "double", "swapcase"),
    with: fc.oneof(
      fc.string({ unit: "binary", maxLength: 2 }),
      fc.constantFrom(..."=+/-_. \n\u0000é:%", ...'01e"\\{}[],'),
    ),
  });
  return fc.tuple(text, fc.array(edit, { maxLength: 3 })).map(([original, edits]) =>
    edits.reduce((current, { at, how, with: inserted }) => {
      const index = current.length === 0 ? 0 : at % (current.length + 1);
      const [before, letter, after] = [current.slice(0, index), current.charAt(index), current.slice(index + 1)];
      switch (how) {
        case "replace":
          return before + inserted + after;
        case "insert":
          return before + inserted + letter + after;
        case "remove":
          return before + after;
        case "double":
          return before + letter + letter + after;
        default:
          return before + (letter === letter.toLowerCase() ? letter.toUpperCase() : letter.toLowerCase()) + after;
      }
    }, original),
  );
}

export const ulid: fc.Arbitrary<string> = fc.string({
  unit: fc.constantFrom(..."0123456789ABCDEFGHJKMNPQRSTVWXYZ"),
  minLength: 26,
  maxLength: 26,
});
const label = fc
  .tuple(
    fc.constantFrom(..."abcxyz019"),
    fc.string({ unit: fc.constantFrom(..."abc-019"), maxLength: 6 }),
    fc.constantFrom(..."abcxyz019"),
  )
  .map((parts) => parts.join(""));
export const authority: fc.Arbitrary<string> = fc
  .array(label, { minLength: 2, maxLength: 4 })
  .map((labels) => labels.join("."));
export const agentDid: fc.Arbitrary<string> = fc.tuple(authority, ulid).map(([of, id]) => `did:cdi:${of}:agent:${id}`);

/**
 * V8 13.6 (Node 24) mistakes an escaped name for `\\` after it has once read an object with a name that begins so:
 * `JSON.parse('{"\\\\":1}')`, then `JSON.parse('{"\\u0061":1}')` has the name `\\`. Found here; not what is tried here.
 */
export const isSafeName = (name: string): boolean => !name.startsWith("\\");

/** A value that JSON can say, of any shape. */
export const anyJson: fc.Arbitrary<unknown> = fc.jsonValue({ maxDepth: 3, noUnicodeString: false });

/** A document that is right but for some members: taken out, replaced by anything, or joined by others. */
export function spoiled(document: fc.Arbitrary<Record<string, unknown>>): fc.Arbitrary<Record<string, unknown>> {
  const change = fc.record({
    pick: fc.nat(),
    how: fc.constantFrom("remove", "anything", "text", "number", "add", "nest"),
    json: anyJson,
    text: anyText,
    number: fc.oneof(fc.double(), fc.integer(), fc.constantFrom(-0, 1e21, 2 ** 53, Number.MAX_VALUE)),
    name: fc.oneof(
      anyText.filter(isSafeName),
      fc.constantFrom("crit", "b64", "jwk", "jku", "x5c", "alg", "id", "params", "reported"),
    ),
  });
  return fc.tuple(document, fc.array(change, { maxLength: 2 })).map(([original, changes]) => {
    const copy = structuredClone(original);
    for (const { pick, how, json, text, number, name } of changes) {
      const names = Object.keys(copy);
      const chosen = names[pick % Math.max(1, names.length)] ?? "x";
      if (how === "remove") delete copy[chosen];
      else if (how === "add") put(copy, name, json);
      else if (how === "nest") copy[chosen] = { [chosen]: copy[chosen] };
      else copy[chosen] = how === "anything" ? json : how === "text" ? text : number;
    }
    return copy;
  });
}

/** Also `__proto__`, as a member of its own, which is what `JSON.parse` makes of it. */
function put(object: Record<string, unknown>, name: string, value: unknown): void {
  Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
}

/** JSON text with freedom that a serializer does not take: white space, escapes in names, members twice. */
export function looseJson(value: fc.Arbitrary<Record<string, unknown>>): fc.Arbitrary<string> {
  return fc
    .tuple(
      value,
      fc.constantFrom("", " ", "\n\t", "\r\n  "),
      fc.boolean(),
      fc.option(fc.record({ pick: fc.nat(), json: anyJson, isEscaped: fc.boolean() }), { freq: 3 }),
    )
    .map(([object, space, isEscaped, twice]) => {
      const entries = Object.entries(object).filter(([, member]) => member !== undefined);
      const written = entries.map(([name, member]) => [name, JSON.stringify(member) ?? "null", isEscaped] as const);
      const again = twice === null ? undefined : entries[twice.pick % Math.max(1, entries.length)];
      if (twice !== null && again !== undefined)
        written.push([again[0], JSON.stringify(twice.json) ?? "null", twice.isEscaped]);
      const nameOf = (name: string, escaped: boolean): string =>
        escaped && name !== ""
          ? `"\\u${name.charCodeAt(0).toString(16).padStart(4, "0")}${JSON.stringify(name.slice(1)).slice(1)}`
          : JSON.stringify(name);
      return `{${space}${written.map(([name, member, escaped]) => `${nameOf(name, escaped)}${space}:${space}${member}`).join(`${space},${space}`)}${space}}`;
    });
}
