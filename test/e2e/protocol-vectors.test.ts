/** The vectors hold outside of workerd too, where the platform has another base64 and another Ed25519, and the document shows them. */
import { readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { parseAitClaims } from "../../src/wire/ait.ts";
import { decodeBase64Url, encodeBase64Url } from "../../src/wire/base64url.ts";
import { importEd25519PublicKey, proofText, sha256Base64Url, verifyProof } from "../../src/wire/proof.ts";
import ait from "../vectors/ait.json" with { type: "json" };
import base64url from "../vectors/base64url.json" with { type: "json" };
import proofsV2 from "../vectors/proof-v2.json" with { type: "json" };
import proofs from "../vectors/proof.json" with { type: "json" };

const document = await readFile(new URL("../../docs/protocol.md", import.meta.url), "utf8");
const shown = (name: string): string => {
  const fence = new RegExp(`<!-- vector: ${name} -->\\n+\`\`\`\\w+\\n([^\`]*)\\n\`\`\``).exec(document);
  if (fence?.[1] === undefined) throw new Error(`docs/protocol.md shows no ${name}`);
  return fence[1];
};

describe("in Node", () => {
  test.each(base64url.canonical)("$text is read and written", ({ hex, text }) => {
    expect(encodeBase64Url(Buffer.from(hex, "hex"))).toBe(text);
    expect(Buffer.from(decodeBase64Url(text) ?? "bad").toString("hex")).toBe(hex);
  });

  test.each(base64url.refused)("base64url with $why is refused", ({ text }) => {
    expect(decodeBase64Url(text)).toBeNull();
  });

  test.each(proofs.cases)("the proof of $name verifies", async (vector) => {
    const key = await importEd25519PublicKey(decodeBase64Url(proofs.privateJwk.x) ?? new Uint8Array());
    expect(proofText(vector)).toBe(vector.text);
    expect(await sha256Base64Url(Buffer.from(vector.body))).toBe(vector.bodySha256);
    expect(await verifyProof(key, vector, decodeBase64Url(vector.proof) ?? new Uint8Array())).toBe(true);
  });

  test("a body of 1 MiB is written without running out of stack", () => {
    const bytes = new Uint8Array(1_048_576).fill(0xa5);
    expect(Buffer.from(decodeBase64Url(encodeBase64Url(bytes)) ?? "bad").equals(bytes)).toBe(true);
  });
});

describe("docs/protocol.md", () => {
  test("shows the signed text and the signature of the first proof", () => {
    expect(shown("proof.json text")).toBe(proofs.cases[0]?.text);
    expect(shown("proof.json proof")).toBe(proofs.cases[0]?.proof);
  });

  test("shows the signature base and the fields of the first proof of version 2", () => {
    const [first] = proofsV2.cases;
    expect(shown("proof-v2.json base")).toBe(first?.base);
    expect(shown("proof-v2.json fields")).toBe(
      `Signature-Input: ${first?.signatureInput}\nSignature: ${first?.signature}`,
    );
  });

  test("shows the claims of the identity token", () => {
    const claims: unknown = JSON.parse(shown("ait.json claims"));
    expect(claims).toEqual(ait.claims);
    expect(parseAitClaims(claims).ok).toBe(true);
  });
});
