import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { withShortLives } from "./short-lives.ts";

const bundle =
  "var STATUS_RETENTION_MS = 864e5;\nvar RECEIPT_RETENTION_MS = 7 * 864e5;\nvar REPEAT_KNOWN_MS = 6e5;\nvar PRUNE_EVERY_MS = 6e4;\nvar PRUNE_EVERY_MS2 = 36e5;\nvar HOUSEKEEPING_AFTER_MS = 6e4;\nvar NONCES_PER_GENERATION = 16384;\nvar TOKENS_REMEMBERED = 16384;\n";

describe("a bundle with short lives", () => {
  test("has every constant changed, also those that the bundler has numbered", () => {
    expect(withShortLives(bundle)).toBe(
      "var STATUS_RETENTION_MS = 30000;\nvar RECEIPT_RETENTION_MS = 30000;\nvar REPEAT_KNOWN_MS = 30000;\nvar PRUNE_EVERY_MS = 10000;\nvar PRUNE_EVERY_MS2 = 10000;\nvar HOUSEKEEPING_AFTER_MS = 10000;\nvar NONCES_PER_GENERATION = 512;\nvar TOKENS_REMEMBERED = 32;\n",
    );
  });

  test("is not made of one that lacks a constant", () => {
    expect(() => withShortLives(bundle.replace("REPEAT_KNOWN_MS", "OTHER"))).toThrow("REPEAT_KNOWN_MS");
  });

  test("is made of the program as it is now", () => {
    const path = process.env["SALLYPORT_BUNDLE"] ?? "";
    expect(withShortLives(readFileSync(path, "utf8"))).toContain("NONCES_PER_GENERATION = 512;");
  });
});
