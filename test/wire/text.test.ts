import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import {
  codePoints,
  cutToCodePoints,
  decodeHeaderText,
  encodeHeaderText,
  escapeForTerminal,
  hasUnseen,
  plainText,
  plainTextProblem,
} from "../../src/wire/text.ts";

/** Ranges of what nobody sees, by number, so that the rule's properties are compared with a list. */
const UNSEEN_RANGES: readonly (readonly [number, number])[] = [
  [0x00, 0x1f],
  [0x7f, 0x9f],
  [0xad, 0xad],
  [0x034f, 0x034f],
  [0x061c, 0x061c],
  [0x115f, 0x1160],
  [0x17b4, 0x17b5],
  [0x180b, 0x180f],
  [0x200b, 0x200f],
  [0x2028, 0x202e],
  [0x2060, 0x206f],
  [0x2800, 0x2800],
  [0x3164, 0x3164],
  [0xfe00, 0xfe0f],
  [0xfeff, 0xfeff],
  [0xffa0, 0xffa0],
  [0xfff0, 0xfffb],
  [0x1bca0, 0x1bca3],
  [0x1d173, 0x1d17a],
  [0xe0000, 0xe0fff],
];
const unseen = fc
  .constantFrom(...UNSEEN_RANGES)
  .chain(([from, to]) => fc.integer({ min: from, max: to }).map((code) => String.fromCodePoint(code)));
const halfPair = fc.integer({ min: 0xd800, max: 0xdfff }).map((code) => String.fromCharCode(code));
const visible = fc
  .stringMatching(/^[\p{L}\p{N}\p{P}\p{Sm}\p{Sc} ]{0,12}$/u)
  .filter((text) => !/[\u115f\u1160\u3164\uffa0]/.test(text));

describe("text that a person may have to recognise", () => {
  property.prop([visible, unseen, visible], { numRuns: 500 })(
    "never holds what cannot be seen",
    (before, char, after) => {
      expect(hasUnseen(before + char + after)).toBe(true);
      expect(plainTextProblem(`a${before}${char}${after}`, 1, 64)).toBe("holds a character that cannot be seen");
    },
  );

  property.prop([visible, halfPair])("never holds half a character", (text, half) => {
    expect(plainTextProblem(`${text}${half}.`, 1, 64)).toBe("holds half a character");
  });

  property.prop([visible])("is taken where all of it is seen", (text) => {
    expect(plainTextProblem(`a${text}`, 1, 64)).toBeNull();
  });

  test.each([
    "Ada",
    "東京 42",
    "café",
    "cafe\u0301",
    "Владимир",
    "नमस्ते",
    "🦊 laptop",
    "❤️",
    "👩‍💻 on call",
    "🇫🇷",
    "1️⃣",
    "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
  ])("%s is such text", (text) => {
    expect(plainTextProblem(text, 1, 64)).toBeNull();
    expect(escapeForTerminal(text)).toBe(text);
  });

  test.each(["a\u200db", "a\ufe0f", "😀\ufe0f", "❤️\ufe0f", "👩\u200d", "\u200d💻", "\u{e0067}\u{e007f}", "🦊\u202e"])(
    "an emoji excuses nothing outside of its own spelling: %j",
    (text) => {
      expect(plainTextProblem(text, 1, 64)).toBe("holds a character that cannot be seen");
    },
  );

  property.prop([fc.string({ unit: "binary", maxLength: 40 }), fc.nat({ max: 40 })])(
    "is counted in code points",
    (text, max) => {
      const count = codePoints(text);
      expect(count).toBe(Array.from(text).length);
      expect(plainTextProblem("🦊".repeat(count), 0, max)).toBe(
        count > max ? `is longer than ${max} characters` : null,
      );
      const cut = cutToCodePoints(text, max);
      expect(text.startsWith(cut)).toBe(true);
      expect(codePoints(cut)).toBe(Math.min(count, max));
      if (text.isWellFormed()) expect(cut.isWellFormed()).toBe(true);
    },
  );

  test.each([
    ["", 1, "is empty"],
    ["ab", 3, "is shorter than 3 characters"],
    [" \u3000\u00a0", 1, "is blank"],
    ["", 0, null],
  ])("%j with a minimum of %i: %s", (text, min, problem) => {
    expect(plainTextProblem(text, min, 8)).toBe(problem);
  });

  test("has a schema, whose message never repeats it", () => {
    const schema = plainText(1, 4);
    expect(schema.safeParse("🦊🦊🦊🦊").success).toBe(true);
    expect(schema.safeParse(7).success).toBe(false);
    const refused = schema.safeParse("ab\u202ecd");
    expect(refused.error?.issues[0]?.message).toBe("is longer than 4 characters");
    expect(schema.safeParse("a\u202e").error?.issues[0]?.message).toBe("holds a character that cannot be seen");
  });
});

describe("text on its way to a terminal", () => {
  property.prop([fc.string({ unit: "binary" })], { numRuns: 300 })(
    "holds nothing unseen, and nothing is lost",
    (text) => {
      const shown = escapeForTerminal(text);
      expect(hasUnseen(shown)).toBe(false);
      expect(JSON.parse(`"${shown.replaceAll(/\\(?!u)|"/g, (char) => `\\${char}`)}"`)).toBe(text);
    },
  );

  property.prop([fc.json()])("stays the JSON that it was", (json) => {
    expect(JSON.parse(escapeForTerminal(json))).toEqual(JSON.parse(json));
  });

  test.each([
    ["red \u001b[31m", "red \\u001b[31m"],
    ["a\u202eb\u009bc", "a\\u202eb\\u009bc"],
    ["tag\u{e0041}", "tag\\udb40\\udc41"],
    ["half\ud83d", "half\\ud83d"],
    ["👩‍💻\u200d", "👩‍💻\\u200d"],
    ["two\nlines\r", "two\nlines\\u000d"],
  ])("%j is shown as %s", (text, shown) => {
    expect(escapeForTerminal(text, "\n\t")).toBe(shown);
  });
});

describe("text in a header", () => {
  property.prop([fc.string({ unit: "grapheme" }).filter((text) => text.isWellFormed())], { numRuns: 300 })(
    "comes back as it went in, by visible ASCII alone",
    (text) => {
      const value = encodeHeaderText(text);
      expect(value).toMatch(/^[\x20-\x7e]+$/);
      expect(new Headers({ "X-Claw-Conversation-Id": value }).get("X-Claw-Conversation-Id")).toBe(value);
      expect(decodeHeaderText(value)).toEqual({ ok: true, value: text });
    },
  );

  test.each([
    ["thread-1", "thread-1"],
    ["with space", "with space"],
    ["café", "UTF-8''caf%C3%A9"],
    ["東京", "UTF-8''%E6%9D%B1%E4%BA%AC"],
    ["it's (1)*", "it's (1)*"],
    [" é'()*", "UTF-8''%20%C3%A9%27%28%29%2A"],
    ["UTF-8''x", "UTF-8''UTF-8%27%27x"],
    ["", "UTF-8''"],
  ])("%j is sent as %s", (text, value) => {
    expect(encodeHeaderText(text)).toBe(value);
    expect(decodeHeaderText(value)).toEqual({ ok: true, value: text });
  });

  test.each(["utf-8'en'caf%c3%a9", "UTF-8'de-CH'caf%C3%A9"])("%s has its language left out", (value) => {
    expect(decodeHeaderText(value)).toEqual({ ok: true, value: "café" });
  });

  test.each([
    "café",
    "caf\ufffd",
    "caf\u00c3\u00a9",
    "a\tb",
    "a\u007f",
    "UTF-8''caf%E9",
    "UTF-8''a b",
    "UTF-8'x",
    "UTF-8''%4",
  ])("%j is refused", (value) => {
    expect(decodeHeaderText(value).ok).toBe(false);
  });
});
