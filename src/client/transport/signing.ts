/**
 * Signs requests: a proof of possession (contract §1). Version 2 is an HTTP message signature (RFC 9421) over host, recipient and
 * every header that means something; version 1 signs method, path, time, nonce and body, for servers that know no other.
 *
 * @example
 * ```ts
 * const headers = { Authorization: `Claw ${credential.ait}`, "X-Claw-Agent-Access": credential.access.token };
 * const request = new Request("https://gate.example.com/pair/peers", { headers });
 * const response = await fetch(await signRequest(request, keys));
 * console.log(response.status); // 200
 * ```
 */
import { encodeBase64Url } from "../../wire/base64url.ts";
import { PROOF_HEADERS, sha256Base64Url, signProof } from "../../wire/proof.ts";
import { authorityOf, contentDigest, keyThumbprint, signProofV2 } from "../../wire/proof-v2.ts";
import type { Keys } from "./keys.ts";

const NONCE_BYTES = 16;
/** How long a signature of version 2 may travel, in seconds; the server's clock window may be shorter. */
const SIGNATURE_LIFE_SECONDS = 300;

/** Which proof a request gets. */
export type ProofVersion = 1 | 2;

/** What is signed. */
export type SignedParts = {
  readonly method: string;
  readonly url: URL;
  readonly body: Uint8Array;
};

/** A request of which everything that version 2 covers is known. */
export type SignedRequest = SignedParts & {
  /** All that the request will carry, `Authorization` included. */
  readonly headers: Readonly<Record<string, string>>;
};

const newNonce = (): string => encodeBase64Url(crypto.getRandomValues(new Uint8Array(NONCE_BYTES)));

/**
 * The proof of version 1, for a request that another library makes.
 *
 * @example
 * ```ts
 * const url = new URL("https://gate.example.com/pair/peers");
 * const proof = await proofHeaders(keys, { method: "GET", url, body: new Uint8Array() }, Date.now());
 * const headers = { Authorization: `Claw ${credential.ait}`, "X-Claw-Agent-Access": credential.access.token, ...proof };
 * console.log((await fetch(url, { headers })).status); // 200
 * ```
 *
 * @param nowMs the time to sign with, by the server's clock as far as it is known
 * @returns the proof's headers, with a fresh nonce
 */
export async function proofHeaders(keys: Keys, parts: SignedParts, nowMs: number): Promise<Record<string, string>> {
  const timestamp = String(Math.floor(nowMs / 1_000));
  const nonce = newNonce();
  const bodySha256 = await sha256Base64Url(parts.body);
  const pathWithQuery = parts.url.pathname + parts.url.search;
  const proof = await signProof(keys.privateKey, { method: parts.method, pathWithQuery, timestamp, nonce, bodySha256 });
  return {
    [PROOF_HEADERS.timestamp]: timestamp,
    [PROOF_HEADERS.nonce]: nonce,
    [PROOF_HEADERS.bodySha256]: bodySha256,
    [PROOF_HEADERS.proof]: proof,
  };
}

/**
 * The proof of version 2, for a request that another library makes: nothing that is signed may be changed or added afterwards.
 *
 * @example
 * ```ts
 * const url = new URL("https://gate.example.com/pair/peers");
 * const headers = { Authorization: `Claw ${credential.ait}`, "X-Claw-Agent-Access": credential.access.token };
 * const proof = await signatureHeaders(keys, { method: "GET", url, body: new Uint8Array(), headers }, Date.now());
 * console.log((await fetch(url, { headers: { ...headers, ...proof } })).status); // 200
 * ```
 *
 * @param nowMs the time to sign with, by the server's clock as far as it is known
 * @returns `Content-Digest`, `Signature-Input` and `Signature`, with a fresh nonce
 */
export async function signatureHeaders(
  keys: Keys,
  request: SignedRequest,
  nowMs: number,
): Promise<Record<string, string>> {
  const { method, url, body } = request;
  const digest = { "Content-Digest": contentDigest(await sha256Base64Url(body)) };
  const headers = new Headers({ ...request.headers, ...digest });
  const message = { method, pathWithQuery: url.pathname + url.search, authority: authorityOf(url), headers };
  const created = Math.floor(nowMs / 1_000);
  const keyid = await keyThumbprint(keys.publicKey);
  const parameters = { created, expires: created + SIGNATURE_LIFE_SECONDS, nonce: newNonce(), keyid };
  return { ...digest, ...(await signProofV2(keys.privateKey, message, parameters)) };
}

/**
 * @param request any request; its body is read into memory, and with version 2 its headers are signed with it
 * @param keys the key that its credential is bound to
 * @param nowMs the time to sign with
 * @param version of the proof; 2 by default, 1 for a server that knows no other
 * @returns the same request with a proof. Sign anew for every attempt: a nonce works once.
 */
export async function signRequest(
  request: Request,
  keys: Keys,
  nowMs: number = Date.now(),
  version: ProofVersion = 2,
): Promise<Request> {
  const body = new Uint8Array(await request.clone().arrayBuffer());
  const headers = new Headers(request.headers);
  const parts = { method: request.method, url: new URL(request.url), body };
  const proof =
    version === 1
      ? await proofHeaders(keys, parts, nowMs)
      : await signatureHeaders(keys, { ...parts, headers: Object.fromEntries(headers) }, nowMs);
  for (const [name, value] of Object.entries(proof)) headers.set(name, value);
  // Not every browser shows a request's `body`, and a GET must not be given one.
  const init = body.length === 0 ? { headers } : { headers, body };
  return new Request(request, init);
}

/** What shows who calls: a credential's own headers, and a proof by its key in the version that the server takes. */
export async function provenBy(
  keys: Keys,
  credential: Readonly<Record<string, string>>,
  request: SignedRequest & { readonly version: ProofVersion },
  nowMs: number,
): Promise<Record<string, string>> {
  const signed = { ...request, headers: { ...request.headers, ...credential } };
  const proof =
    request.version === 1 ? await proofHeaders(keys, request, nowMs) : await signatureHeaders(keys, signed, nowMs);
  return { ...credential, ...proof };
}
