import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { decodeCrlJws, findCrlJws, readCrlClaims } from "../../src/registry/crl-document.ts";
import { createJtiSet } from "../../src/registry/jti-set.ts";
import { encodeBase64Url } from "../../src/wire/base64url.ts";
import { parseCrlClaims } from "../../src/wire/registry-documents.ts";
import { newUlid } from "../../src/wire/ulid.ts";
import { AGENT, ISSUER, jti } from "./fixture.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const HEADER = encodeBase64Url(bytes(JSON.stringify({ alg: "EdDSA", typ: "CRL", kid: "k1" })));
const SIGNATURE = "A".repeat(86);

function read(payload: Uint8Array) {
  let entries: { jti: string; agentDid: string }[] = [];
  const text = (start: number, end: number): string => new TextDecoder().decode(payload.subarray(start, end));
  const head = readCrlClaims(payload, {
    atBytes: (jtiStart, jtiEnd, didStart, didEnd) =>
      void entries.push({ jti: text(jtiStart, jtiEnd), agentDid: text(didStart, didEnd) }),
    restart: () => (entries = []),
    plain: (id, agentDid) => void entries.push({ jti: id, agentDid }),
  });
  return head.ok ? { iss: head.value.iss, iat: head.value.iat, exp: head.value.exp, entries } : null;
}

const CLAIMS = {
  iss: ISSUER,
  jti: jti(0),
  iat: 1_000,
  exp: 2_000,
  revocations: [
    { jti: jti(1), agentDid: AGENT, reason: "key lost", revokedAt: 900 },
    { jti: jti(2), agentDid: AGENT, revokedAt: 901 },
  ],
};
const BOTH = [
  { jti: jti(1), agentDid: AGENT },
  { jti: jti(2), agentDid: AGENT },
];

describe("the claims of a list are read", () => {
  const text = JSON.stringify(CLAIMS);
  test.each([
    { spelled: "as programs write them", payload: text },
    { spelled: "with white space", payload: JSON.stringify(CLAIMS, null, 2) },
    {
      spelled: "with escaped slashes and letters",
      payload: text.replaceAll("/", "\\/").replaceAll('"jti"', '"\\u006ati"'),
    },
    {
      spelled: "with the list first",
      payload: JSON.stringify(Object.fromEntries(Object.entries(CLAIMS).toReversed())),
    },
    { spelled: "with further members", payload: text.replaceAll('"revokedAt"', '"by":{"who":[1]},"revokedAt"') },
    { spelled: "with a quote in a reason", payload: text.replace("key lost", 'key \\"lost\\"},{\\"jti\\":\\"x') },
    {
      spelled: "with the members in another order",
      payload: text.replaceAll(/"jti":("01J0+[12]"),("agentDid":"[^"]+")/g, '$2,"jti":$1'),
    },
  ])("$spelled", ({ payload }) => {
    expect(read(bytes(payload))).toEqual({ iss: ISSUER, iat: 1_000, exp: 2_000, entries: BOTH });
  });

  test.each([
    { payload: "" },
    { payload: "[]" },
    { payload: text.slice(0, -1) },
    { payload: `${text}x` },
    { payload: text.replace("key lost", "key \\x lost") },
    { payload: text.replace("key lost", "key \\u12g4 lost") },
    { payload: text.replace('"revokedAt":901', '"revokedAt":"901"') },
    { payload: text.replace('"revokedAt":901', '"revokedAt":-1') },
    { payload: text.replace(jti(2), "") },
    { payload: text.replace(`"agentDid":"${AGENT}",`, "") },
    { payload: text.replace(AGENT, "nobody") },
    { payload: text.replace('},{"jti"', '}{"jti"') },
    { payload: text.replace('"exp":2000', '"exp":1000') },
    { payload: text.replace('"iat":1000', '"iat":"1000"') },
    { payload: text.replace('"revocations":[', '"revoked":[') },
    { payload: `{"iss":"${ISSUER}","jti":"x","iat":1,"exp":2,"deep":{"revocations":[]}}` },
  ])("or refused whole: $payload", ({ payload }) => {
    expect(read(bytes(payload))).toBeNull();
  });

  const entry = fc.record(
    {
      jti: fc.oneof(
        fc.nat().map((n) => newUlid(n)),
        fc.string({ minLength: 1, maxLength: 40, unit: "grapheme" }),
      ),
      agentDid: fc.constant(AGENT),
      reason: fc.string({ unit: "binary", maxLength: 12 }),
      revokedAt: fc.oneof(fc.nat(), fc.double()),
      extra: fc.jsonValue({ maxDepth: 2 }),
    },
    { requiredKeys: ["jti", "agentDid", "revokedAt"] },
  );
  property.prop([fc.array(entry, { maxLength: 5 }), fc.constantFrom(0, 1)])(
    "exactly as a full parser would",
    (revocations, indent) => {
      const payload = JSON.stringify({ ...CLAIMS, revocations }, null, indent);
      const plain = parseCrlClaims(JSON.parse(payload));
      const expected = plain.ok
        ? plain.value.revocations.map(({ jti: id, agentDid }) => ({ jti: id, agentDid }))
        : null;
      expect(read(bytes(payload))?.entries ?? null).toEqual(expected);
    },
  );
});

test("a reason with quotes and line breaks does not send 100 000 entries through the full parser", () => {
  const revocations = [{ ...CLAIMS.revocations[0], reason: 'said "no"\n\u0001 \\ \u{1f600}' }, CLAIMS.revocations[1]];
  const payload = bytes(JSON.stringify({ ...CLAIMS, revocations }));
  let entries = 0;
  const head = readCrlClaims(payload, {
    atBytes: () => (entries += 1),
    restart: () => {
      throw new Error("restarted");
    },
    plain: () => undefined,
  });
  expect(head.ok).toBe(true);
  expect(entries).toBe(2);
});

describe("the document around a list", () => {
  const jws = `${HEADER}.${encodeBase64Url(bytes("{}"))}.${SIGNATURE}`;
  test.each([
    `{"crl":"${jws}"}`,
    `{"crl":"${jws}","x":"y"}`,
    `{"crl":"${jws}","x":"1.5"}`,
    `{ "crl" : "${jws}" }\n`,
    `{"version":1,"crl":"${jws}"}`,
  ])("is found in %s", (body) => {
    const found = findCrlJws(bytes(body));
    expect(found.ok && new TextDecoder().decode(found.value)).toBe(jws);
  });

  test.each(["", "{}", "<html>", '{"crl":""}', '{"crl":7}', `{"crl":"${jws}"`, `{"crl":"${jws}"}}`])(
    "is refused in %s",
    (body) => {
      const found = findCrlJws(bytes(body));
      expect(found.ok && decodeCrlJws(found.value).ok).toBe(false);
    },
  );

  test.each([
    { why: "two parts", text: `${HEADER}.e30` },
    { why: "four parts", text: `${jws}.e30` },
    { why: "padding", text: `${HEADER}.e30=.${SIGNATURE}` },
    { why: "white space", text: `${HEADER}.e3 0.${SIGNATURE}` },
    { why: "the other alphabet", text: `${HEADER}.e+/0.${SIGNATURE}` },
    { why: "a tail that is not canonical", text: `${HEADER}.e31.${SIGNATURE}` },
    { why: "a lone character at the end", text: `${HEADER}.e30AA.${SIGNATURE}` },
    { why: "bytes that are no text", text: `${HEADER}.\u00e9.${SIGNATURE}` },
    { why: "a header that is no JSON", text: `e31.e30.${SIGNATURE}` },
  ])("holds a JWS, refused for $why", ({ text }) => {
    expect(decodeCrlJws(bytes(text)).ok).toBe(false);
  });

  property.prop([fc.uint8Array({ maxLength: 40 })])("holds its payload unchanged", (payload) => {
    const decoded = decodeCrlJws(bytes(`${HEADER}.${encodeBase64Url(payload)}.${SIGNATURE}`));
    expect(decoded.ok && [...decoded.value.payload]).toEqual([...payload]);
  });
});

const ulid = fc.nat(5_000).map((n) => jti(n));
property.prop([fc.array(fc.oneof(ulid, fc.string({ maxLength: 30 })), { maxLength: 3_000 }), ulid])(
  "a set of ids holds what was added and nothing else",
  (ids, other) => {
    const set = createJtiSet();
    const plain = new Set(ids);
    for (const [index, id] of ids.entries()) {
      const text = bytes(`..${id}..`);
      if (index % 2 === 0) set.add(id);
      else set.addBytes(text, 2, text.length - 2);
    }
    expect(set.size()).toBe(plain.size);
    for (const id of ids) expect(set.has(id)).toBe(true);
    expect(set.has(other)).toBe(plain.has(other));
  },
);

test("a list of 100 000 revocations becomes a set within 50 ms, or faster than plain parsing on a busy machine", () => {
  const revocations = Array.from({ length: 100_000 }, (_, n) => ({
    jti: newUlid(1_700_000_000_000 + n),
    agentDid: AGENT,
    revokedAt: 1_700_000_000_000 + n,
  }));
  const text = JSON.stringify({ ...CLAIMS, revocations });
  const body = bytes(JSON.stringify({ crl: `${HEADER}.${encodeBase64Url(bytes(text))}.${SIGNATURE}` }));
  const tookMs: number[] = [];
  const plainMs: number[] = [];
  for (let round = 0; round < 6; round += 1) {
    const jws = findCrlJws(body);
    const decoded = jws.ok ? decodeCrlJws(jws.value) : jws;
    if (!decoded.ok) throw new Error(decoded.error);
    const startMs = performance.now();
    const claims = decoded.value.payload;
    const set = createJtiSet(claims.length / 128);
    const head = readCrlClaims(claims, {
      atBytes: (start, end) => set.addBytes(claims, start, end),
      restart: () => {
        throw new Error("the usual spelling must not need the full parser");
      },
      plain: (id) => set.add(id),
    });
    const readMs = performance.now();
    const parsed = JSON.parse(text) as typeof CLAIMS;
    const plain = new Set(parsed.revocations.map((revoked) => revoked.jti));
    tookMs.push(readMs - startMs);
    plainMs.push(performance.now() - readMs);
    expect(head.ok).toBe(true);
    expect(set.size()).toBe(plain.size);
    expect(set.has(revocations[77_777]?.jti ?? "")).toBe(true);
    expect(set.has(jti(3))).toBe(false);
  }
  expect(Math.min(...tookMs)).toBeLessThan(Math.max(50, 2 * Math.min(...plainMs)));
});
