import { describe, expect, test } from "vitest";
import { decodeBase64Url } from "../../src/wire/base64url.ts";
import { importEd25519PublicKey, proofText, sha256Base64Url, signProof, verifyProof } from "../../src/wire/proof.ts";
import vectors from "../vectors/proof.json";

const bytesOf = (text: string): Uint8Array => decodeBase64Url(text) ?? new Uint8Array();
const publicKey = await importEd25519PublicKey(bytesOf(vectors.privateJwk.x));
const privateKey = await crypto.subtle.importKey("jwk", vectors.privateJwk, { name: "Ed25519" }, false, ["sign"]);

describe.each(vectors.cases)("the proof of $name", (vector) => {
  test("is over this text", () => {
    expect(proofText(vector)).toBe(vector.text);
  });

  test("has this hash of its body", async () => {
    expect(await sha256Base64Url(new TextEncoder().encode(vector.body))).toBe(vector.bodySha256);
  });

  test("is this signature, which verifies", async () => {
    expect(await signProof(privateKey, vector)).toBe(vector.proof);
    expect(await verifyProof(publicKey, vector, bytesOf(vector.proof))).toBe(true);
  });

  test.each([
    ["method", { method: "PUT" }],
    ["path", { pathWithQuery: "/hooks/agent2" }],
    ["query", { pathWithQuery: `${vector.pathWithQuery}&x=1` }],
    ["timestamp", { timestamp: "1795348899" }],
    ["nonce", { nonce: "another" }],
    ["body", { bodySha256: "y7vc0naSNE3l26s6vKukE_sPRTByZ95wgUAVdt8csXZ" }],
  ])("does not verify over another %s", async (_what, change) => {
    expect(await verifyProof(publicKey, { ...vector, ...change }, bytesOf(vector.proof))).toBe(false);
  });

  test.each([0, 63, 65, 128])("does not verify with a signature of %d bytes", async (length) => {
    const signature = new Uint8Array(length);
    signature.set(bytesOf(vector.proof).subarray(0, length));
    expect(await verifyProof(publicKey, vector, signature)).toBe(false);
  });
});
