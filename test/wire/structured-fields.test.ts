import { fc, test as property } from "@fast-check/vitest";
import * as oracle from "structured-headers";
import { expect, test } from "vitest";
import {
  parseDictionary,
  serializeInnerList,
  serializeString,
  STRUCTURED_FIELD_MAX_LENGTH,
} from "../../src/wire/structured-fields.ts";

test.each([
  ["a=1", { a: 1 }],
  ["a=1, b=-2", { a: 1, b: -2 }],
  ["a=1.5", { a: 1.5 }],
  ['a="x\\"y"', { a: 'x"y' }],
  ["a=tok/en", { a: "tok/en" }],
  ["a=?0", { a: false }],
  ["a", { a: true }],
  ["a;x=1, b", { a: true, b: true }],
  ["", {}],
])("structured fields: %s is read", (text, expected) => {
  const read = parseDictionary(text);
  const shown = read.ok
    ? Object.fromEntries([...read.value].map(([key, m]) => [key, m.kind === "item" ? m.item.value : "list"]))
    : read.error;
  expect(shown).toEqual(expected);
});

test.each([
  ["a key that stands twice", "a=1, a=2"],
  ["a parameter that stands twice", "a;x=1;x=2"],
  ["an upper-case key", "A=1"],
  ["a trailing comma", "a=1,"],
  ["no comma", "a=1 b=2"],
  ["base64 without padding", "a=:aGk:"],
  ["base64 with stray bits", "a=:aGl=:"],
  ["base64url", "a=:_-8=:"],
  ["an integer of 16 digits", "a=1234567890123456"],
  ["a decimal of four places", "a=1.2345"],
  ["a string with a control character", 'a="\u0007"'],
  ["an open string", 'a="x'],
  ["an open list", "a=(1 2"],
  ["a list without spaces", 'a=("x""y")'],
  ["text beyond ASCII", 'a="é"'],
  ["more members than are kept", Array.from({ length: 65 }, (_, at) => `a${at}`).join(",")],
  ["a text that is too long", `a="${"x".repeat(STRUCTURED_FIELD_MAX_LENGTH)}"`],
])("structured fields: %s is refused", (_what, text) => {
  expect(parseDictionary(text).ok).toBe(false);
});

test("structured fields: an inner list is serialized as it is signed, however its spaces were", () => {
  const read = parseDictionary('sig=( "@method"   "a";b;c=2 );created=1;expires=02;n="q\\"z";f=?1');
  const member = read.ok ? read.value.get("sig") : undefined;
  expect(member?.kind === "list" && serializeInnerList(member)).toBe(
    '("@method" "a";b;c=2);created=1;expires=2;n="q\\"z";f',
  );
});

test("structured fields: a string that no field can hold is not serialized", () => {
  expect(serializeString('a"b\\')).toBe('"a\\"b\\\\"');
  expect(serializeString("é")).toBeNull();
  expect(serializeString("\n")).toBeNull();
});

/** Text near the grammar: pieces of real fields in any order. */
const PIECES = [
  "a",
  "b",
  "=",
  "1",
  "-1",
  "1.5",
  '"',
  "x",
  "\\",
  ":aGk=:",
  "(",
  ")",
  " ",
  ";",
  ",",
  "?1",
  "*",
  '%"a"',
  "\t",
];

property.prop([fc.array(fc.constantFrom(...PIECES), { maxLength: 14 }).map((pieces) => pieces.join(""))], {
  numRuns: 20_000,
})("structured fields: what is read here reads alike in structured-headers, and serializes alike", (text) => {
  const read = parseDictionary(text);
  if (!read.ok) return;
  const other = oracle.parseDictionary(text);
  expect([...other.keys()]).toEqual([...read.value.keys()]);
  for (const [key, member] of read.value) {
    const theirs = other.get(key);
    if (member.kind === "list" && theirs !== undefined && oracle.isInnerList(theirs))
      expect(serializeInnerList(member)).toBe(oracle.serializeInnerList(theirs).replaceAll(/;(\w+)=\?1/g, ";$1"));
    else expect(theirs !== undefined && oracle.isInnerList(theirs)).toBe(member.kind === "list");
  }
});
