/** Proofs of possession against Node's crypto, and keys and signatures of hostile points against whole numbers. */
import { createHash, createPublicKey, generateKeyPairSync, sign, verify } from "node:crypto";
import * as fc from "fast-check";
import { checkBodyHash, checkProof, readProof } from "../../../src/auth/proof.ts";
import { isStrongEd25519Point } from "../../../src/wire/ed25519-point.ts";
import { importEd25519PublicKey, sha256Base64Url } from "../../../src/wire/proof.ts";
import { mutated } from "../arbitraries.ts";
import {
  add,
  decodePoint,
  fromLittleEndian,
  hasSmallOrder,
  isCanonical,
  L,
  P,
  times,
  toLittleEndian,
  verifyStrictly,
} from "../curve.ts";
import { must, target } from "../target.ts";

const NOW_SECONDS = 1_795_348_800;
const SKEW_MAX_SECONDS = 300;
const { privateKey, publicKey } = generateKeyPairSync("ed25519");
const rawKey = Buffer.from(String(publicKey.export({ format: "jwk" }).x), "base64url");
const webKey = await importEd25519PublicKey(rawKey);

type Request = { method: string; path: string; body: string; timestamp: string; nonce: string };
export type ProofInput = { signed: Request; sent: Request; headers: Record<string, string> };

const request: fc.Arbitrary<Request> = fc.record({
  method: fc.constantFrom("POST", "GET"),
  path: fc.constantFrom("/hooks/agent", "/rpc", "/v1/dead-letters?limit=5", "/v1/dead-letters?limit=5&a=%20"),
  body: fc.oneof(fc.constant(""), fc.constant('{"a":1}'), fc.string({ unit: "grapheme", maxLength: 20 })),
  timestamp: fc.oneof(
    {
      weight: 6,
      arbitrary: fc.integer({ min: NOW_SECONDS - SKEW_MAX_SECONDS, max: NOW_SECONDS + SKEW_MAX_SECONDS }).map(String),
    },
    fc.constantFrom(-301, -300, -299, 299, 300, 301).map((offset) => String(NOW_SECONDS + offset)),
    fc.constantFrom(
      "",
      "-1",
      "1e9",
      `0${NOW_SECONDS}`,
      ` ${NOW_SECONDS}`,
      `${NOW_SECONDS}.0`,
      `${NOW_SECONDS}000`,
      "９",
      "0x6b",
      "Infinity",
    ),
  ),
  nonce: fc.oneof(
    { weight: 4, arbitrary: fc.uuid() },
    fc.string({ unit: fc.integer({ min: 0x20, max: 0xff }).map((code) => String.fromCharCode(code)), maxLength: 12 }),
    fc.constantFrom("a".repeat(256), "a".repeat(257), ""),
  ),
});

const input: fc.Arbitrary<ProofInput> = fc
  .record({
    signed: request,
    sent: fc.option(
      fc.record({ which: fc.constantFrom("method", "path", "body", "timestamp", "nonce"), other: request }),
      { freq: 2 },
    ),
  })
  .chain(({ signed, sent }) => {
    const other = sent === null ? signed : { ...signed, [sent.which]: sent.other[sent.which as keyof Request] };
    const hash = createHash("sha256").update(other.body).digest("base64url");
    const text = [
      "CLAW-PROOF-V1",
      signed.method,
      signed.path,
      signed.timestamp,
      signed.nonce,
      createHash("sha256").update(signed.body).digest("base64url"),
    ].join("\n");
    const proof = sign(null, Buffer.from(text), privateKey).toString("base64url");
    const right = {
      "X-Claw-Timestamp": other.timestamp,
      "X-Claw-Nonce": other.nonce,
      "X-Claw-Body-SHA256": hash,
      "X-Claw-Proof": proof,
    };
    return fc
      .record({
        how: fc.constantFrom("as it is", "as it is", "alias", "both", "hash", "proof", "without"),
        hash: mutated(fc.constant(hash)),
        proof: mutated(fc.constant(proof)),
        without: fc.constantFrom(...Object.keys(right)),
      })
      .map((change): ProofInput => {
        const headers: Record<string, string> = { ...right };
        if (change.how === "alias") {
          delete headers["X-Claw-Proof"];
          headers["X-Claw-Signature"] = proof;
        } else if (change.how === "both") headers["X-Claw-Signature"] = change.proof;
        else if (change.how === "hash") headers["X-Claw-Body-SHA256"] = change.hash;
        else if (change.how === "proof") headers["X-Claw-Proof"] = change.proof;
        else if (change.how === "without") delete headers[change.without];
        return { signed, sent: other, headers };
      });
  });

/** The headers as a server gets them, or null where no HTTP library would send them. */
function asSent(headers: Record<string, string>): Headers | null {
  try {
    return new Headers(headers);
  } catch (error) {
    if (error instanceof TypeError) return null;
    throw error;
  }
}

async function isAccepted({ sent }: ProofInput, headers: Headers): Promise<boolean> {
  const proof = readProof(
    { method: sent.method, pathWithQuery: sent.path, authorities: ["gate.example.com"], headers },
    { nowMs: NOW_SECONDS * 1_000, skewMaxSeconds: SKEW_MAX_SECONDS, proofV1: "accept" },
  );
  if (!proof.ok) return false;
  if (!checkBodyHash(proof.value, await sha256Base64Url(Buffer.from(sent.body))).ok) return false;
  return (await checkProof(proof.value, rawKey.toString("base64url"), webKey)).ok;
}

function isRight({ sent }: ProofInput, headers: Headers): boolean {
  const [timestamp, nonce, hash] = ["x-claw-timestamp", "x-claw-nonce", "x-claw-body-sha256"].map((name) =>
    headers.get(name),
  );
  const [named, alias] = [headers.get("x-claw-proof"), headers.get("x-claw-signature")];
  const proof = named ?? alias;
  if (timestamp === null || timestamp === undefined || nonce === null || nonce === undefined || proof === null)
    return false;
  if (named !== null && alias !== null && named !== alias) return false;
  if (timestamp === "" || timestamp.length > 11 || [...timestamp].some((letter) => letter < "0" || letter > "9"))
    return false;
  if (Math.abs(Number(timestamp) - NOW_SECONDS) > SKEW_MAX_SECONDS) return false;
  if (nonce.length < 1 || nonce.length > 256 || [...nonce].some((letter) => letter < "!" || letter > "~")) return false;
  if (hash !== createHash("sha256").update(sent.body).digest("base64url")) return false;
  const signature = Buffer.from(proof, "base64url");
  if (signature.length !== 64 || signature.toString("base64url") !== proof) return false;
  return verify(
    null,
    Buffer.from(["CLAW-PROOF-V1", sent.method, sent.path, timestamp, nonce, hash].join("\n")),
    publicKey,
    signature,
  );
}

/** All points whose order divides eight, found by taking the large part out of random points, in every spelling that fits in 32 bytes. */
const smallPoints: Uint8Array[] = spellings(torsion());

function torsion(): bigint[] {
  const found = new Map<string, bigint>();
  for (let counter = 0; found.size < 8 && counter < 400; counter++) {
    const point = decodePoint(createHash("sha256").update(String(counter)).digest());
    if (point === null) continue;
    const [x, y] = times(L, point);
    found.set(`${x} ${y}`, y);
  }
  return [...new Set(found.values())];
}

function spellings(ys: bigint[]): Uint8Array[] {
  const fitting = ys.flatMap((y) => [y, y + P]).filter((y) => y < 2n ** 255n);
  return fitting.flatMap((y) => [toLittleEndian(y), toLittleEndian(y | (1n << 255n))]);
}

const pointBytes: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc.constantFrom(...smallPoints),
  fc.uint8Array({ minLength: 32, maxLength: 32 }),
  fc.integer({ min: 0, max: 40 }).map((above) => toLittleEndian(P - 20n + BigInt(above))),
  fc.integer({ min: 0, max: 60 }).map((small) => toLittleEndian(BigInt(small) | (small % 2 === 0 ? 0n : 1n << 255n))),
  fc.uint8Array({ minLength: 0, maxLength: 34 }),
);

export type HostileInput = { key: string; signature: string; text: string };

const realSignature = (text: string): Buffer => sign(null, Buffer.from(text), privateKey);
const hostile: fc.Arbitrary<HostileInput> = fc
  .record({
    text: fc.string({ maxLength: 8 }),
    how: fc.constantFrom("right", "s plus l", "small r", "small key", "both small", "mixed key", "other", "zero s"),
    point: fc.constantFrom(...smallPoints),
    noise: fc.uint8Array({ minLength: 64, maxLength: 64 }),
  })
  .map(({ text, how, point, noise }): HostileInput => {
    const right = realSignature(text);
    const s = fromLittleEndian(right.subarray(32));
    const parts: Record<typeof how, [key: Uint8Array, signature: Uint8Array]> = {
      right: [rawKey, right],
      "s plus l": [rawKey, Buffer.concat([right.subarray(0, 32), toLittleEndian(s + L)])],
      "small r": [rawKey, Buffer.concat([point, right.subarray(32)])],
      "small key": [point, right],
      "both small": [point, Buffer.concat([point, Buffer.alloc(32)])],
      "mixed key": [mixedKey(point), right],
      "zero s": [rawKey, Buffer.concat([right.subarray(0, 32), Buffer.alloc(32)])],
      other: [rawKey, noise],
    };
    const [key, signature] = parts[how];
    return { text, key: Buffer.from(key).toString("hex"), signature: Buffer.from(signature).toString("hex") };
  });

/** The right key moved by a point of small order: another encoding, for which verifiers with and without cofactor differ. */
function mixedKey(small: Uint8Array): Uint8Array {
  const [own, other] = [decodePoint(rawKey), decodePoint(small)];
  if (own === null || other === null) return rawKey;
  const [x, y] = add(own, other);
  return toLittleEndian(y | ((x & 1n) << 255n));
}

async function verifiesHere({ key, text, signature }: HostileInput): Promise<boolean> {
  try {
    const imported = await importEd25519PublicKey(Buffer.from(key, "hex"));
    return await crypto.subtle.verify("Ed25519", imported, Buffer.from(signature, "hex"), Buffer.from(text));
  } catch (error) {
    if (error instanceof DOMException) return false;
    throw error;
  }
}

function verifiesInNode({ key, text, signature }: HostileInput): boolean {
  const jwk = { kty: "OKP", crv: "Ed25519", x: Buffer.from(key, "hex").toString("base64url") };
  return verify(null, Buffer.from(text), createPublicKey({ key: jwk, format: "jwk" }), Buffer.from(signature, "hex"));
}

export const proofs = [
  target<ProofInput>({
    name: "proofs against Node",
    weight: 6,
    acceptedAtLeast: 0.1,
    arbitrary: input,
    async holds(proof) {
      const headers = asSent(proof.headers);
      if (headers === null) return false;
      const [accepted, right] = [await isAccepted(proof, headers), isRight(proof, headers)];
      must(!accepted || right, "what the program accepts, Node accepts");
      must(accepted || !right, "what Node accepts, the program accepts");
      return accepted;
    },
  }),
  target<number[]>({
    name: "public keys against whole numbers",
    weight: 1,
    acceptedAtLeast: 0.1,
    arbitrary: pointBytes.map((bytes) => [...bytes]),
    holds(numbers) {
      const bytes = Uint8Array.from(numbers);
      const point = bytes.length === 32 && isCanonical(bytes) ? decodePoint(bytes) : null;
      const expected = bytes.length === 32 && isCanonical(bytes) && (point === null || !hasSmallOrder(point));
      must(
        isStrongEd25519Point(bytes) === expected,
        "exactly points of small order, and those spelled in another way, are refused",
      );
      return expected;
    },
  }),
  target<HostileInput>({
    name: "hostile signatures against whole numbers",
    weight: 0.3,
    acceptedAtLeast: 0.05,
    arbitrary: hostile,
    async holds(candidate) {
      const isTaken = isStrongEd25519Point(Buffer.from(candidate.key, "hex")) && (await verifiesHere(candidate));
      const [key, signature] = [Buffer.from(candidate.key, "hex"), Buffer.from(candidate.signature, "hex")];
      const isStrict = isStrongEd25519Point(key) && verifyStrictly(key, Buffer.from(candidate.text), signature);
      must(isTaken === isStrict, "a signature holds exactly where S·B = R + h·A, with S below L and canonical points");
      if (isTaken) must(verifiesInNode(candidate), "and Node agrees");
      return isTaken;
    },
  }),
];
