import { describe, expect, test } from "vitest";
import {
  formatSubject,
  parseObject,
  parseRelation,
  parseSubject,
  parseTuple,
} from "../../../src/authz/engine/tuple.ts";

const DID = "did:cdi:registry.example.com:agent:01HZX3V9M5E8Q4T7W2Y6K0N1PA";

describe("objects", () => {
  test.each([
    ["task:1", { type: "task", id: "1" }],
    ["group:eng@example.com", { type: "group", id: "eng@example.com" }],
    [`agent:${DID}`, { type: "agent", id: DID }],
    [`agent:did:cdi:${"x".repeat(253)}:agent:1`, { type: "agent", id: `did:cdi:${"x".repeat(253)}:agent:1` }],
    [`d:${"x".repeat(254)}`, { type: "d", id: "x".repeat(254) }],
  ])("%s is read as type and id", (text, parts) => {
    expect(parseObject(text)).toEqual({ ok: true, value: parts });
  });

  test.each([
    ["", "type:id"],
    ["task", "type:id"],
    [":1", "type:id"],
    ["task:", "malformed"],
    ["task:*", "wildcard"],
    ["task:1#owner", "malformed"],
    ["ta#sk:1", "type:id"],
    ["task: 1", "white space"],
    ["task:1\n", "white space"],
    ["task:1\u0000", "control"],
    ["task:1\u202e", "control"],
    ["task:\ud800", "control"],
    // The one rule for text that a person may have to recognise: see test/wire/text.test.ts.
    ["task:so\u00adft", "cannot be seen"],
    ["group:\u3164", "cannot be seen"],
    ["group:staff\u2066", "cannot be seen"],
    ["group:\u{e0041}", "cannot be seen"],
    ["group:a\u200bb", "cannot be seen"],
    [`d:${"x".repeat(255)}`, "256 bytes"],
    [`d:${"é".repeat(128)}`, "256 bytes"],
  ])("%j is refused", (text, reason) => {
    const parsed = parseObject(text);
    expect(parsed).toMatchObject({ ok: false, error: expect.stringContaining(reason) as unknown });
  });
});

test("an emoji is one visible sign", () => {
  expect(parseObject("group:\u{1f469}\u200d\u{1f680}").ok).toBe(true);
});

test.each(["group:st\u00adaff#member", "group:staff#mem\u3164ber", "user:\u2800"])(
  "the subject %j is refused",
  (text) => {
    expect(parseSubject(text).ok).toBe(false);
  },
);

describe("subjects", () => {
  test.each([
    ["user:ann", { type: "user", id: "ann", relation: "" }],
    ["user:*", { type: "user", id: "*", relation: "" }],
    ["group:eng#member", { type: "group", id: "eng", relation: "member" }],
    [`agent:${DID}#owner`, { type: "agent", id: DID, relation: "owner" }],
  ])("%s is read and written back", (text, parts) => {
    expect(parseSubject(text)).toEqual({ ok: true, value: parts });
    expect(formatSubject(parts)).toBe(text);
  });

  test.each(["*", "ann", "group:*#member", "group:eng#", "group:eng#a#b", "group:eng#mem ber", `u:${"x".repeat(511)}`])(
    "%s is refused",
    (text) => {
      expect(parseSubject(text).ok).toBe(false);
    },
  );
});

describe("relations", () => {
  test("a name of 50 bytes is accepted", () => {
    expect(parseRelation("x".repeat(50))).toEqual({ ok: true, value: "x".repeat(50) });
  });

  test.each(["", "x".repeat(51), "é".repeat(26), "a b", "a:b", "a#b", "a@b", "a\tb", "a\u0007"])(
    "%j is refused",
    (text) => {
      expect(parseRelation(text).ok).toBe(false);
    },
  );
});

test("a tuple is refused for its first malformed part", () => {
  expect(parseTuple({ object: "task:1", relation: "owner", subject: "ann" })).toEqual({
    ok: false,
    error: "the subject must have the form type:id",
  });
});
