import { describe, expect, test } from "vitest";
import {
  deviceIdOf,
  exportKeys,
  generateKeys,
  importKeys,
  InvalidKeyError,
  signRequest,
} from "../../../src/client/index.ts";
import vectors from "../../vectors/proof.json";
import { isProven, proofOf } from "../fake-gate.ts";

describe("a key pair", () => {
  test("survives being stored, and signs as before", async () => {
    const keys = await generateKeys();
    const stored = JSON.parse(JSON.stringify(await exportKeys(keys))) as unknown;
    const again = await importKeys(stored);
    expect(again.publicKey).toBe(keys.publicKey);
    const request = await signRequest(
      new Request("https://gate.example.com/rpc", { method: "POST", body: "{}" }),
      again,
    );
    const seen = { method: "POST", path: "/rpc", headers: request.headers, body: await request.text() };
    expect(await isProven(seen, keys.publicKey)).toBe(true);
  });

  test("that was made to stay inside the platform is not exported", async () => {
    await expect(exportKeys(await generateKeys({ extractable: false }))).rejects.toBeInstanceOf(InvalidKeyError);
  });

  test.each([
    ["nothing", undefined],
    ["another curve", { ...vectors.privateJwk, crv: "X25519" }],
    ["a public key alone", { ...vectors.privateJwk, d: undefined }],
    ["a short public half", { ...vectors.privateJwk, x: "AAAA" }],
    ["halves that do not belong together", { ...vectors.privateJwk, x: "3A0f8KndW1cZ594vKIIewPFhEfQsGMb7GM2XYJkdwYU" }],
    ["a private half that is no base64url", { ...vectors.privateJwk, d: "!" }],
  ])("is not %s", async (_what, jwk) => {
    await expect(importKeys(jwk)).rejects.toMatchObject({ code: "INVALID_KEY" });
  });

  test("gives a device its id: 22 characters of the hash of its public key", async () => {
    const id = await deviceIdOf(vectors.privateJwk.x);
    const raw = Uint8Array.from(atob(vectors.privateJwk.x.replaceAll("-", "+").replaceAll("_", "/")), (c) =>
      c.charCodeAt(0),
    );
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", raw));
    const base64 = btoa(String.fromCharCode(...hash))
      .replaceAll("+", "-")
      .replaceAll("/", "_");
    expect(id).toBe(base64.slice(0, 22));
    await expect(deviceIdOf("AAAA")).rejects.toBeInstanceOf(InvalidKeyError);
  });
});

describe("a signed request", () => {
  test.each([
    ["with a body", new Request("https://gate.example.com/hooks/agent", { method: "POST", body: '{"a":"ü"}' })],
    ["without one, with a query", new Request("https://gate.example.com/v1/dead-letters?limit=3&cursor=a%2Fb")],
  ])("%s proves exactly what is sent", async (_what, request) => {
    const keys = await generateKeys();
    const signed = await signRequest(request, keys, vectors.privateJwk.x.length * 1_000);
    const { pathname, search } = new URL(signed.url);
    const seen = { method: signed.method, path: pathname + search, headers: signed.headers, body: await signed.text() };
    expect(await isProven(seen, keys.publicKey)).toBe(true);
    expect(await isProven({ ...seen, body: `${seen.body} ` }, keys.publicKey)).toBe(false);
    expect(proofOf(signed)).toMatchObject({ version: 2, createdSeconds: 43 });
  });

  test("signed in version 1 for a server that knows no other proves exactly what is sent", async () => {
    const keys = await generateKeys();
    const request = new Request("https://gate.example.com/rpc", { method: "POST", body: "{}" });
    const signed = await signRequest(request, keys, 43_000, 1);
    const seen = { method: "POST", path: "/rpc", headers: signed.headers, body: await signed.text() };
    expect(proofOf(signed)).toMatchObject({ version: 1, createdSeconds: 43 });
    expect(await isProven(seen, keys.publicKey)).toBe(true);
  });

  test("keeps its other headers, and has another nonce each time", async () => {
    const keys = await generateKeys();
    const request = new Request("https://gate.example.com/", { headers: { Authorization: "Claw x" } });
    const [one, two] = [await signRequest(request, keys), await signRequest(request, keys)];
    expect(one.headers.get("Authorization")).toBe("Claw x");
    expect(proofOf(one)?.nonce).not.toBe(proofOf(two)?.nonce);
  });
});
