import { describe, expect, test } from "vitest";
import { issuerHost, parseAitClaims, parseAitHeader } from "../../src/wire/ait.ts";
import { decodeBase64Url } from "../../src/wire/base64url.ts";
import { decodeUnverifiedJws } from "../../src/wire/jws.ts";
import { importEd25519PublicKey } from "../../src/wire/proof.ts";
import vectors from "../vectors/ait.json";

const good = vectors.claims;
const refusal = (change: Record<string, unknown>): string => {
  const parsed = parseAitClaims({ ...good, ...change });
  return parsed.ok ? "accepted" : parsed.error;
};

describe("an identity token", () => {
  test("reads as its header and claims, and is signed by the key of its registry", async () => {
    const jws = decodeUnverifiedJws(vectors.token);
    if (!jws.ok) throw new Error(jws.error);
    expect(parseAitHeader(jws.value.header)).toEqual({ ok: true, value: vectors.header });
    expect(parseAitClaims(jws.value.claims)).toEqual({ ok: true, value: good });
    const key = await importEd25519PublicKey(
      decodeBase64Url(vectors.keysDocument.keys[0]?.x ?? "") ?? new Uint8Array(),
    );
    const signed = new TextEncoder().encode(jws.value.signingInput);
    expect(await crypto.subtle.verify("Ed25519", key, jws.value.signature, signed)).toBe(true);
  });

  test.each([
    "",
    "a",
    "a.b",
    "..",
    "a.b.c.d",
    "e30.e30",
    "e30.e30.A",
    "e30=.e30.AA",
    "!.e30.AA",
    "e30.bm90IGpzb24.AA",
    "e30._w.AA",
  ])("%j has not the form of one", (token) => {
    expect(decodeUnverifiedJws(token).ok).toBe(false);
  });

  test("may leave out its description", () => {
    const { description: _left, ...rest } = good;
    expect(parseAitClaims(rest).ok).toBe(true);
  });

  test.each(Object.keys(good).filter((claim) => claim !== "description"))("cannot leave out %s", (claim) => {
    expect(refusal({ [claim]: undefined })).toContain(claim);
  });

  test.each([
    ["a claim beyond the list", { aud: "x" }, "not allowed"],
    ["a member beyond the key's", { cnf: { jwk: { ...good.cnf.jwk, d: "AA" } } }, "cnf.jwk"],
    ["a member beside the key", { cnf: { ...good.cnf, kid: "x" } }, "cnf"],
    ["a key of 31 bytes", { cnf: { jwk: { ...good.cnf.jwk, x: good.cnf.jwk.x.slice(0, 42) } } }, "cnf.jwk.x"],
    [
      "a key with a non-canonical tail",
      { cnf: { jwk: { ...good.cnf.jwk, x: `${good.cnf.jwk.x.slice(0, 42)}R` } } },
      "cnf.jwk.x",
    ],
    ["another curve", { cnf: { jwk: { ...good.cnf.jwk, crv: "X25519" } } }, "cnf.jwk.crv"],
    ["a subject that is a human", { sub: good.ownerDid }, "sub"],
    ["an owner that is an agent", { ownerDid: good.sub }, "ownerDid"],
    ["a subject of another authority", { sub: good.sub.replace("example.com", "example.org") }, "authority"],
    ["an owner of another authority", { ownerDid: good.ownerDid.replace("example.com", "example.org") }, "authority"],
    ["an issuer that is no URL", { iss: "registry.example.com" }, "iss"],
    ["an issuer of another scheme", { iss: "ftp://registry.example.com" }, "iss"],
    ["a name with a control character", { name: "Scout\u0007" }, "name"],
    ["a name with a line break at the end", { name: "Scout\n" }, "name"],
    ["a name with a slash", { name: "a/b" }, "name"],
    ["an empty name", { name: "" }, "name"],
    ["a name of 65 characters", { name: "a".repeat(65) }, "name"],
    ["an empty framework", { framework: "" }, "framework"],
    ["a framework of 33 characters", { framework: "a".repeat(33) }, "framework"],
    ["a framework with a control character", { framework: "a\u0085" }, "framework"],
    ["a description of 281 characters", { description: "a".repeat(281) }, "description"],
    ["a description with a control character", { description: "a\u0000b" }, "description"],
    ["an issuer with a control character", { iss: "https://registry.example.com/\t" }, "iss"],
    ["an end that is text", { exp: "1797940800" }, "exp"],
    ["an end with a fraction", { exp: 1_797_940_800.5 }, "exp"],
    ["an end at its beginning", { exp: good.nbf, iat: good.nbf - 1 }, "nbf"],
    ["an end at its issue", { exp: good.iat, nbf: good.iat - 1 }, "iat"],
    ["a negative beginning", { nbf: -1 }, "nbf"],
    ["a jti that is no ULID", { jti: "1" }, "jti"],
  ])("is refused with %s", (_what, change, member) => {
    expect(refusal(change)).toContain(member);
  });

  test.each(
    Object.keys(good).flatMap((claim) => [1.5, null, {}, [], true, "\u0000"].map((value) => [claim, value] as const)),
  )("is refused when %s is %j, and nothing is thrown", (claim, value) => {
    expect(refusal({ [claim]: value })).toContain(claim);
  });

  test("is not shown in the words of its refusal", () => {
    expect(refusal({ name: "se\u0000cret", jti: "secret-jti" })).not.toContain("cret");
  });

  test.each([
    ["none", { alg: "none" }],
    ["HS256", { alg: "HS256" }],
    ["no type", { typ: undefined }],
    ["another type", { typ: "JWT" }],
    ["no kid", { kid: undefined }],
    ["an empty kid", { kid: "" }],
    ["a critical extension", { crit: ["b64"] }],
  ])("has no header with %s", (_what, change) => {
    expect(parseAitHeader({ ...vectors.header, ...change }).ok).toBe(false);
  });

  test.each([null, 1, "x", []])("is not %j", (value) => {
    expect(parseAitClaims(value).ok).toBe(false);
    expect(parseAitHeader(value).ok).toBe(false);
  });
});

test.each([
  ["https://registry.example.com", "registry.example.com"],
  ["http://registry.example.com:8787/path", "registry.example.com"],
  ["https://", null],
  ["mailto:a@b.c", null],
])("the authority of issuer %s is %s", (issuer, host) => {
  expect(issuerHost(issuer)).toBe(host);
});
