import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { decodeBase64Url, encodeBase64Url } from "../../src/wire/base64url.ts";
import vectors from "../vectors/base64url.json";

const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const fromHex = (text: string): Uint8Array =>
  Uint8Array.from({ length: text.length / 2 }, (_, index) => Number.parseInt(text.slice(index * 2, index * 2 + 2), 16));

describe("base64url", () => {
  test.each(vectors.canonical)("$hex is written $text, and read back", ({ hex: bytes, text }) => {
    expect(encodeBase64Url(fromHex(bytes))).toBe(text);
    expect(hex(decodeBase64Url(text) ?? new Uint8Array([0xbad]))).toBe(bytes);
  });

  test.each(vectors.refused)("refuses $why", ({ text }) => {
    expect(decodeBase64Url(text)).toBeNull();
  });

  property.prop([fc.uint8Array({ maxLength: 300 })])("any bytes survive the round trip", (bytes) => {
    expect(decodeBase64Url(encodeBase64Url(bytes))).toEqual(bytes);
  });

  property.prop([fc.string({ maxLength: 12 })])("whatever is read has exactly one spelling", (text) => {
    const bytes = decodeBase64Url(text);
    expect(bytes === null || encodeBase64Url(bytes) === text).toBe(true);
  });

  test("a body of 1 MiB is written without running out of stack", () => {
    const bytes = new Uint8Array(1_048_576).fill(0xa5);
    expect(decodeBase64Url(encodeBase64Url(bytes))).toEqual(bytes);
  });
});
