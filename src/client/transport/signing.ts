/**
 * Signs requests: the four headers of a proof of possession (contract §1).
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
import type { Keys } from "./keys.ts";

const NONCE_BYTES = 16;

/** What is signed. */
export type SignedParts = {
  readonly method: string;
  readonly url: URL;
  readonly body: Uint8Array;
};

/**
 * For a request that another library makes.
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
  const nonce = encodeBase64Url(crypto.getRandomValues(new Uint8Array(NONCE_BYTES)));
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
 * @param request any request; its body is read into memory, its other headers are kept and not signed
 * @param keys the key that its credential is bound to
 * @param nowMs the time to sign with
 * @returns the same request with a proof. Sign anew for every attempt: a nonce works once.
 */
export async function signRequest(request: Request, keys: Keys, nowMs: number = Date.now()): Promise<Request> {
  const body = new Uint8Array(await request.clone().arrayBuffer());
  const headers = new Headers(request.headers);
  const proof = await proofHeaders(keys, { method: request.method, url: new URL(request.url), body }, nowMs);
  for (const [name, value] of Object.entries(proof)) headers.set(name, value);
  // Not every browser shows a request's `body`, and a GET must not be given one.
  const init = body.length === 0 ? { headers } : { headers, body };
  return new Request(request, init);
}
