import { describe, expect, test } from "vitest";
import { withShortLives } from "./short-lives.ts";

const bundle =
  "var STATUS_KEPT_MS = 864e5;\nvar RECEIPTS_KEPT_MS = 7 * 864e5;\nvar REPEAT_KNOWN_MS = 6e5;\nvar PRUNE_EVERY_MS = 6e4;\nvar PRUNE_EVERY_MS2 = 36e5;\nvar HOUSEKEEPING_AFTER_MS = 6e4;\nvar NONCES_PER_GENERATION = 16384;\nvar TOKENS_REMEMBERED = 16384;\n";

describe("a bundle with short lives", () => {
  test("has every constant changed, also those that the bundler has numbered", () => {
    expect(withShortLives(bundle)).toBe(
      "var STATUS_KEPT_MS = 30000;\nvar RECEIPTS_KEPT_MS = 30000;\nvar REPEAT_KNOWN_MS = 30000;\nvar PRUNE_EVERY_MS = 10000;\nvar PRUNE_EVERY_MS2 = 10000;\nvar HOUSEKEEPING_AFTER_MS = 10000;\nvar NONCES_PER_GENERATION = 512;\nvar TOKENS_REMEMBERED = 32;\n",
    );
  });

  test("is not made of one that lacks a constant", () => {
    expect(() => withShortLives(bundle.replace("REPEAT_KNOWN_MS", "OTHER"))).toThrow("REPEAT_KNOWN_MS");
  });
});
