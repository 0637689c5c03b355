/** A Sallyport of the test's own: answers as its routes say, and looks at every proof as the real one does. */
import type { Fetch } from "../../src/client/transport/http-call.ts";
import { type AgentCredential, generateKeys, type Keys } from "../../src/client/index.ts";
import { decodeBase64Url, encodeBase64Url } from "../../src/wire/base64url.ts";
import {
  importEd25519PublicKey,
  PROOF_HEADERS,
  sha256Base64Url,
  verifyProof,
  verifySignedText,
} from "../../src/wire/proof.ts";
import { ACCEPT_SIGNATURE, keyThumbprint, readProofV2, signatureBase } from "../../src/wire/proof-v2.ts";

export const BASE_URL = "https://gate.example.com";
export const AGENT_DID = "did:cdi:registry.example.com:agent:01K9ZJ8Q6V3N5T7W2X4Y6Z8A0B";
export const PEER_DID = "did:cdi:registry.example.com:agent:01K9ZJ8Q6V3N5T7W2X4Y6Z8A0J";
/** 2026-11-22T12:00:00Z */
export const NOON_MS = 1_795_348_800_000;

export type SeenRequest = {
  readonly method: string;
  readonly path: string;
  readonly headers: Headers;
  readonly body: string;
};
export type Reply = {
  readonly status?: number;
  readonly json?: unknown;
  readonly text?: string;
  readonly headers?: Record<string, string>;
};
export type Route = (request: SeenRequest) => Reply | Promise<Reply>;

/** A refusal as the real one writes it: each 401 offers version 2 of the proof. */
export const problem = (status: number, code: string, headers: Record<string, string> = {}): Reply => ({
  status,
  headers: { ...(status === 401 ? { "Accept-Signature": ACCEPT_SIGNATURE } : {}), ...headers },
  json: { type: "about:blank", title: code, status, detail: `says ${code}`, code, requestId: "request-1" },
});

/** @param routes `METHOD /path` → what to answer; a path without a query */
export function fakeGate(routes: Record<string, Route>) {
  const seen: SeenRequest[] = [];
  const fetch: Fetch = async (url, { method, headers, body, signal }) => {
    signal.throwIfAborted();
    const { pathname, search } = new URL(url);
    const request = { method, path: pathname + search, headers: new Headers(headers), body: body ?? "" };
    seen.push(request);
    const route = routes[`${method} ${pathname}`];
    const reply = route === undefined ? problem(404, "PROXY_NOT_FOUND") : await route(request);
    const text = reply.text ?? (reply.json === undefined ? null : JSON.stringify(reply.json));
    return new Response(text, { status: reply.status ?? 200, headers: reply.headers ?? {} });
  };
  const to = (path: string): SeenRequest[] => seen.filter((request) => request.path.split("?")[0] === path);
  return { fetch, seen, to };
}

/** @returns whether the request is signed by this key, over exactly what was sent, in either version */
export async function isProven(request: SeenRequest, publicKey: string): Promise<boolean> {
  const bodySha256 = await sha256Base64Url(new TextEncoder().encode(request.body));
  const key = await importEd25519PublicKey(decodeBase64Url(publicKey) ?? new Uint8Array());
  const read = readProofV2(request.headers);
  if (!read.ok) return false;
  if (read.value === null) return isProvenByV1(request, bodySha256, key);
  const { components, signatureParams, signature, keyid } = read.value;
  if (read.value.bodySha256 !== bodySha256 || keyid !== (await keyThumbprint(publicKey))) return false;
  const { method, path: pathWithQuery, headers } = request;
  const message = { method, pathWithQuery, authority: new URL(BASE_URL).host, headers };
  return verifySignedText(key, signatureBase(message, components, signatureParams), signature);
}

async function isProvenByV1(request: SeenRequest, bodySha256: string, key: CryptoKey): Promise<boolean> {
  const header = (name: string): string => request.headers.get(name) ?? "";
  if (header(PROOF_HEADERS.bodySha256) !== bodySha256) return false;
  const parts = {
    method: request.method,
    pathWithQuery: request.path,
    timestamp: header(PROOF_HEADERS.timestamp),
    nonce: header(PROOF_HEADERS.nonce),
    bodySha256,
  };
  return verifyProof(key, parts, decodeBase64Url(header(PROOF_HEADERS.proof)) ?? new Uint8Array());
}

/** @returns the version of a request's proof, and when and with which nonce it was signed; null without a proof */
export function proofOf({ headers }: SeenRequest | { headers: Headers }): {
  version: 1 | 2;
  createdSeconds: number;
  nonce: string;
} | null {
  const read = readProofV2(headers);
  if (read.ok && read.value !== null)
    return { version: 2, createdSeconds: read.value.created, nonce: read.value.nonce };
  const timestamp = headers.get(PROOF_HEADERS.timestamp);
  const nonce = headers.get(PROOF_HEADERS.nonce);
  return timestamp === null || nonce === null ? null : { version: 1, createdSeconds: Number(timestamp), nonce };
}

const part = (value: unknown): string => encodeBase64Url(new TextEncoder().encode(JSON.stringify(value)));

/** An identity token as far as a client looks into it: its times. */
export function fakeAit(life: { issuedAtMs: number; notBeforeMs?: number; expiresAtMs: number }): string {
  const { issuedAtMs, notBeforeMs = issuedAtMs, expiresAtMs } = life;
  const claims = { iat: issuedAtMs / 1_000, nbf: notBeforeMs / 1_000, exp: expiresAtMs / 1_000 };
  return `${part({ alg: "EdDSA", typ: "AIT", kid: "k" })}.${part(claims)}.AAAA`;
}

export const DAY_MS = 86_400_000;

export async function fakeAgent(
  change: Partial<AgentCredential> = {},
): Promise<{ keys: Keys; credential: AgentCredential }> {
  const credential = {
    agentDid: AGENT_DID,
    ait: fakeAit({ issuedAtMs: NOON_MS, expiresAtMs: NOON_MS + 30 * DAY_MS }),
    access: { token: "access-1", expiresAtMs: NOON_MS + 900_000 },
    refreshToken: "refresh-1",
    ...change,
  };
  return { keys: await generateKeys(), credential };
}
