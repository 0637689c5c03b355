/** What a registry says: keys and revocation lists. The fast reader of lists must say exactly what a plain reader says. */
import * as fc from "fast-check";
import { decodeCrlJws, findCrlJws, readCrlClaims } from "../../../src/registry/crl-document.ts";
import { createJtiSet } from "../../../src/registry/jti-set.ts";
import { parseCrlClaims, parseKeysDocument } from "../../../src/wire/registry-documents.ts";
import { agentDid, anyJson, anyText, looseJson, mutated, spoiled, ulid } from "../arbitraries.ts";
import { must, target } from "../target.ts";

const time = fc.oneof(
  { weight: 6, arbitrary: fc.nat() },
  fc.maxSafeInteger(),
  fc.constantFrom(0, -0, 2 ** 53 - 1, 2 ** 53, 1e21, 0.5),
);
const revocation = fc
  .record({ jti: fc.oneof({ weight: 6, arbitrary: ulid }, anyText), agentDid, revokedAt: time })
  .chain((entry) =>
    fc.option(anyText, { nil: undefined }).map((reason) => (reason === undefined ? entry : { ...entry, reason })),
  );
const list = fc.record({
  iss: fc.oneof(
    { weight: 6, arbitrary: fc.constant("https://registry.example.com") },
    fc.constantFrom('"revocations":[]', '\\"revocations\\":[', ""),
  ),
  jti: ulid,
  iat: fc.constant(1_795_348_800),
  exp: fc.constantFrom(1_795_352_400, 1_795_348_800),
  revocations: fc.oneof(
    { weight: 6, arbitrary: fc.array(revocation, { maxLength: 5 }) as fc.Arbitrary<unknown> },
    {
      weight: 3,
      arbitrary: fc.array(spoiled(revocation as fc.Arbitrary<Record<string, unknown>>), {
        maxLength: 4,
      }) as fc.Arbitrary<unknown>,
    },
    { weight: 1, arbitrary: anyJson },
  ),
});
const claimsText = fc.oneof(
  { weight: 4, arbitrary: list.map((claims) => JSON.stringify(claims)) },
  {
    weight: 3,
    arbitrary: spoiled(list as fc.Arbitrary<Record<string, unknown>>).map((claims) => JSON.stringify(claims)),
  },
  { weight: 2, arbitrary: looseJson(list as fc.Arbitrary<Record<string, unknown>>) },
  { weight: 3, arbitrary: mutated(list.map((claims) => JSON.stringify(claims))) },
);
const key = fc.record({
  kid: fc.oneof(fc.constantFrom("a", "b", "c"), anyText),
  alg: fc.constant("EdDSA"),
  crv: fc.constant("Ed25519"),
  x: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((x) => Buffer.from(x).toString("base64url")),
  status: fc.constantFrom("active", "revoked"),
});

/** What a reader says of the claims: who is revoked, or that it refuses. */
export function readFast(payload: Uint8Array): string[] | null {
  const text = new TextDecoder();
  let told: string[] = [];
  const head = readCrlClaims(payload, {
    atBytes: (jtiStart, jtiEnd, didStart, didEnd) =>
      void told.push(
        `${text.decode(payload.subarray(jtiStart, jtiEnd))} ${text.decode(payload.subarray(didStart, didEnd))}`,
      ),
    restart: () => void (told = []),
    plain: (jti, did) => void told.push(`${jti} ${did}`),
  });
  return head.ok ? told : null;
}

function readPlainly(payload: Uint8Array): string[] | null {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(payload));
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return null;
    throw error;
  }
  const claims = parseCrlClaims(value);
  return claims.ok ? claims.value.revocations.map(({ jti, agentDid: did }) => `${jti} ${did}`) : null;
}

export const registryDocuments = [
  target<string>({
    name: "revocation lists, fast against plain",
    weight: 6,
    acceptedAtLeast: 0.1,
    arbitrary: claimsText,
    holds(text) {
      const payload = new TextEncoder().encode(text);
      const [fast, plain] = [readFast(payload), readPlainly(payload)];
      must(
        (fast === null) === (plain === null),
        `one reader refuses, the other does not (${fast === null ? "fast" : "plain"} refuses)`,
      );
      must(JSON.stringify(fast) === JSON.stringify(plain), "both readers say the same of the same list");
      return fast !== null && fast.length > 0;
    },
  }),
  target<string>({
    name: "revocation list documents",
    weight: 2,
    acceptedAtLeast: 0.1,
    arbitrary: fc.oneof(
      mutated(
        fc.tuple(claimsText, fc.uint8Array({ minLength: 64, maxLength: 64 })).map(([claims, signature]) =>
          JSON.stringify({
            crl: `${Buffer.from('{"alg":"EdDSA","typ":"CRL","kid":"k"}').toString("base64url")}.${Buffer.from(claims).toString("base64url")}.${Buffer.from(signature).toString("base64url")}`,
          }),
        ),
      ),
      anyText,
    ),
    holds(text) {
      const found = findCrlJws(new TextEncoder().encode(text));
      if (!found.ok) return false;
      const read = decodeCrlJws(found.value);
      const jws = new TextDecoder().decode(found.value);
      must(
        !read.ok || jws.split(".").every((part) => Buffer.from(part, "base64url").toString("base64url") === part),
        "each part has one spelling",
      );
      if (read.ok)
        must(
          Buffer.from(read.value.payload).toString("base64url") === jws.split(".")[1],
          "the claims are those that are signed",
        );
      let json: { crl?: unknown } | null;
      try {
        json = JSON.parse(text) as { crl?: unknown } | null;
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        json = null;
      }
      if (read.ok) must(json?.crl === jws, "the list is the document's own");
      return read.ok;
    },
  }),
  target<unknown>({
    name: "keys documents",
    weight: 2,
    acceptedAtLeast: 0.1,
    arbitrary: fc.oneof(
      {
        weight: 5,
        arbitrary: spoiled(
          fc.record({
            keys: fc.array(spoiled(key as fc.Arbitrary<Record<string, unknown>>), {
              maxLength: 4,
            }) as fc.Arbitrary<unknown>,
          }),
        ) as fc.Arbitrary<unknown>,
      },
      { weight: 1, arbitrary: anyJson },
    ),
    holds(value) {
      const document = parseKeysDocument(value);
      if (!document.ok) return false;
      const kids = document.value.keys.map(({ kid }) => kid);
      must(new Set(kids).size === kids.length, "no key is there twice");
      for (const { x, alg, crv, status } of document.value.keys) {
        must(
          Buffer.from(x, "base64url").length === 32 &&
            alg === "EdDSA" &&
            crv === "Ed25519" &&
            (status === "active" || status === "revoked"),
          "a key is a whole key",
        );
      }
      const entries = (value as { keys: unknown[] }).keys;
      must(
        document.value.keys.length + document.value.malformed.length === entries.length,
        "each entry is a key or is told of",
      );
      return document.value.keys.length > 0;
    },
  }),
  target<string[]>({
    name: "sets of token ids",
    weight: 1,
    acceptedAtLeast: 0.5,
    arbitrary: fc.array(fc.oneof(ulid, anyText), { maxLength: 40 }),
    holds(ids) {
      const set = createJtiSet();
      const half = ids.slice(0, ids.length / 2);
      for (const id of half) set.add(id);
      for (const id of ids) must(set.has(id) === half.includes(id), "exactly what was added is in it");
      must(set.size() === new Set(half).size, "each is counted once");
      return half.length > 0;
    },
  }),
];
