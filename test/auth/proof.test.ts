import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkProof, type ProvenRequest, readProof } from "../../src/auth/proof.ts";
import { encodeBase64Url } from "../../src/wire/base64url.ts";
import { signProof } from "../../src/wire/proof.ts";
import { contentDigest, keyThumbprint, signProofV2 } from "../../src/wire/proof-v2.ts";
import { newKeyPair, NOW_MS } from "./fixture.ts";

const WINDOW = { nowMs: NOW_MS, skewMaxSeconds: 300, proofV1: "accept" as const };
const NOW_SECONDS = NOW_MS / 1_000;
/** V1 names no key. */
const KEY_X = "A".repeat(43);
const HASH = "A".repeat(43);
const SIGNATURE = "A".repeat(86);

const headers = (more: Record<string, string> = {}): Headers =>
  new Headers({
    "X-Claw-Timestamp": String(NOW_SECONDS),
    "X-Claw-Nonce": "nonce",
    "X-Claw-Body-SHA256": HASH,
    "X-Claw-Proof": SIGNATURE,
    ...more,
  });

const requestWith = (given: Headers): ProvenRequest => ({
  method: "POST",
  pathWithQuery: "/hooks/agent?a=1",
  authorities: ["gate.example.com"],
  headers: given,
});

describe("the window", () => {
  test.each([
    [-300_000, 0, true],
    [-300_000, 1, false],
    [300_000, 0, true],
    [300_000, -1, false],
  ])("%i ms of skew, %i ms later", (skewMs, laterMs, accepted) => {
    const timestamp = String((NOW_MS + skewMs) / 1_000);
    const read = readProof(requestWith(headers({ "X-Claw-Timestamp": timestamp })), {
      ...WINDOW,
      nowMs: NOW_MS + laterMs,
    });
    expect(read.ok ? "accepted" : read.error.reason).toBe(accepted ? "accepted" : "timestamp-skewed");
  });

  test("the skew is told in milliseconds, ahead is positive", () => {
    const read = readProof(requestWith(headers({ "X-Claw-Timestamp": String(NOW_SECONDS + 10) })), {
      ...WINDOW,
      nowMs: NOW_MS + 250,
    });
    expect(read.ok && read.value.skewMs).toBe(9_750);
  });
});

test("whatever the headers are, reading them gives a proof of the right form or a refusal, and never throws", () => {
  const value = fc.oneof(
    fc.string({ unit: "grapheme-ascii", maxLength: 400 }),
    fc.base64String({ maxLength: 120 }),
    fc.nat().map(String),
  );
  fc.assert(
    fc.property(value, value, value, value, (timestamp, nonce, bodySha256, proof) => {
      const given = new Headers();
      for (const [name, text] of Object.entries({
        "X-Claw-Timestamp": timestamp,
        "X-Claw-Nonce": nonce,
        "X-Claw-Body-SHA256": bodySha256,
        "X-Claw-Proof": proof,
      })) {
        try {
          given.set(name, text);
        } catch (error) {
          if (!(error instanceof TypeError)) throw error;
        }
      }
      const read = readProof(requestWith(given), WINDOW);
      if (!read.ok) return;
      expect(read.value.signature).toHaveLength(64);
      expect(encodeBase64Url(read.value.signature)).toBe(proof);
      expect(Math.abs(read.value.skewMs)).toBeLessThanOrEqual(300_000);
    }),
    { numRuns: 2_000 },
  );
});

describe("the signature", () => {
  const request = { method: "POST", pathWithQuery: "/hooks/agent?a=1" };
  const parts = { ...request, timestamp: String(NOW_SECONDS), nonce: "nonce", bodySha256: HASH };

  const check = async (by: CryptoKey, against: CryptoKey, change: Partial<typeof parts> = {}): Promise<string> => {
    const read = readProof(
      requestWith(headers({ "X-Claw-Proof": await signProof(by, { ...parts, ...change }) })),
      WINDOW,
    );
    if (!read.ok) return read.error.reason;
    const checked = await checkProof(read.value, KEY_X, against);
    return checked.ok ? "proven" : checked.error.reason;
  };

  test("over exactly this request by exactly this key proves it", async () => {
    const pair = await newKeyPair();
    expect(await check(pair.privateKey, pair.publicKey)).toBe("proven");
  });

  test.each<[string, Partial<typeof parts>]>([
    ["another method", { method: "GET" }],
    ["the method in lower case", { method: "post" }],
    ["another path", { pathWithQuery: "/hooks/agent" }],
    ["another query", { pathWithQuery: "/hooks/agent?a=2" }],
    ["another timestamp", { timestamp: String(NOW_SECONDS + 1) }],
    ["the same time with a leading zero", { timestamp: `0${NOW_SECONDS}` }],
    ["another nonce", { nonce: "nonce2" }],
    ["another body", { bodySha256: "B".repeat(42) + "A" }],
    ["nothing after the last line but a line break", { bodySha256: `${HASH}\n` }],
  ])("over %s proves nothing", async (_what, change) => {
    const pair = await newKeyPair();
    expect(await check(pair.privateKey, pair.publicKey, change)).toBe("proof-invalid");
  });

  test("by another key proves nothing", async () => {
    const [one, other] = await Promise.all([newKeyPair(), newKeyPair()]);
    expect(await check(one.privateKey, other.publicKey)).toBe("proof-invalid");
  });

  test("a signature whose scalar was raised by the group order is refused", async () => {
    const pair = await newKeyPair();
    const read = readProof(requestWith(headers({ "X-Claw-Proof": await signProof(pair.privateKey, parts) })), WINDOW);
    if (!read.ok) throw new Error(read.error.reason);
    expect((await checkProof(read.value, KEY_X, pair.publicKey)).ok).toBe(true);
    const order = 2n ** 252n + 27742317777372353535851937790883648493n;
    const raised = Uint8Array.from(read.value.signature);
    let scalar = 0n;
    for (let index = 63; index >= 32; index -= 1) scalar = (scalar << 8n) | BigInt(raised[index] ?? 0);
    scalar += order;
    for (let index = 32; index < 64; index += 1, scalar >>= 8n) raised[index] = Number(scalar & 0xffn);
    expect((await checkProof({ ...read.value, signature: raised }, KEY_X, pair.publicKey)).ok).toBe(false);
  });
});

describe("proof V2 in the chain's terms", () => {
  const signedV2 = async (pair: CryptoKeyPair, authority: string, keyX: string): Promise<Headers> => {
    const given = new Headers({ authorization: "Claw x", "content-digest": contentDigest(HASH) });
    const created = NOW_MS / 1_000;
    const fields = await signProofV2(
      pair.privateKey,
      { method: "POST", pathWithQuery: "/hooks/agent?a=1", authority, headers: given },
      { created, expires: created + 60, nonce: "nonce", keyid: await keyThumbprint(keyX) },
    );
    for (const [name, value] of Object.entries(fields)) given.set(name, value);
    return given;
  };

  const judge = async (given: Headers, pair: CryptoKeyPair, more: Partial<ProvenRequest> = {}): Promise<string> => {
    const read = readProof({ ...requestWith(given), ...more }, WINDOW);
    if (!read.ok) return read.error.reason;
    const checked = await checkProof(read.value, KEY_X, pair.publicKey);
    return checked.ok ? `proven by version ${read.value.version}` : checked.error.reason;
  };

  test("proof V2: the host that was called proves it, and so does one of PUBLIC_AUTHORITIES", async () => {
    const pair = await newKeyPair();
    expect(await judge(await signedV2(pair, "gate.example.com", KEY_X), pair)).toBe("proven by version 2");
    const behind = { authorities: ["10.0.0.1:8787", "gate.example.com"] };
    expect(await judge(await signedV2(pair, "gate.example.com", KEY_X), pair, behind)).toBe("proven by version 2");
    expect(await judge(await signedV2(pair, "other.example.com", KEY_X), pair, behind)).toBe("proof-invalid");
  });

  test("proof V2: a thumbprint of another key is refused before the signature is looked at", async () => {
    const pair = await newKeyPair();
    const other = `${"A".repeat(42)}B`;
    expect(await judge(await signedV2(pair, "gate.example.com", other), pair)).toBe("signature-input-invalid");
  });

  test("proof V1: refused by its name where PROOF_V1 is refuse, while V2 is read", async () => {
    const pair = await newKeyPair();
    const strict = { ...WINDOW, proofV1: "refuse" as const };
    const v1 = readProof(requestWith(headers()), strict);
    expect(v1.ok ? "read" : v1.error.reason).toBe("proof-v1-refused");
    expect(readProof(requestWith(await signedV2(pair, "gate.example.com", KEY_X)), strict).ok).toBe(true);
  });
});
