import { appendSignature, component, createSignature, verifySignature, webcrypto } from "http-message-sig";
import { describe, expect, test } from "vitest";
import { decodeBase64Url } from "../../src/wire/base64url.ts";
import {
  authorityOf,
  contentDigest,
  keyThumbprint,
  type ProofV2,
  PROOF_V2_COMPONENTS,
  PROOF_V2_HEADERS,
  PROOF_V2_TAG,
  readProofV2,
  signatureBase,
  type SignedMessage,
  signProofV2,
} from "../../src/wire/proof-v2.ts";
import { importEd25519PublicKey, sha256Base64Url } from "../../src/wire/proof.ts";
import vectorsV2 from "../vectors/proof-v2.json";
import vectors from "../vectors/proof.json";

const publicKey = await importEd25519PublicKey(decodeBase64Url(vectors.privateJwk.x) ?? new Uint8Array());
const privateKey = await crypto.subtle.importKey("jwk", vectors.privateJwk, { name: "Ed25519" }, false, ["sign"]);
const keyid = await keyThumbprint(vectors.privateJwk.x);
const CREATED = 1_795_348_800;
const URL_TEXT = "https://gate.example.com/hooks/agent?x=1&y=%20";
const BODY = new TextEncoder().encode('{"hello":"world"}');
const digest = contentDigest(await sha256Base64Url(BODY));

const sent = (): Record<string, string> => ({
  authorization: "Claw eyJ.x.y",
  "content-digest": digest,
  "content-type": "application/json",
  "x-claw-agent-access": "spa_token",
  "x-claw-recipient-agent-did": "did:cdi:registry.example:agent:01ARZ3NDEKTSV4RRFFQ69G5FAV",
});

const messageOf = (headers: Headers): SignedMessage => ({
  method: "POST",
  pathWithQuery: "/hooks/agent?x=1&y=%20",
  authority: "gate.example.com",
  headers,
});

async function signed(extra: Record<string, string> = {}): Promise<Headers> {
  const headers = new Headers({ ...sent(), ...extra });
  const fields = await signProofV2(privateKey, messageOf(headers), {
    created: CREATED,
    expires: CREATED + 60,
    nonce: 'n-1"\\!',
    keyid,
  });
  for (const [name, value] of Object.entries(fields)) headers.set(name, value);
  return headers;
}

async function verifies(proof: ProofV2, message: SignedMessage): Promise<boolean> {
  const base = new TextEncoder().encode(signatureBase(message, proof.components, proof.signatureParams));
  return crypto.subtle.verify("Ed25519", publicKey, proof.signature, base);
}

async function outcome(headers: Headers, message = messageOf(headers)): Promise<string> {
  const read = readProofV2(headers);
  if (!read.ok) return read.error;
  if (read.value === null) return "no proof of this profile";
  return (await verifies(read.value, message)) ? "verified" : "signature refused";
}

describe("proof V2 against other implementations", () => {
  test("proof V2: the signature base of RFC 9421 B.2.6 is the one that its signature verifies", async () => {
    const key = await importEd25519PublicKey(
      decodeBase64Url("JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs") ?? new Uint8Array(),
    );
    const headers = new Headers({
      date: "Tue, 20 Apr 2021 02:07:55 GMT",
      "content-type": "application/json",
      "content-length": "18",
    });
    const message = { method: "POST", pathWithQuery: "/foo?param=Value&Pet=dog", authority: "example.com", headers };
    const components = ["date", "@method", "@path", "@authority", "content-type", "content-length"];
    const params = `(${components.map((name) => `"${name}"`).join(" ")});created=1618884473;keyid="test-key-ed25519"`;
    const signature = Uint8Array.from(
      atob("wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="),
      (char) => char.charCodeAt(0),
    );
    const base = new TextEncoder().encode(signatureBase(message, components, params));
    expect(await crypto.subtle.verify("Ed25519", key, signature, base)).toBe(true);
  });

  test("proof V2: what http-message-sig signs verifies here", async () => {
    const request = new Request(URL_TEXT, { method: "POST", headers: sent() });
    const fields = await createSignature(request, {
      label: "theirs",
      components: [
        ...PROOF_V2_COMPONENTS,
        ...PROOF_V2_HEADERS.filter((name) => request.headers.has(name)),
      ].toReversed(),
      parameters: { tag: PROOF_V2_TAG, keyid, nonce: "abc", expires: CREATED + 60, created: CREATED },
      signer: webcrypto.signer(privateKey),
    });
    const headers = appendSignature(request.headers, fields);
    expect(await outcome(headers)).toBe("verified");
  });

  test("proof V2: what is signed here verifies in http-message-sig", async () => {
    const headers = await signed();
    const verified = await verifySignature(new Request(URL_TEXT, { method: "POST", headers }), {
      policy: {
        algorithms: ["ed25519"],
        requiredComponents: [...PROOF_V2_COMPONENTS],
        requiredParameters: ["created", "expires", "nonce", "keyid", "tag"],
        now: CREATED,
      },
      resolveVerifier: () => webcrypto.verifier(publicKey),
    });
    expect(verified.parameters.nonce).toBe('n-1"\\!');
  });

  test("proof V2: a covered component with a parameter is refused, as http-message-sig would write it", async () => {
    const request = new Request(URL_TEXT, { method: "POST", headers: { ...sent(), prefer: "wait=1" } });
    const fields = await createSignature(request, {
      label: "theirs",
      components: [
        ...PROOF_V2_COMPONENTS,
        ...PROOF_V2_HEADERS.filter((name) => request.headers.has(name) && name !== "prefer"),
        component("prefer", { key: "wait" }),
      ],
      parameters: { tag: PROOF_V2_TAG, keyid, nonce: "abc", expires: CREATED + 60, created: CREATED },
      signer: webcrypto.signer(privateKey),
    });
    const headers = appendSignature(request.headers, fields);
    expect(await outcome(headers)).toContain("has parameters");
  });
});

describe("proof V2: each covered component", () => {
  test("proof V2: an untouched request verifies, with every header that may be covered", async () => {
    const all = Object.fromEntries(PROOF_V2_HEADERS.map((name) => [name, `value of ${name}`]));
    expect(await outcome(await signed(all))).toBe("verified");
    expect(await outcome(await signed())).toBe("verified");
  });

  test.each([
    ["@method", { method: "PUT" }],
    ["@authority", { authority: "other.example.com" }],
    ["@path", { pathWithQuery: "/hooks/message?x=1&y=%20" }],
    ["@query", { pathWithQuery: "/hooks/agent?x=2&y=%20" }],
  ])("proof V2: another %s does not verify", async (_component, change) => {
    const headers = await signed();
    expect(await outcome(headers, { ...messageOf(headers), ...change })).toBe("signature refused");
  });

  test.each(["authorization", "content-type", "x-claw-agent-access", "x-claw-recipient-agent-did"])(
    "proof V2: another %s does not verify",
    async (name) => {
      const headers = await signed();
      headers.set(name, "changed");
      expect(await outcome(headers)).toBe("signature refused");
    },
  );

  test.each(PROOF_V2_HEADERS.filter((name) => !(name in sent())))(
    "proof V2: %s added after signing is refused as not covered",
    async (name) => {
      const headers = await signed();
      headers.set(name, "added");
      expect(await outcome(headers)).toBe(`Signature-Input: "${name}" is not covered`);
    },
  );

  test.each(["x-claw-recipient-agent-did", "content-type"])(
    "proof V2: %s taken away after signing is refused",
    async (name) => {
      const headers = await signed();
      headers.delete(name);
      expect(await outcome(headers)).toBe(`Signature-Input: "${name}" is covered and not sent`);
    },
  );
});

describe("proof V2: the profile", () => {
  const edited = async (edit: (input: string) => string): Promise<string> => {
    const headers = await signed();
    headers.set("Signature-Input", edit(headers.get("Signature-Input") ?? ""));
    return outcome(headers);
  };

  test.each([
    ["a component twice", (text: string) => text.replace('"@path"', '"@path" "@path"'), "covered twice"],
    ["a component missing", (text: string) => text.replace('"@query" ', ""), '"@query" is not covered'],
    [
      "a component of another profile",
      (text: string) => text.replace('"@path"', '"@path" "@scheme"'),
      "not of this profile",
    ],
    ["a component that is a token", (text: string) => text.replace('"@path"', '"@path" path'), "is no string"],
    ["no created", (text: string) => text.replace(/;created=\d+/, ""), "created must be"],
    ["no expires", (text: string) => text.replace(/;expires=\d+/, ""), "expires must be"],
    ["no nonce", (text: string) => text.replace(/;nonce="(?:[^"\\]|\\.)*"/, ""), "nonce must be"],
    ["no keyid", (text: string) => text.replace(/;keyid="[^"]*"/, ""), "keyid must be"],
    ["a created that is a decimal", (text: string) => text.replace(/created=(\d+)/, "created=$1.0"), "created must be"],
    ["a created that is text", (text: string) => text.replace(/created=(\d+)/, 'created="$1"'), "created must be"],
    ["a negative created", (text: string) => text.replace(/created=(\d+)/, "created=-$1"), "created must be"],
    [
      "a nonce that is a token",
      (text: string) => text.replace(/nonce="(?:[^"\\]|\\.)*"/, "nonce=abc"),
      "nonce must be",
    ],
    ["an empty nonce", (text: string) => text.replace(/nonce="(?:[^"\\]|\\.)*"/, 'nonce=""'), "nonce must be"],
    [
      "a nonce of 257 characters",
      (text: string) => text.replace(/nonce="(?:[^"\\]|\\.)*"/, `nonce="${"n".repeat(257)}"`),
      "nonce must be",
    ],
    ["a nonce with a space", (text: string) => text.replace(/nonce="(?:[^"\\]|\\.)*"/, 'nonce="a b"'), "nonce must be"],
    ["another algorithm", (text: string) => text.replace('alg="ed25519"', 'alg="hmac-sha256"'), "alg must be"],
    ["an unknown parameter", (text: string) => `${text};extra=1`, "unknown parameter extra"],
    ["a parameter twice", (text: string) => `${text};created=1`, "stands twice"],
    ["expires before created", (text: string) => text.replace(/expires=\d+/, `expires=${CREATED}`), "expires must be"],
    ["expires too late", (text: string) => text.replace(/expires=\d+/, `expires=${CREATED + 301}`), "expires must be"],
    ["two members with the tag", (text: string) => `${text}, other=${text.slice(text.indexOf("("))}`, "two members"],
    ["a member that is no list", () => `a=1;tag="${PROOF_V2_TAG}"`, "is no list"],
    ["a field that is none", (text: string) => `${text},`, "Signature-Input:"],
  ])("proof V2: %s is refused", async (_what, edit, reason) => {
    expect(await edited(edit)).toContain(reason);
  });

  test("proof V2: alg may be absent, and then is signed as absent", async () => {
    expect(await edited((text) => text.replace(';alg="ed25519"', ""))).toBe("signature refused");
  });

  test("proof V2: members with other tags are ignored, and a request with those alone has no proof", async () => {
    const headers = await signed();
    headers.set("Signature-Input", `other=("@method");created=1;tag="else", ${headers.get("Signature-Input")}`);
    headers.set("Signature", `other=:AA==:, ${headers.get("Signature")}`);
    expect(await outcome(headers)).toBe("verified");
    headers.set("Signature-Input", 'other=("@method");created=1;tag="else"');
    expect(await outcome(headers)).toBe("no proof of this profile");
  });

  test.each([
    ["missing", null, "Content-Digest is missing"],
    ["doubled", `${digest}, ${digest}`, "stands twice"],
    ["of another algorithm alone", "sha-512=:AAAA:", "sha-256 must be 32 bytes"],
    ["too short", "sha-256=:AAAA:", "sha-256 must be 32 bytes"],
    ["text", 'sha-256="abc"', "sha-256 must be 32 bytes"],
  ])("proof V2: a Content-Digest that is %s is refused", async (_what, value, reason) => {
    const headers = await signed();
    if (value === null) headers.delete("Content-Digest");
    else headers.set("Content-Digest", value);
    expect(await outcome(headers)).toContain(reason);
  });

  test("proof V2: another algorithm beside sha-256 is ignored", async () => {
    expect(await outcome(await signed({ "content-digest": `sha-512=:AAAA:, ${digest}` }))).toBe("verified");
  });

  test.each([
    ["missing", null],
    ["of 63 bytes", `sallyport=:${btoa("x".repeat(63))}:`],
    ["text", 'sallyport="x"'],
    ["under another label", `other=:${btoa("x".repeat(64))}:`],
  ])("proof V2: a Signature that is %s is refused", async (_what, value) => {
    const headers = await signed();
    if (value === null) headers.delete("Signature");
    else headers.set("Signature", value);
    expect(await outcome(headers)).toContain("is not 64 bytes");
  });
});

test("proof V2: the thumbprint of RFC 8037 A.3 is computed as there", async () => {
  expect(await keyThumbprint("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")).toBe(
    "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
  );
});

test.each([
  ["https://Gate.Example.com/x", "gate.example.com"],
  ["https://gate.example.com:443/x", "gate.example.com"],
  ["http://127.0.0.1:8787/x", "127.0.0.1:8787"],
])("proof V2: the authority of %s is %s", (url, authority) => {
  expect(authorityOf(new URL(url))).toBe(authority);
});

test.each(vectorsV2.cases)("proof V2: the vector of $name has this base and verifies", async (vector) => {
  const { method, authority, pathWithQuery, base, signatureInput, signature } = vector;
  const headers = new Headers({ ...vector.headers, "Signature-Input": signatureInput, Signature: signature } as Record<
    string,
    string
  >);
  const read = readProofV2(headers);
  if (!read.ok || read.value === null) throw new Error("not read");
  const message = { method, authority, pathWithQuery, headers };
  expect(signatureBase(message, read.value.components, read.value.signatureParams)).toBe(base);
  expect(await verifies(read.value, message)).toBe(true);
  expect(read.value.bodySha256).toBe(await sha256Base64Url(new TextEncoder().encode(vector.body)));
  expect(read.value.keyid).toBe(vectorsV2.keyid);
});
