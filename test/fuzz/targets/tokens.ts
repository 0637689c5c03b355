/** Identity tokens against jose and Node's own crypto: nothing is accepted that either of them, or the contract, refuses. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from "node:crypto";
import * as fc from "fast-check";
import { importJWK, jwtVerify } from "jose";
import { readAit, verifyAit } from "../../../src/auth/token.ts";
import { encodeBase64Url } from "../../../src/wire/base64url.ts";
import { importEd25519PublicKey } from "../../../src/wire/proof.ts";
import { authority, mutated, spoiled, ulid } from "../arbitraries.ts";
import { decodePoint, hasSmallOrder, isCanonical } from "../curve.ts";
import { must, target } from "../target.ts";

const ISSUER_HOST = "registry.example.com";
const ISSUER = `https://${ISSUER_HOST}`;
const NOW_SECONDS = 1_795_348_800;
const keyOf = (seed: number): { privateKey: KeyObject; publicKey: KeyObject } => {
  // PKCS #8 of an Ed25519 seed, RFC 8410.
  const privateKey = createPrivateKey({
    key: Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), Buffer.alloc(32, seed)]),
    format: "der",
    type: "pkcs8",
  });
  return { privateKey, publicKey: createPublicKey(privateKey) };
};
const registryKey = keyOf(1);
const strangersKey = keyOf(2);
const holdersX = String(keyOf(3).publicKey.export({ format: "jwk" }).x);
const hmacLike = generateKeyPairSync("ed448").privateKey;

export type TokenInput = {
  header: Record<string, unknown>;
  claims: Record<string, unknown>;
  signer: "registry" | "stranger" | "nobody" | "ed448";
  text: string;
};

const didOf = (kind: string) =>
  fc
    .tuple(fc.oneof({ weight: 9, arbitrary: fc.constant(ISSUER_HOST) }, { weight: 1, arbitrary: authority }), ulid)
    .map(([host, id]) => `did:cdi:${host}:${kind}:${id}`);
const claims = fc.record({
  iss: fc.oneof(
    { weight: 12, arbitrary: fc.constant(ISSUER) },
    fc.constantFrom(
      `${ISSUER}/`,
      ISSUER.toUpperCase(),
      `http://${ISSUER_HOST}`,
      "https://evil.example",
      `${ISSUER}:443`,
      `https://x@${ISSUER_HOST}`,
    ),
  ),
  sub: didOf("agent"),
  ownerDid: didOf("human"),
  name: fc.oneof({ weight: 9, arbitrary: fc.constant("an agent") }, mutated(fc.constant("an agent"))),
  framework: fc.oneof({ weight: 9, arbitrary: fc.constant("test") }, mutated(fc.constant("test"))),
  cnf: fc.oneof(
    { weight: 9, arbitrary: fc.constant({ jwk: { kty: "OKP", crv: "Ed25519", x: holdersX } }) },
    {
      weight: 2,
      arbitrary: fc
        .uint8Array({ minLength: 30, maxLength: 33 })
        .map((x) => ({ jwk: { kty: "OKP", crv: "Ed25519", x: Buffer.from(x).toString("base64url") } })),
    },
    {
      weight: 1,
      arbitrary: fc.constantFrom(0, 1, 2, 3).map((y) => ({
        jwk: {
          kty: "OKP",
          crv: "Ed25519",
          x: Buffer.from([y, ...Array.from({ length: 31 }, () => 0)]).toString("base64url"),
        },
      })),
    },
    { weight: 1, arbitrary: spoiled(fc.constant({ kty: "OKP", crv: "Ed25519", x: holdersX })).map((jwk) => ({ jwk })) },
  ),
  iat: fc.oneof({ weight: 9, arbitrary: fc.constant(NOW_SECONDS - 60) }, fc.integer()),
  nbf: fc.oneof(
    { weight: 9, arbitrary: fc.constant(NOW_SECONDS - 60) },
    fc.integer({ min: NOW_SECONDS - 2, max: NOW_SECONDS + 2 }),
  ),
  exp: fc.oneof(
    { weight: 9, arbitrary: fc.constant(NOW_SECONDS + 600) },
    fc.integer({ min: NOW_SECONDS - 2, max: NOW_SECONDS + 2 }),
    fc.constantFrom(1e300, -1, NOW_SECONDS + 0.5),
  ),
  jti: ulid,
});
const header = spoiled(fc.constant({ alg: "EdDSA", typ: "AIT", kid: "k" }));

const input: fc.Arbitrary<TokenInput> = fc
  .record({
    header: fc.oneof(
      { weight: 2, arbitrary: fc.constant({ alg: "EdDSA", typ: "AIT", kid: "k" }) },
      { weight: 1, arbitrary: header },
    ),
    claims: fc.oneof(
      { weight: 2, arbitrary: claims as fc.Arbitrary<Record<string, unknown>> },
      { weight: 2, arbitrary: spoiled(claims as fc.Arbitrary<Record<string, unknown>>) },
    ),
    signer: fc.constantFrom(
      "registry" as const,
      "registry" as const,
      "registry" as const,
      "stranger" as const,
      "nobody" as const,
      "ed448" as const,
    ),
  })
  .chain((parts) =>
    fc
      .oneof(
        { weight: 4, arbitrary: fc.constant(signed(parts)) },
        { weight: 2, arbitrary: mutated(fc.constant(signed(parts))) },
      )
      .map((text) => ({ ...parts, text })),
  );

function signed({ header: head, claims: body, signer }: Omit<TokenInput, "text">): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const toSign = `${part(head)}.${part(body)}`;
  if (signer === "nobody") return `${toSign}.`;
  const key =
    signer === "registry" ? registryKey.privateKey : signer === "stranger" ? strangersKey.privateKey : hmacLike;
  return `${toSign}.${sign(null, Buffer.from(toSign), key).toString("base64url")}`;
}

const joseKey = await importJWK({ ...registryKey.publicKey.export({ format: "jwk" }), alg: "EdDSA" });
const webKey = await importEd25519PublicKey(
  Buffer.from(String(registryKey.publicKey.export({ format: "jwk" }).x), "base64url"),
);

/** The program's own verdict, from the text alone. */
export async function isAccepted(text: string): Promise<boolean> {
  const read = readAit(text, { issuer: ISSUER, nowMs: NOW_SECONDS * 1_000 });
  if (!read.ok) return false;
  const keys = {
    find: (kid: string) =>
      Promise.resolve(
        kid === "k"
          ? { ok: true as const, value: { key: webKey, cache: "hit" as const } }
          : { ok: false as const, error: "unknown-kid" as const },
      ),
  };
  const verdict = await verifyAit(read.value, keys as never, {} as never);
  return verdict.ok;
}

/** The contract's rules in plain sight, over a token that jose has verified. */
async function isRight(text: string): Promise<boolean> {
  if (text.length > 8_192) return false;
  let payload: Record<string, unknown>;
  let protectedHeader: Record<string, unknown>;
  try {
    const verified = await jwtVerify(text, joseKey, {
      algorithms: ["EdDSA"],
      typ: "AIT",
      issuer: ISSUER,
      currentDate: new Date(NOW_SECONDS * 1_000),
      // For `nbf`; that `exp` has none is judged below.
      clockTolerance: 60,
      requiredClaims: ["iss", "sub", "ownerDid", "name", "framework", "cnf", "iat", "nbf", "exp", "jti"],
    });
    payload = verified.payload;
    protectedHeader = verified.protectedHeader as Record<string, unknown>;
  } catch {
    // Whatever jose has against it.
    return false;
  }
  const [first, second, third] = text.split(".");
  const isOfNode = verify(
    null,
    Buffer.from(`${first}.${second}`),
    registryKey.publicKey,
    Buffer.from(third ?? "", "base64url"),
  );
  if (!isOfNode) return false;
  const isSpelledOnce = [first, second, third].every(
    (part) => Buffer.from(part ?? "", "base64url").toString("base64url") === part,
  );
  const allowed = new Set([
    "iss",
    "sub",
    "ownerDid",
    "name",
    "framework",
    "description",
    "cnf",
    "iat",
    "nbf",
    "exp",
    "jti",
  ]);
  const { sub, ownerDid, name, framework, description, cnf, iat, nbf, exp, jti } = payload as Record<string, unknown>;
  const whole = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
  const ulidText = "[0-9A-HJKMNP-TV-Z]{26}";
  const of = (value: unknown, kind: string): boolean =>
    typeof value === "string" &&
    new RegExp(`^did:cdi:${ISSUER_HOST.replaceAll(".", "\\.")}:${kind}:${ulidText}$`).test(value);
  const jwk = (cnf as { jwk?: Record<string, unknown> } | null)?.jwk;
  const hasOwnKey =
    typeof jwk === "object" &&
    jwk !== null &&
    Object.keys(jwk).length === 3 &&
    Object.keys(cnf as object).length === 1 &&
    jwk["kty"] === "OKP" &&
    jwk["crv"] === "Ed25519" &&
    typeof jwk["x"] === "string" &&
    isStrongKey(jwk["x"]);
  return (
    isSpelledOnce &&
    protectedHeader["typ"] === "AIT" &&
    protectedHeader["kid"] === "k" &&
    Object.keys(payload).every((member) => allowed.has(member)) &&
    of(sub, "agent") &&
    of(ownerDid, "human") &&
    typeof name === "string" &&
    /^[A-Za-z0-9._ -]{1,64}$/.test(name) &&
    isPlainText(framework, 1, 32) &&
    (description === undefined || isPlainText(description, 0, 280)) &&
    hasOwnKey &&
    whole(iat) &&
    whole(nbf) &&
    whole(exp) &&
    exp > nbf &&
    exp > iat &&
    // A minute of leeway, which the end of a token has not.
    nbf <= NOW_SECONDS + 60 &&
    iat <= NOW_SECONDS + 60 &&
    exp > NOW_SECONDS &&
    typeof jti === "string" &&
    new RegExp(`^${ulidText}$`).test(jti)
  );
}

function isStrongKey(x: string): boolean {
  const bytes = Buffer.from(x, "base64url");
  if (bytes.length !== 32 || bytes.toString("base64url") !== x || !isCanonical(bytes)) return false;
  const point = decodePoint(bytes);
  // A text that is no point is nobody's key: no proof by it ever verifies, so taking it is no harm.
  return point === null || !hasSmallOrder(point);
}

export const tokens = [
  target<TokenInput>({
    name: "identity tokens against jose and Node",
    weight: 6,
    acceptedAtLeast: 0.02,
    arbitrary: input,
    async holds({ text }) {
      const [accepted, right] = await Promise.all([isAccepted(text), isRight(text)]);
      must(!accepted || right, "what the program accepts, jose, Node and the contract accept");
      must(accepted || !right, "what jose, Node and the contract accept, the program accepts");
      return accepted;
    },
  }),
  target<string>({
    name: "identity tokens, any text",
    weight: 2,
    acceptedAtLeast: 0,
    arbitrary: fc.oneof(
      fc.string({ unit: "binary", maxLength: 200 }),
      fc.array(fc.uint8Array({ maxLength: 60 }).map(encodeBase64Url), { maxLength: 5 }).map((parts) => parts.join(".")),
    ),
    async holds(text) {
      must(!(await isAccepted(text)), "no text that nobody signed is accepted");
      return false;
    },
  }),
];

/** Contract §1, Text: well-formed, counted in code points, and each of them seen by itself or as part of an emoji. */
function isPlainText(value: unknown, min: number, max: number): boolean {
  if (typeof value !== "string" || !value.isWellFormed()) return false;
  const length = [...value].length;
  if (length < min || length > max || (min > 0 && value.trim() === "")) return false;
  const unseen = /\p{C}|\p{Zl}|\p{Zp}|\p{Default_Ignorable_Code_Point}|\u2800/u;
  const isUnassigned = /\p{Cn}|\p{Co}/u;
  return [...value.replaceAll(/\p{RGI_Emoji}/gv, "x")].every((char) => isUnassigned.test(char) || !unseen.test(char));
}
