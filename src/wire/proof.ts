/** Proof of possession, contract §1: what is signed, and the Ed25519 signature over it. */
import { encodeBase64Url } from "./base64url.ts";

/** The headers of a proof; `signatureAlias` is accepted in the place of `proof`. */
export const PROOF_HEADERS = {
  timestamp: "X-Claw-Timestamp",
  nonce: "X-Claw-Nonce",
  bodySha256: "X-Claw-Body-SHA256",
  proof: "X-Claw-Proof",
  signatureAlias: "X-Claw-Signature",
} as const;

/** First line of every signed text: the version of the proof. */
export const PROOF_VERSION = "CLAW-PROOF-V1";
/** Unix seconds, digits only: no sign, no fraction. */
export const PROOF_TIMESTAMP_PATTERN = /^[0-9]{1,15}$/;
/** 1 to 256 visible ASCII characters. */
export const PROOF_NONCE_PATTERN = /^[\x21-\x7e]{1,256}$/;
/** An Ed25519 signature, RFC 8032 §5.1.6. */
export const PROOF_SIGNATURE_BYTES = 64;
/** An Ed25519 public key, RFC 8032 §5.1.5. */
export const ED25519_PUBLIC_KEY_BYTES = 32;

/** What a proof covers. V1 signs neither host nor recipient nor other headers. */
export type ProofParts = {
  /** As sent, upper case. */
  readonly method: string;
  /** As sent: path, and `?query` where there is one. */
  readonly pathWithQuery: string;
  /** Unix seconds as text. */
  readonly timestamp: string;
  readonly nonce: string;
  /** base64url of the SHA-256 of the body; an empty body is hashed too. */
  readonly bodySha256: string;
};

const textEncoder = new TextEncoder();

/** @returns the text that is signed: six lines, nothing after the last. */
export function proofText(parts: ProofParts): string {
  return `${PROOF_VERSION}\n${parts.method}\n${parts.pathWithQuery}\n${parts.timestamp}\n${parts.nonce}\n${parts.bodySha256}`;
}

/** @returns base64url of the SHA-256 of the bytes, 43 characters. */
export async function sha256Base64Url(bytes: Uint8Array): Promise<string> {
  return encodeBase64Url(new Uint8Array(await crypto.subtle.digest("SHA-256", unshared(bytes))));
}

/**
 * @param privateKey an Ed25519 private key with the usage `sign`
 * @returns the value of `X-Claw-Proof`: base64url of 64 bytes
 */
export async function signProof(privateKey: CryptoKey, parts: ProofParts): Promise<string> {
  return encodeBase64Url(
    new Uint8Array(await crypto.subtle.sign("Ed25519", privateKey, textEncoder.encode(proofText(parts)))),
  );
}

/**
 * @param publicKey an Ed25519 public key with the usage `verify`
 * @param signature the decoded signature; one of another length than 64 bytes is false, not an error
 * @returns whether the holder of the key signed exactly these parts
 */
export async function verifyProof(publicKey: CryptoKey, parts: ProofParts, signature: Uint8Array): Promise<boolean> {
  return verifySignedText(publicKey, proofText(parts), signature);
}

/**
 * @param signature the decoded signature; one of another length than 64 bytes is false, not an error
 * @returns whether the holder of the key signed exactly this text
 */
export async function verifySignedText(publicKey: CryptoKey, text: string, signature: Uint8Array): Promise<boolean> {
  if (signature.length !== PROOF_SIGNATURE_BYTES) return false;
  return crypto.subtle.verify("Ed25519", publicKey, unshared(signature), textEncoder.encode(text));
}

/**
 * @param x the raw public key, 32 bytes (`cnf.jwk.x` decoded)
 * @returns the key for {@link verifyProof}; import once and keep it
 * @throws DOMException when the platform refuses the bytes
 */
export async function importEd25519PublicKey(x: Uint8Array): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", unshared(x), { name: "Ed25519" }, true, ["verify"]);
}

/** Web Crypto takes no shared memory, and nobody hands any in; only the type of `Uint8Array` allows for it. */
function unshared(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes as Uint8Array<ArrayBuffer>;
}
