import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { rawMember } from "../../src/wire/raw-json.ts";

const space = fc.stringMatching(/^[ \n\r\t]{0,3}$/);
/** JSON text with white space wherever it may stand. */
const jsonText: fc.Arbitrary<string> = fc.oneof(
  fc.json({ maxDepth: 3 }),
  fc.json({ maxDepth: 3 }).map((text) => JSON.stringify(JSON.parse(text), null, 2)),
);
const key = fc.oneof(fc.string(), fc.constantFrom("payload", "__proto__", "a\\", '"', "}", "\u2028", "payload "));
const spelled = (text: string, escaped: boolean): string =>
  escaped
    ? `"${Array.from({ length: text.length }, (_, at) => `\\u${text.charCodeAt(at).toString(16).padStart(4, "0")}`).join("")}"`
    : JSON.stringify(text);
const member = fc.record({
  key,
  escaped: fc.boolean(),
  value: jsonText,
  spaces: fc.array(space, { minLength: 4, maxLength: 4 }),
});

describe("the own text of a member", () => {
  property.prop(
    [
      fc.uniqueArray(member, { selector: (each) => each.key, maxLength: 6 }),
      fc.constantFrom("payload", "a\\", "absent"),
    ],
    {
      numRuns: 500,
    },
  )("is found exactly, wherever it stands and however its name is spelled", (members, name) => {
    const text = `{${members
      .map(({ key: own, escaped, value, spaces: [a, b, c, d] }) => `${a}${spelled(own, escaped)}${b}:${c}${value}${d}`)
      .join(",")}}`;
    const expected = members.find((each) => each.key === name)?.value ?? null;
    expect(JSON.parse(text)).toBeTypeOf("object");
    expect(rawMember(text, name)).toEqual({ ok: true, value: expected });
    if (expected !== null) expect(JSON.parse(expected)).toEqual((JSON.parse(text) as Record<string, unknown>)[name]);
  });

  property.prop([jsonText, jsonText, fc.boolean()])(
    "is refused when the name stands there twice",
    (one, two, escaped) => {
      const text = `{"payload":${one},"x":{"payload":1},${spelled("payload", escaped)}:${two}}`;
      expect(rawMember(text, "payload")).toEqual({ ok: false, error: "duplicate" });
    },
  );

  test.each([
    ["{}", null],
    [" {\n} ", null],
    ['{"a":{"payload":1}}', null],
    ['{"a":"\\"payload\\":1","payload":1.50e+3 }', "1.50e+3"],
    ['{"payload":[1, 2 , {"a" : "]}" }]\n}', '[1, 2 , {"a" : "]}" }]'],
    ['{"payload":"\\\\"}', '"\\\\"'],
    ['{"payload":12345678901234567890,"x":0}', "12345678901234567890"],
    ['{"payload" : null}', "null"],
  ])("of %s is %s", (text, payload) => {
    expect(rawMember(text, "payload")).toEqual({ ok: true, value: payload });
  });
});
