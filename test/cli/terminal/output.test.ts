import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { createOutput, type Words } from "../../../src/cli/terminal/output.ts";
import { CliError, EXIT } from "../../../src/cli/terminal/errors.ts";
import { JsonText } from "../../../src/wire/json-text.ts";
import { hasUnseen } from "../../../src/wire/text.ts";

/** What is printed, by which way it may come. */
async function printed(json: boolean, data: unknown, words: Words): Promise<string[]> {
  let [out, err] = ["", ""];
  const streams = {
    out: (text: string) => {
      out += text;
      return Promise.resolve();
    },
    err: (text: string) => void (err += text),
  };
  const output = createOutput(streams, json);
  await output.item(data, words);
  const item = out;
  out = "";
  await output.result(data, words);
  output.remark(words);
  output.failure(
    new CliError("CODE", String(words), { exitCode: EXIT.refused, advice: String(words), cause: undefined }),
  );
  return [item, out, err];
}

/** Everything that Unicode has, and more of what does harm. */
const anyText = fc.oneof(
  fc.string({ unit: "binary" }),
  fc
    .array(
      fc.oneof(
        fc.string({ unit: "grapheme", maxLength: 3 }),
        fc.constantFrom(..."\u0000\u001b\u009b\u202e\u2066\u200b\u00ad\u3164\u2028\n\r\t"),
      ),
    )
    .map((parts) => parts.join("")),
);

describe("whatever text comes from elsewhere", () => {
  property.prop([anyText])("cannot do anything to a terminal", async (text) => {
    for (const json of [false, true]) {
      for (const stream of await printed(json, { text }, text)) {
        for (const line of stream.split("\n")) expect(hasUnseen(line)).toBe(false);
      }
    }
  });

  property.prop([anyText])("begins no line of its own", async (text) => {
    const [item, result, err] = await printed(false, {}, ["first", text, "last"]);
    expect(item?.split("\n")).toHaveLength(4);
    expect(result).toBe(item);
    expect(err?.split("\n")).toHaveLength(6);
  });

  property.prop([fc.jsonValue(), anyText])("is the same value in JSON", async (value, text) => {
    const data = { value, text, [text]: null };
    const [item, result] = await printed(true, data, "");
    expect(item?.trimEnd()).not.toContain("\n");
    const expected: unknown = JSON.parse(JSON.stringify(data));
    expect(JSON.parse(item ?? "")).toEqual(expected);
    expect(JSON.parse(result ?? "")).toEqual(expected);
  });
});

test("JSON that is passed on keeps its numbers, its names and its spelling, on one line", async () => {
  const json = '{"id":12345678901234567890,"x":1e400,"y":-0,\n\t"z":1,"z":"\\u0041\u202e"}';
  const [item, result] = await printed(
    true,
    { payload: new JsonText(json), list: [new JsonText("1.0"), undefined] },
    "",
  );
  const kept = String.raw`{"id":12345678901234567890,"x":1e400,"y":-0,  "z":1,"z":"\u0041\u202e"}`;
  expect(item).toBe(`{"payload":${kept},"list":[1.0,null]}\n`);
  expect(result).toBe(`{\n  "payload": ${kept},\n  "list": [\n    1.0,\n    null\n  ]\n}\n`);
});

test("what is not written out is not done", async () => {
  const gone = Object.assign(new Error("write EPIPE"), { code: "EPIPE" });
  const output = createOutput({ out: () => Promise.reject(gone), err: () => undefined }, true);
  await expect(output.item({}, "")).rejects.toBe(gone);
});
