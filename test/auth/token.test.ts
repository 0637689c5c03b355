import { describe, expect, test } from "vitest";
import { createTokenMemory, readAit, type UnverifiedAit, type VerifiedAit, verifyAit } from "../../src/auth/token.ts";
import { encodeBase64Url } from "../../src/wire/base64url.ts";
import { isStrongEd25519Point } from "../../src/wire/ed25519-point.ts";
import {
  AIT_HEADER,
  type FakeRegistry,
  fakeRegistry,
  ISSUER,
  KID,
  newAgent,
  newKeyPair,
  NOW_MS,
  rawPublicKey,
  requestScope,
  signJws,
} from "./fixture.ts";

const EXPECTED = { issuer: ISSUER, nowMs: NOW_MS };

async function verify(ait: string, registry: FakeRegistry): Promise<string> {
  const read = readAit(ait, EXPECTED);
  if (!read.ok) return read.error.reason;
  const verified = await verifyAit(read.value, registry.keys, requestScope());
  return verified.ok ? "verified" : verified.error.reason;
}

describe("a token", () => {
  test("signed by the registry's key is verified, and its proof key imported", async () => {
    const alice = await newAgent();
    const read = readAit(alice.ait, EXPECTED);
    if (!read.ok) throw new Error(read.error.reason);
    const verified = await verifyAit(read.value, fakeRegistry().keys, requestScope());
    if (!verified.ok) throw new Error(verified.error.reason);
    const { ait } = verified.value;
    expect([ait.kid, ait.claims.sub]).toEqual([KID, alice.did]);
    const signature = await crypto.subtle.sign("Ed25519", alice.pair.privateKey, new Uint8Array([1]));
    expect(await crypto.subtle.verify("Ed25519", ait.proofKey, signature, new Uint8Array([1]))).toBe(true);
  });

  test("every byte of it counts: no changed character is accepted", async () => {
    const { ait } = await newAgent();
    const registry = fakeRegistry();
    for (let index = 0; index < ait.length; index += 7) {
      const changed = ait.slice(0, index) + (ait[index] === "A" ? "B" : "A") + ait.slice(index + 1);
      expect(await verify(changed, registry), `character ${index}`).not.toBe("verified");
    }
  });

  test("under an unknown kid of its own key is refused", async () => {
    const own = await newKeyPair();
    const { claims } = await newAgent();
    expect(await verify(await signJws({ ...AIT_HEADER, kid: "mine" }, claims, own.privateKey), fakeRegistry())).toBe(
      "ait-key-unknown",
    );
    expect(await verify(await signJws(AIT_HEADER, claims, own.privateKey), fakeRegistry())).toBe(
      "ait-signature-invalid",
    );
  });

  test("may name a key for itself in its header, and is not heard", async () => {
    const own = await newKeyPair();
    const { claims } = await newAgent();
    const jwk = { kty: "OKP", crv: "Ed25519", x: encodeBase64Url(await rawPublicKey(own)) };
    const ait = await signJws({ ...AIT_HEADER, jwk, jku: "https://evil.example.com/keys" }, claims, own.privateKey);
    expect(await verify(ait, fakeRegistry())).toBe("ait-signature-invalid");
  });

  test.each([8_192, 8_193])("of %i bytes", async (length) => {
    const read = readAit(`a.b.${"c".repeat(length - 4)}`, EXPECTED);
    expect(read.ok ? null : read.error.reason).toBe(length > 8_192 ? "ait-too-long" : "ait-malformed");
  });

  test("is valid from 60 s before nbf and iat on, and until exp, to the millisecond", async () => {
    const { ait, claims } = await newAgent();
    const at = (nowMs: number) => {
      const read = readAit(ait, { issuer: ISSUER, nowMs });
      return read.ok ? "valid" : read.error.reason;
    };
    const [nbf, exp] = [Number(claims["nbf"]) * 1_000, Number(claims["exp"]) * 1_000];
    expect([at(nbf - 60_001), at(nbf - 60_000), at(nbf), at(exp - 1), at(exp)]).toEqual([
      "ait-not-yet-valid",
      "valid",
      "valid",
      "valid",
      "ait-expired",
    ]);
    const later = await newAgent({ iat: NOW_MS / 1_000 + 60 });
    const read = (nowMs: number) => readAit(later.ait, { issuer: ISSUER, nowMs });
    expect([read(NOW_MS - 1).ok, read(NOW_MS).ok]).toEqual([false, true]);
  });

  test("a refusal says which part is wrong and nothing of the token", async () => {
    const { claims } = await newAgent({ name: "a\u0007secret" });
    const read = readAit(await signJws(AIT_HEADER, claims), EXPECTED);
    expect(read.ok ? null : read.error).toMatchObject({
      reason: "ait-claims-invalid",
      diagnostics: { wrong: expect.stringMatching(/^name: /) as string },
    });
    expect(JSON.stringify(read)).not.toContain("secret");
  });
});

const remembered = (exp: number): VerifiedAit => ({ kid: KID, claims: { exp } }) as VerifiedAit;

describe("the memory of verified tokens", () => {
  const EXP = NOW_MS / 1_000 + 100;

  test("holds a token until its exp", () => {
    const memory = createTokenMemory();
    memory.keep("token", remembered(EXP));
    expect(memory.find("token", EXP * 1_000 - 1)).not.toBeNull();
    expect(memory.find("token", EXP * 1_000)).toBeNull();
    expect(memory.size()).toBe(0);
  });

  test("is bounded, and the least recently used goes first", () => {
    const memory = createTokenMemory(3);
    for (const token of ["a", "b", "c"]) memory.keep(token, remembered(EXP));
    memory.find("a", NOW_MS);
    memory.keep("d", remembered(EXP));
    expect(["a", "b", "c", "d"].map((token) => memory.find(token, NOW_MS) !== null)).toEqual([true, false, true, true]);
    expect(memory.size()).toBe(3);
  });

  test("knows nothing of a token that was never verified", async () => {
    const memory = createTokenMemory();
    const { ait } = await newAgent();
    const read: UnverifiedAit | null = memory.find(ait, NOW_MS) as UnverifiedAit | null;
    expect(read).toBeNull();
  });
});

const hex = (text: string) => Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));

describe("a public key", () => {
  test.each([
    ["the identity", `01${"00".repeat(31)}`],
    ["the identity with a sign", `01${"00".repeat(30)}80`],
    ["the point of order 2", `ec${"ff".repeat(30)}7f`],
    ["a point of order 4", "00".repeat(32)],
    ["the other point of order 4", `${"00".repeat(31)}80`],
    ["a point of order 8", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"],
    ["another point of order 8", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"],
    ["zero, not canonical", `ed${"ff".repeat(30)}7f`],
    ["one, not canonical", `ee${"ff".repeat(30)}7f`],
    ["the largest y", "ff".repeat(32)],
    ["31 bytes", "11".repeat(31)],
    ["33 bytes", "11".repeat(33)],
  ])("that is %s may stand for nobody", (_what, text) => {
    expect(isStrongEd25519Point(hex(text))).toBe(false);
  });

  test("that was generated may", async () => {
    for (let round = 0; round < 20; round += 1) {
      expect(isStrongEd25519Point(await rawPublicKey(await newKeyPair()))).toBe(true);
    }
  });

  test("of small order would verify for texts that nobody signed, which is why it is refused", async () => {
    const identity = hex(`01${"00".repeat(31)}`);
    const key = await crypto.subtle.importKey("raw", identity, "Ed25519", true, ["verify"]);
    const forged = new Uint8Array(64);
    forged[0] = 1;
    expect(await crypto.subtle.verify("Ed25519", key, forged, new TextEncoder().encode("anything"))).toBe(true);
  });
});
