import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import * as z from "zod/mini";
import {
  JsonText,
  keptJson,
  parseKeeping,
  rawAt,
  rawElements,
  rawMember,
  rawMembers,
  writeJson,
} from "../../src/wire/json-text.ts";

const space = fc.stringMatching(/^[ \n\r\t]{0,3}$/);
/** Numbers and documents that a parser and a writer would change. */
const fragile = fc.constantFrom(
  "12345678901234567890",
  "1e400",
  "-0",
  "1.0",
  "1.50e+3",
  '{"a":1,"a":2}',
  '"\\u0041\\/"',
  "[ 1 ,\n2 ]",
  '{"__proto__":{"x":1}}',
  '"\\\\"',
  '"]}\\"[{"',
);
/** JSON text with white space wherever it may stand. */
const jsonText: fc.Arbitrary<string> = fc.oneof(
  fragile,
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
const document = (members: readonly { key: string; escaped: boolean; value: string; spaces: string[] }[]): string =>
  `{${members
    .map(({ key: own, escaped, value, spaces: [a, b, c, d] }) => `${a}${spelled(own, escaped)}${b}:${c}${value}${d}`)
    .join(",")}}`;

describe("the own text of members", () => {
  property.prop(
    [
      fc.uniqueArray(member, { selector: (each) => each.key, maxLength: 6 }),
      fc.constantFrom("payload", "a\\", "absent"),
      fc.constantFrom("}", "__proto__"),
    ],
    { numRuns: 500 },
  )("is found exactly, wherever it stands and however its name is spelled", (members, one, other) => {
    const text = document(members);
    expect(JSON.parse(text)).toBeTypeOf("object");
    const valueOf = (name: string): string | null => members.find((each) => each.key === name)?.value ?? null;
    const found = rawMembers(text, [one, other]);
    expect(found.ok && [found.value[one], found.value[other]]).toEqual([valueOf(one), valueOf(other)]);
    expect(rawMember(text, one)).toEqual({ ok: true, value: valueOf(one) });
  });

  property.prop([jsonText, jsonText, fc.boolean()])("is refused for a name that stands twice", (one, two, escaped) => {
    const text = `{"payload":${one},"x":{"payload":1},${spelled("payload", escaped)}:${two}}`;
    expect(rawMembers(text, ["x", "payload"])).toEqual({ ok: false, error: "payload" });
    expect(rawMember(text, "payload")).toEqual({ ok: false, error: "duplicate" });
  });

  test.each([
    ["{}", null],
    [" {\n} ", null],
    ["[1]", null],
    ["7", null],
    ['"{"', null],
    ['{"a":{"payload":1}}', null],
    ['{"a":"\\"payload\\":1","payload":1.50e+3 }', "1.50e+3"],
    ['{"payload":[1, 2 , {"a" : "]}" }]\n}', '[1, 2 , {"a" : "]}" }]'],
    ['{"payload":"\\\\"}', '"\\\\"'],
    ['{"payload":"\\\\\\""}', '"\\\\\\""'],
    ['{"payload":12345678901234567890,"x":0}', "12345678901234567890"],
    ['{"payload" : null}', "null"],
  ])("of %s is %s", (text, payload) => {
    expect(rawMember(text, "payload")).toEqual({ ok: true, value: payload });
  });
});

describe("the own text of elements", () => {
  property.prop([fc.array(fc.tuple(space, jsonText, space)), space])("is each as it stands", (elements, around) => {
    const text = `${around}[${elements.map(([before, value, after]) => before + value + after).join(",")}]${around}`;
    expect(rawElements(text)).toEqual(elements.map(([, value]) => value));
  });

  test("is none of what is no array", () => {
    expect(['{"a":[1]}', "1", '"[1]"', "null"].map(rawElements)).toEqual([[], [], [], []]);
  });

  property.prop([jsonText])("is found by its path", (value) => {
    const text = ` {"result" : { "tasks":[ 1, {"params":${value} } ]}} `;
    expect(rawAt(text, ["result", "tasks", 1, "params"])).toBe(value);
    expect(rawAt(text, ["result", "tasks", 2, "params"])).toBeNull();
    expect(rawAt(text, ["result", 0])).toBeNull();
    expect(rawAt(text, [])).toBe(text.trim());
  });
});

describe("JSON that is passed on", () => {
  property.prop([jsonText, jsonText, space])("goes in and out to the byte", (content, metadata, between) => {
    const parsed = parseKeeping(`{"taskId":"t",${between}"content":${between}${content},"metadata":${metadata}}`, [
      "content",
      "metadata",
      "params",
    ]);
    if (!parsed.ok) throw new Error(parsed.error.kind);
    expect(parsed.value["taskId"]).toBe("t");
    expect("params" in parsed.value).toBe(false);
    const out = writeJson({ task: { content: parsed.value["content"], list: [parsed.value["metadata"]] } });
    expect(out).toBe(`{"task":{"content":${content},"list":[${metadata}]}}`);
  });

  test.each([
    ["[1]", { kind: "no-object" }],
    ["null", { kind: "no-object" }],
    ["{", { kind: "not-json" }],
    ["", { kind: "not-json" }],
    ['{"content":1,"\\u0063ontent":2}', { kind: "duplicate", member: "content" }],
  ])("of %s is refused", (text, problem) => {
    expect(parseKeeping(text, ["content"])).toEqual({ ok: false, error: problem });
  });

  test("is bounded in bytes of UTF-8 by its schema, which takes nothing that was parsed", () => {
    const schema = z.object({ content: keptJson(6) });
    const read = (text: string): boolean => {
      const parsed = parseKeeping(text, ["content"]);
      return parsed.ok && schema.safeParse(parsed.value).success;
    };
    expect(read('{"content":"日a"}')).toBe(true);
    expect(read('{"content":"日ab"}')).toBe(false);
    expect(read("{}")).toBe(false);
    expect(schema.safeParse({ content: "text" }).success).toBe(false);
  });

  test("cannot be written anew by mistake", () => {
    expect(() => JSON.stringify({ content: new JsonText("1e400") })).toThrow(TypeError);
  });
});

describe("writing JSON", () => {
  property.prop([fc.anything({ withDate: true, withNullPrototype: false, maxDepth: 4 })])(
    "is JSON.stringify where nothing is passed on",
    (value) => {
      const plain = JSON.stringify(value) as string | undefined;
      expect(writeJson(value)).toBe(plain ?? "null");
    },
  );
});
