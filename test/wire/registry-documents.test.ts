import { describe, expect, test } from "vitest";
import { decodeUnverifiedJws } from "../../src/wire/jws.ts";
import {
  accessVerdict,
  parseAccessValidationBody,
  parseCrlBody,
  parseCrlClaims,
  parseCrlHeader,
  parseKeysDocument,
} from "../../src/wire/registry-documents.ts";
import ait from "../vectors/ait.json";
import crl from "../vectors/crl.json";

const key = ait.keysDocument.keys[0];
const kid = (name: string) => ({ ...key, kid: name });

describe("a keys document", () => {
  test("gives its keys", () => {
    expect(parseKeysDocument(ait.keysDocument)).toEqual({ ok: true, value: { keys: [key], malformed: [] } });
  });

  test("with one malformed key gives the others, and says which one it left out", () => {
    const parsed = parseKeysDocument({ keys: [kid("a"), { ...kid("b"), x: "AA" }, kid("c")] });
    expect(parsed.ok && parsed.value.keys.map((each) => each.kid)).toEqual(["a", "c"]);
    expect(parsed.ok && parsed.value.malformed).toMatchObject([{ index: 1 }]);
  });

  test.each([
    ["two good keys", [kid("a"), kid("a")]],
    ["a good and a malformed key", [kid("a"), { kid: "a" }]],
    ["two malformed keys", [{ kid: "a" }, { kid: "a", x: "" }]],
  ])("with one kid for %s is refused whole", (_what, keys) => {
    expect(parseKeysDocument({ keys }).ok).toBe(false);
  });

  test.each([
    ["another algorithm", { alg: "HS256" }],
    ["another curve", { crv: "P-256" }],
    ["an unknown status", { status: "sleeping" }],
    ["an empty kid", { kid: "" }],
    ["no key", { x: undefined }],
  ])("leaves out an entry with %s", (_what, change) => {
    const parsed = parseKeysDocument({ keys: [{ ...key, ...change }] });
    expect(parsed.ok && parsed.value.keys).toEqual([]);
  });

  test("keeps a revoked key, as revoked", () => {
    const parsed = parseKeysDocument({ keys: [{ ...key, status: "revoked" }] });
    expect(parsed.ok && parsed.value.keys[0]?.status).toBe("revoked");
  });

  test.each([null, [], "<html>", {}, { keys: {} }])("is not %j", (value) => {
    expect(parseKeysDocument(value).ok).toBe(false);
  });
});

describe("a revocation list", () => {
  test("gives header and claims", () => {
    const token = parseCrlBody({ crl: crl.crl });
    const jws = token.ok ? decodeUnverifiedJws(token.value) : token;
    if (!jws.ok) throw new Error(jws.error);
    expect(parseCrlHeader(jws.value.header)).toMatchObject({ ok: true, value: { typ: "CRL" } });
    expect(parseCrlClaims(jws.value.claims)).toEqual({ ok: true, value: crl.claims });
  });

  test("may be empty", () => {
    expect(parseCrlClaims({ ...crl.claims, revocations: [] }).ok).toBe(true);
  });

  test.each([
    [
      "an entry without a jti",
      { revocations: [...crl.claims.revocations, { agentDid: ait.claims.sub, revokedAt: 1 }] },
    ],
    ["an entry for no agent", { revocations: [{ jti: "x", agentDid: "x", revokedAt: 1 }] }],
    ["no list", { revocations: undefined }],
    ["an end before its issue", { exp: crl.claims.iat }],
  ])("with %s is refused whole", (_what, change) => {
    expect(parseCrlClaims({ ...crl.claims, ...change }).ok).toBe(false);
  });

  test("is not accepted under the type of an identity token", () => {
    expect(parseCrlHeader(ait.header).ok).toBe(false);
  });
});

test.each([
  [204, "valid"],
  [401, "invalid"],
  [200, "failure"],
  [403, "failure"],
  [404, "failure"],
  [500, "failure"],
])("status %d of an access validation means %s", (status, verdict) => {
  expect(accessVerdict(status)).toBe(verdict);
});

test("an access validation names an agent and a token", () => {
  expect(parseAccessValidationBody({ agentDid: ait.claims.sub, aitJti: ait.claims.jti, more: 1 })).toEqual({
    ok: true,
    value: { agentDid: ait.claims.sub, aitJti: ait.claims.jti },
  });
  expect(parseAccessValidationBody({ agentDid: ait.claims.ownerDid, aitJti: ait.claims.jti }).ok).toBe(false);
});
