/**
 * Proof of possession, version 2 (contract §1): HTTP Message Signatures, RFC 9421, in a closed profile. What the profile does not
 * name is refused, so that a request has one meaning whoever reads it.
 */
import { encodeBase64Url } from "./base64url.ts";
import { PROOF_NONCE_PATTERN, PROOF_SIGNATURE_BYTES } from "./proof.ts";
import { err, ok, type Result } from "./result.ts";
import {
  type BareItem,
  type Dictionary,
  type InnerList,
  parseDictionary,
  serializeInnerList,
  serializeString,
} from "./structured-fields.ts";

/** The tag (RFC 9421 §2.3) by which a signature says that it is meant for this profile. */
export const PROOF_V2_TAG = "sallyport-proof-v2";
/** `expires` is at most this much after `created`, so it only ever shortens what the clock's window allows. */
export const PROOF_V2_LIFE_MAX_SECONDS = 300;

/** Always covered; `authorization` where there is one, which a claim of a device has not: what is absent cannot be signed. */
export const PROOF_V2_COMPONENTS = [
  "@method",
  "@authority",
  "@path",
  "@query",
  "content-digest",
  "authorization",
] as const;

/** Covered exactly when the request carries them. */
export const PROOF_V2_HEADERS = [
  "x-claw-agent-access",
  "x-claw-agent-did",
  "x-claw-recipient-agent-did",
  "x-claw-group-id",
  "x-claw-conversation-id",
  "x-claw-delivery-receipt-url",
  "idempotency-key",
  "prefer",
  "content-type",
] as const;

/** What a 401 offers, RFC 9421 §5.1: the profile's components and parameters. */
export const ACCEPT_SIGNATURE = `sallyport=(${PROOF_V2_COMPONENTS.map((name) => `"${name}"`).join(" ")});created;expires;alg="ed25519";tag="${PROOF_V2_TAG}"`;

/** A proof in the form of the profile; its time, its key and its signature are yet to be judged. */
export type ProofV2 = {
  /** Unix seconds. */
  readonly created: number;
  readonly expires: number;
  /** 1 to 256 visible ASCII characters. */
  readonly nonce: string;
  /** RFC 7638 thumbprint, as claimed. */
  readonly keyid: string;
  /** base64url of the claimed SHA-256 of the body. */
  readonly bodySha256: string;
  /** 64 bytes. */
  readonly signature: Uint8Array<ArrayBuffer>;
  /** The covered components in the order of the signature, and `@signature-params` as it is signed. */
  readonly components: readonly string[];
  readonly signatureParams: string;
};

/** A request as it is signed. */
export type SignedMessage = {
  readonly method: string;
  /** Path and `?query` as sent. */
  readonly pathWithQuery: string;
  /** Host by which the server was called: lower case, a default port left out. */
  readonly authority: string;
  readonly headers: Headers;
};

/**
 * Reads the proof of a request. Nothing is hashed and no signature verified.
 *
 * @returns null where no signature is meant for this profile; what is wrong with one that is
 */
export function readProofV2(headers: Headers): Result<ProofV2 | null, string> {
  const input = headers.get("Signature-Input");
  const signatureField = headers.get("Signature");
  if (input === null) return ok(null);
  const inputs = parseDictionary(input);
  if (!inputs.ok) return err(`Signature-Input: ${inputs.error}`);
  const tagged = [...inputs.value].filter(([, { parameters }]) => parameters.get("tag")?.value === PROOF_V2_TAG);
  const [only] = tagged;
  if (only === undefined) return ok(null);
  if (tagged.length > 1) return err(`Signature-Input: two members have the tag ${PROOF_V2_TAG}`);
  const [label, list] = only;
  if (list.kind !== "list") return err(`Signature-Input: ${label} is no list of components`);

  const components = readComponents(list, headers);
  if (!components.ok) return components;
  const parameters = readParameters(list);
  if (!parameters.ok) return parameters;
  const signatures = parseDictionary(signatureField ?? "");
  if (!signatures.ok) return err(`Signature: ${signatures.error}`);
  const signature = bytesOf(signatures.value, label);
  if (signature?.length !== PROOF_SIGNATURE_BYTES) return err(`Signature: ${label} is not 64 bytes`);
  const digest = readContentDigest(headers);
  if (!digest.ok) return digest;
  return ok({
    ...parameters.value,
    bodySha256: digest.value,
    signature,
    components: components.value,
    signatureParams: serializeInnerList(list),
  });
}

function readComponents({ items }: InnerList, headers: Headers): Result<string[], string> {
  const covered = new Set<string>();
  for (const { item, parameters } of items) {
    if (item.type !== "string") return err("Signature-Input: a component is no string");
    if (parameters.size > 0) return err(`Signature-Input: "${printable(item.value)}" has parameters`);
    if (covered.has(item.value)) return err(`Signature-Input: "${printable(item.value)}" is covered twice`);
    covered.add(item.value);
  }
  const needed = componentsOf(headers);
  for (const name of needed) if (!covered.has(name)) return err(`Signature-Input: "${name}" is not covered`);
  for (const name of ["authorization", ...PROOF_V2_HEADERS])
    if (!headers.has(name) && covered.has(name)) return err(`Signature-Input: "${name}" is covered and not sent`);
  if (covered.size > needed.length) return err("Signature-Input: covers a component that is not of this profile");
  return ok([...covered]);
}

/** @returns what a proof of this request covers */
function componentsOf(headers: Headers): string[] {
  const always = PROOF_V2_COMPONENTS.filter((name) => name !== "authorization" || headers.has(name));
  return [...always, ...PROOF_V2_HEADERS.filter((name) => headers.has(name))];
}

type V2Parameters = Pick<ProofV2, "created" | "expires" | "nonce" | "keyid">;

function readParameters({ parameters }: InnerList): Result<V2Parameters, string> {
  const KNOWN = ["created", "expires", "nonce", "keyid", "tag", "alg"];
  for (const name of parameters.keys())
    if (!KNOWN.includes(name)) return err(`Signature-Input: unknown parameter ${name}`);
  const created = integerOf(parameters.get("created"));
  const expires = integerOf(parameters.get("expires"));
  const nonce = stringOf(parameters.get("nonce"));
  const keyid = stringOf(parameters.get("keyid"));
  if (created === null) return err("Signature-Input: created must be an integer");
  if (expires === null) return err("Signature-Input: expires must be an integer");
  if (nonce === null || !PROOF_NONCE_PATTERN.test(nonce))
    return err("Signature-Input: nonce must be a string of 1 to 256 visible characters");
  if (keyid === null) return err("Signature-Input: keyid must be a string");
  if (stringOf(parameters.get("tag")) === null) return err("Signature-Input: tag must be a string");
  const algorithm = parameters.get("alg");
  if (algorithm !== undefined && stringOf(algorithm) !== "ed25519")
    return err("Signature-Input: alg must be ed25519 where it is there");
  if (expires <= created || expires > created + PROOF_V2_LIFE_MAX_SECONDS)
    return err(`Signature-Input: expires must be 1 to ${PROOF_V2_LIFE_MAX_SECONDS} seconds after created`);
  return ok({ created, expires, nonce, keyid });
}

const integerOf = (item: BareItem | undefined): number | null =>
  item?.type === "integer" && item.value >= 0 ? item.value : null;
const stringOf = (item: BareItem | undefined): string | null => (item?.type === "string" ? item.value : null);

function bytesOf(dictionary: Dictionary, key: string): Uint8Array<ArrayBuffer> | null {
  const member = dictionary.get(key);
  return member?.kind === "item" && member.item.type === "bytes" && member.parameters.size === 0
    ? member.item.value
    : null;
}

/** RFC 9530 §2: `sha-256`, once; other algorithms beside it are ignored. @returns base64url of the digest */
function readContentDigest(headers: Headers): Result<string, string> {
  const field = headers.get("Content-Digest");
  if (field === null) return err("Content-Digest is missing");
  const digests = parseDictionary(field);
  if (!digests.ok) return err(`Content-Digest: ${digests.error}`);
  const digest = bytesOf(digests.value, "sha-256");
  return digest?.length === 32 ? ok(encodeBase64Url(digest)) : err("Content-Digest: sha-256 must be 32 bytes");
}

/** A component's name for an error: what is not printable ASCII is left out. */
const printable = (name: string): string => name.slice(0, 64);

/**
 * @returns the signature base, RFC 9421 §2.5, for the components of a proof
 */
export function signatureBase(message: SignedMessage, components: readonly string[], signatureParams: string): string {
  const lines = components.map((name) => `"${name}": ${componentValue(message, name)}`);
  return `${lines.join("\n")}\n"@signature-params": ${signatureParams}`;
}

function componentValue({ method, pathWithQuery, authority, headers }: SignedMessage, name: string): string {
  const query = pathWithQuery.indexOf("?");
  switch (name) {
    case "@method":
      return method;
    case "@authority":
      return authority;
    case "@path":
      return query === -1 ? pathWithQuery : pathWithQuery.slice(0, query);
    case "@query":
      return query === -1 ? "?" : pathWithQuery.slice(query);
    default:
      return headers.get(name) ?? "";
  }
}

/** @returns the host of a URL as `@authority` has it, RFC 9421 §2.2.3: lower case, a default port left out */
export function authorityOf(url: URL): string {
  return url.host.toLowerCase();
}

/**
 * The thumbprint of an Ed25519 key, RFC 7638 §3 with RFC 8037 §2.
 *
 * @param x the raw public key in base64url, 32 bytes
 * @returns base64url of 32 bytes
 */
export async function keyThumbprint(x: string): Promise<string> {
  const members = `{"crv":"Ed25519","kty":"OKP","x":"${x}"}`;
  return encodeBase64Url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(members))));
}

/** What is signed, beside the message: unix seconds, a fresh nonce, the key's thumbprint. */
export type SigningParameters = V2Parameters;

/**
 * Signs a message.
 *
 * @param headers all that the request will carry and the profile covers, `Content-Digest` and `Authorization` included
 * @returns the two fields to add
 * @throws TypeError for a nonce or key id that no string of RFC 9651 can hold
 */
export async function signProofV2(
  privateKey: CryptoKey,
  message: SignedMessage,
  { created, expires, nonce, keyid }: SigningParameters,
): Promise<{ "Signature-Input": string; Signature: string }> {
  const components = componentsOf(message.headers);
  const nonceText = serializeString(nonce);
  const keyText = serializeString(keyid);
  if (nonceText === null || keyText === null) throw new TypeError("nonce and keyid are printable ASCII");
  const names = components.map((name) => `"${name}"`).join(" ");
  const params = `(${names});created=${created};expires=${expires};nonce=${nonceText};keyid=${keyText};alg="ed25519";tag="${PROOF_V2_TAG}"`;
  const base = new TextEncoder().encode(signatureBase(message, components, params));
  const signature = new Uint8Array(await crypto.subtle.sign("Ed25519", privateKey, base));
  const base64 = encodeBase64Url(signature).replaceAll("-", "+").replaceAll("_", "/");
  return { "Signature-Input": `sallyport=${params}`, Signature: `sallyport=:${base64}==:` };
}

/** @returns the value of `Content-Digest` for a body. @param sha256 base64url of its SHA-256 */
export function contentDigest(sha256: string): string {
  return `sha-256=:${sha256.replaceAll("-", "+").replaceAll("_", "/")}=:`;
}
