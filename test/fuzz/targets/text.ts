/** Text that people recognise, text in headers, and JSON that is passed on: against readers that share no code with them. */
import * as fc from "fast-check";
import { peekFrame } from "../../../src/wire/frame-peek.ts";
import { JsonText, parseKeeping, writeJson } from "../../../src/wire/json-text.ts";
import { decodeHeaderText, encodeHeaderText, escapeForTerminal, plainTextProblem } from "../../../src/wire/text.ts";
import { anyJson, anyText, looseJson, mutated } from "../arbitraries.ts";
import { must, target } from "../target.ts";

/** Ranges that no reader sees, by number: the rule of the program goes by Unicode's properties. */
const UNSEEN: readonly (readonly [number, number])[] = [
  [0x00, 0x1f],
  [0x7f, 0x9f],
  [0xad, 0xad],
  [0x61c, 0x61c],
  [0x115f, 0x1160],
  [0x180e, 0x180e],
  [0x200b, 0x200f],
  [0x2028, 0x202e],
  [0x2060, 0x206f],
  [0x3164, 0x3164],
  [0xd800, 0xdfff],
  [0xfeff, 0xfeff],
  [0xffa0, 0xffa0],
  [0xe0000, 0xe0fff],
];
const isUnseen = (char: string): boolean => {
  const code = char.codePointAt(0) ?? 0;
  return UNSEEN.some(([from, to]) => code >= from && code <= to);
};
/** What an emoji may hold besides what is seen: joiner, selector, tags of flags. */
const isOfEmoji = (char: string): boolean => {
  const code = char.codePointAt(0) ?? 0;
  return code === 0x200d || code === 0xfe0f || (code >= 0xe0020 && code <= 0xe007f);
};

const unseen = fc
  .constantFrom(...UNSEEN.flatMap(([from, to]) => [from, to, Math.floor((from + to) / 2)]))
  .map((code) => String.fromCodePoint(code));
const emoji = fc.constantFrom("👩‍💻", "🏳️‍🌈", "❤️", "👍🏽", "🏴󠁧󠁢󠁥󠁮󠁧󠁿");
const name = fc
  .array(
    fc.oneof(
      { weight: 20, arbitrary: fc.string({ unit: "grapheme", minLength: 1, maxLength: 4 }) },
      { weight: 1, arbitrary: unseen },
      { weight: 1, arbitrary: emoji },
    ),
    { maxLength: 6 },
  )
  .map((parts) => parts.join(""));

export const texts = [
  target<string>({
    name: "text that people recognise",
    weight: 4,
    acceptedAtLeast: 0.2,
    arbitrary: fc.oneof(name, mutated(name), anyText),
    holds(text) {
      const isTaken = plainTextProblem(text, 1, 64) === null;
      if (isTaken) {
        must([...text].length <= 64, "it is counted in code points");
        must(
          [...text].every((char) => !isUnseen(char) || isOfEmoji(char)),
          "nothing in it is unseen",
        );
        must(text.isWellFormed() && text.trim() !== "", "it is well formed, and there is something to see");
      }
      const shown = escapeForTerminal(text);
      must(
        [...shown].every((char) => !isUnseen(char) || isOfEmoji(char)),
        "nothing unseen reaches a terminal",
      );
      if (isTaken) must(shown === text, "what is taken is shown as it is");
      return isTaken;
    },
  }),
  target<string>({
    name: "text in headers",
    weight: 3,
    acceptedAtLeast: 0.1,
    arbitrary: fc.oneof(
      name,
      fc.string({ unit: "binary", maxLength: 40 }),
      mutated(name.filter((text) => text.isWellFormed()).map((text) => `UTF-8''${encodeURIComponent(text)}`)),
    ),
    holds(text) {
      if (text.isWellFormed()) {
        const encoded = encodeHeaderText(text);
        must(/^[\x20-\x7e]*$/.test(encoded), "what is sent is visible ASCII");
        const back = decodeHeaderText(encoded);
        must(encoded === "" || (back.ok && back.value === text), "what is written is read back");
      }
      const read = decodeHeaderText(text);
      if (!read.ok) return false;
      must(/^[\x20-\x7e]+$/.test(text), "bytes above 0x7F are never read");
      must(read.value === text || text.toLowerCase().startsWith("utf-8'"), "only RFC 8187 means something else");
      return true;
    },
  }),
  target<{ kept: string; rest: string }>({
    name: "JSON that is passed on",
    weight: 4,
    acceptedAtLeast: 0.2,
    arbitrary: fc.record({
      kept: fc.oneof(
        fc.constantFrom(
          '{"id":12345678901234567890}',
          '{"x":1e400}',
          "-0",
          '{"a":1,"a":2}',
          " [ 1 , 2.0 ]",
          '"\\u0041"',
        ),
        looseJson(anyJson.map((value) => ({ value }))),
      ),
      rest: looseJson(fc.dictionary(fc.constantFrom("a", "b", "payload2", "x y"), anyJson, { maxKeys: 3 })),
    }),
    holds({ kept, rest }) {
      let isJson = true;
      try {
        JSON.parse(kept);
        JSON.parse(rest);
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        isJson = false;
      }
      const inner = rest.trim().slice(1, -1);
      const document = `{"payload": ${kept}${inner.trim() === "" ? "" : `,${inner}`}}`;
      const read = parseKeeping(document, ["payload"]);
      if (!isJson) return false;
      must(read.ok, "a JSON object is read");
      const { payload } = read.value;
      must(payload instanceof JsonText && payload.json === kept.trim(), "the member keeps its own text");
      must(writeJson({ payload }) === `{"payload":${kept.trim()}}`, "and goes out as it came");
      return true;
    },
  }),
  target<string>({
    name: "frames before they are parsed",
    weight: 3,
    acceptedAtLeast: 0.2,
    arbitrary: fc.oneof(
      looseJson(
        fc.record({
          type: fc.oneof(fc.constantFrom("heartbeat", "enqueue", "req", "deliver_ack"), anyText),
          id: fc.oneof(anyText, fc.integer()),
          more: anyJson,
        }),
      ),
      mutated(anyJson.map((value) => JSON.stringify({ type: "req", id: "1", method: "m", value }))),
      anyText,
    ),
    holds(text) {
      const peeked = peekFrame(text);
      let parsed: unknown;
      try {
        parsed = JSON.parse(text);
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        return false;
      }
      if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) return false;
      // A name that stands twice, if only in another spelling, has no one meaning; the relay refuses it once it is parsed.
      const isNamedOnce = !text.includes("\\") && [...text.matchAll(/"type"/g)].length === 1;
      const { type } = parsed as { type?: unknown };
      if (peeked.type !== null && isNamedOnce) must(peeked.type === type, "what is peeked at is what is parsed");
      return peeked.type !== null;
    },
  }),
];
