import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { PEEK_MAX, peekFrame } from "../../src/wire/frame-peek.ts";

const NOTHING = { type: null, id: null, method: null };

describe("peekFrame", () => {
  test.each([
    ['{"type":"req","id":"a","method":"task/list"}', { type: "req", id: "a", method: "task/list" }],
    [' { "id" : 7 , "type" : "req" } ', { type: "req", id: 7, method: null }],
    ['{"v":1,"payload":{"type":"x","id":[{}]},"type":"enqueue"}', { ...NOTHING, type: "enqueue" }],
    ['{"type":"heartbeat","type":"req"}', { ...NOTHING, type: "heartbeat" }],
    ['{"type":"a\\u0062","id":1.5,"method":null}', NOTHING],
    ["[1,2]", NOTHING],
    ["", NOTHING],
    ['{"type"', NOTHING],
    ['{"type":"req', NOTHING],
    ['{"type" "req"}', NOTHING],
  ])("of %s", (text, found) => {
    expect(peekFrame(text)).toEqual(found);
  });

  test("looks at the start alone: what stands behind a long member is not found", () => {
    const text = JSON.stringify({ payload: "x".repeat(PEEK_MAX), type: "enqueue" });
    expect(peekFrame(text)).toEqual(NOTHING);
    expect(peekFrame(JSON.stringify({ type: "enqueue", payload: "x".repeat(PEEK_MAX) })).type).toBe("enqueue");
  });

  const member = fc.oneof(fc.string(), fc.integer(), fc.jsonValue());
  property.prop([fc.record({ v: member, type: fc.string(), id: fc.oneof(fc.string(), fc.maxSafeNat()), x: member })])(
    "finds in JSON what JSON.parse finds, or nothing",
    (frame) => {
      const { type, id } = peekFrame(JSON.stringify(frame));
      expect([null, frame.type]).toContain(type);
      expect([null, frame.id]).toContain(id);
    },
  );

  property.prop([fc.string()])("of any text at all ends", (text) => {
    peekFrame(text);
    peekFrame(`{${text}`);
    peekFrame(`{"type":${text}`);
  });
});
