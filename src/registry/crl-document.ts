/**
 * Reads a revocation list from its bytes: document, JWS, claims. A list may have 100 000 entries and 24 MiB; turning it
 * into objects first costs several times the time and the memory of what is kept, a set of ids. So the usual spelling
 * is read in one pass over the bytes, and whatever is spelled otherwise goes through a full parser, which decides.
 */
import { decodeBase64Url, encodeBase64Url } from "../wire/base64url.ts";
import { parseCrlBody, parseCrlClaims, parseCrlHeader } from "../wire/registry-documents.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { type EntryReader, UNUSUAL, walkEntries } from "./crl-entries.ts";
import { parseJson } from "./request.ts";

/** A revocation list whose form is right. Nothing of it is verified. */
export type UnverifiedCrl = {
  readonly kid: string;
  /** What the signature covers: the first two parts with the dot between. */
  readonly signingInput: Uint8Array;
  readonly signature: Uint8Array;
  /** The claims as JSON. Read them only once the signature has verified. */
  readonly payload: Uint8Array;
};

/** The claims of a revocation list but for its entries. `iat` and `exp` in seconds. */
export type CrlHead = { readonly iss: string; readonly iat: number; readonly exp: number };

/** Called with every entry of a list. */
export type RevocationReader = {
  /** The texts of `jti` and `agentDid` stand at these bytes of the payload. */
  atBytes: EntryReader;
  /** Everything so far is void: the list is read again from its beginning, by `plain`. */
  restart(): void;
  plain(jti: string, agentDid: string): void;
};

const QUOTE = 0x22;
const DOT = 0x2e;
const BACKSLASH = 0x5c;
/** base64url of the 64 bytes of an Ed25519 signature. */
const SIGNATURE_LENGTH = 86;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const BODY_START = new TextEncoder().encode('{"crl":"');
const BODY_END = new TextEncoder().encode('"}');
const NAME = new TextEncoder().encode('"revocations"');
const REVOCATIONS = new TextEncoder().encode('"revocations":');

/**
 * @param body `{"crl": "<compact JWS>"}`
 * @returns the bytes of the JWS, or what is wrong
 */
export function findCrlJws(body: Uint8Array): Result<Uint8Array, string> {
  const end = body.length - BODY_END.length;
  if (standsAt(body, 0, BODY_START) && standsAt(body, end, BODY_END)) {
    const jws = body.subarray(BODY_START.length, end);
    // A signature directly before the end shows that nothing but the list is in the document; 20 MB are not searched
    // for it, since whatever is no base64url is refused when it is decoded.
    const signature = jws.subarray(jws.lastIndexOf(DOT) + 1);
    if (signature.length === SIGNATURE_LENGTH && !signature.includes(QUOTE)) return ok(jws);
  }
  const parsed = parseJson(body);
  if (parsed === null) return err("is not JSON");
  const crl = parseCrlBody(parsed.value);
  return crl.ok ? ok(new TextEncoder().encode(crl.value)) : crl;
}

/** @returns the parts of the JWS, or what is wrong with its form. */
export function decodeCrlJws(jws: Uint8Array): Result<UnverifiedCrl, string> {
  const headerEnd = jws.indexOf(DOT);
  const payloadEnd = jws.lastIndexOf(DOT);
  if (headerEnd === payloadEnd) return err("a compact JWS has three parts");
  const headerJson = decodePart(jws.subarray(0, headerEnd));
  const payload = decodePart(jws.subarray(headerEnd + 1, payloadEnd));
  const signature = decodePart(jws.subarray(payloadEnd + 1));
  if (headerJson === null || payload === null || signature === null) return err("a part is not base64url");
  const parsed = parseJson(headerJson);
  if (parsed === null) return err("the header is not JSON");
  const header = parseCrlHeader(parsed.value);
  if (!header.ok) return err(`header: ${header.error}`);
  // RFC 7515 §4.1.11: an extension that is marked critical must be understood, and none is.
  if (typeof parsed.value === "object" && parsed.value !== null && "crit" in parsed.value) {
    return err("header: crit: no extension is understood");
  }
  return ok({ kid: header.value.kid, signingInput: jws.subarray(0, payloadEnd), signature, payload });
}

/**
 * @param payload the claims of a list whose signature has verified
 * @returns the other claims, or what is wrong; one malformed entry refuses the list
 */
export function readCrlClaims(payload: Uint8Array, reader: RevocationReader): Result<CrlHead, string> {
  const head = readUsualClaims(payload, reader);
  if (head !== null) return head;
  reader.restart();
  const parsed = parseJson(payload);
  if (parsed === null) return err("the claims are not JSON");
  const claims = parseCrlClaims(parsed.value);
  if (!claims.ok) return claims;
  for (const { jti, agentDid } of claims.value.revocations) reader.plain(jti, agentDid);
  return claims;
}

/** The claims in one pass, or null when their spelling is not the usual one. */
function readUsualClaims(payload: Uint8Array, reader: RevocationReader): Result<CrlHead, string> | null {
  const name = indexOfText(payload, REVOCATIONS);
  if (name === -1) return null;
  const start = name + REVOCATIONS.length;
  const end = walkEntries(payload, start, reader.atBytes);
  if (end === UNUSUAL) return null;
  // What is left is short. A second member of that name, also one that hides behind an escape, is for the full parser.
  if (indexOfText(payload.subarray(end), NAME) !== -1) return null;
  if (payload.subarray(0, start).includes(BACKSLASH) || payload.subarray(end).includes(BACKSLASH)) return null;
  // With the array emptied it must be the whole of a well-formed list, and the name that was
  // found must have been a member of it, not a piece of some text: a text would hold the emptied array as well.
  const rest = parseJson(joined(payload.subarray(0, start), EMPTY_ARRAY, payload.subarray(end)));
  if (rest === null || !isOnlyArray(rest.value)) return null;
  return parseCrlClaims(rest.value);
}

const EMPTY_ARRAY = new TextEncoder().encode("[]");

/** Whether `revocations` is the emptied array and there is nothing else in which an array could have stood. */
function isOnlyArray(claims: unknown): boolean {
  if (typeof claims !== "object" || claims === null || !("revocations" in claims)) return false;
  const { revocations, ...others } = claims;
  const isEmptied = Array.isArray(revocations) && revocations.length === 0;
  return isEmptied && Object.values(others).every((value) => typeof value === "number" || typeof value === "string");
}

/**
 * Canonical base64url without padding, as `wire/base64url` reads it. Natively the alphabet is checked while decoding,
 * and only white space and a tail that is not canonical have to be looked for: a text of 20 MB is not encoded again.
 */
function decodePart(part: Uint8Array): Uint8Array | null {
  const text = utf8.decode(part);
  if (!("fromBase64" in Uint8Array)) return decodeBase64Url(text);
  const native = Uint8Array as unknown as {
    fromBase64(text: string, options: { alphabet: "base64url"; lastChunkHandling: "loose" }): Uint8Array;
  };
  let bytes: Uint8Array;
  try {
    bytes = native.fromBase64(text, { alphabet: "base64url", lastChunkHandling: "loose" });
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
  // White space and padding would have been skipped: then there are fewer bytes than characters for them.
  if (bytes.length !== Math.floor((text.length * 3) / 4)) return null;
  const tailBytes = bytes.length % 3;
  if (tailBytes === 0) return text.length % 4 === 0 ? bytes : null;
  return text.endsWith(encodeBase64Url(bytes.subarray(bytes.length - tailBytes))) ? bytes : null;
}

function indexOfText(bytes: Uint8Array, text: Uint8Array): number {
  const [first] = text;
  if (first === undefined) return -1;
  for (let at = bytes.indexOf(first); at !== -1; at = bytes.indexOf(first, at + 1)) {
    if (standsAt(bytes, at, text)) return at;
  }
  return -1;
}

function standsAt(bytes: Uint8Array, at: number, text: Uint8Array): boolean {
  return text.every((byte, index) => bytes[at + index] === byte);
}

function joined(...parts: Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}
