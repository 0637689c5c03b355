/**
 * How a program tells its connector from anybody else on the machine: an HTTP message signature (RFC 9421) by a key that both of
 * them read from one file. HMAC-SHA256, which every language has without a package.
 */
import { createHash, createHmac } from "node:crypto";

/** The tag of these signatures. */
export const LOCAL_SIGNATURE_TAG = "sallyport-connect";
/** What is signed, in this order: RFC 9421 §2. */
const COMPONENTS = ["@method", "@path", "content-digest", "sallyport-delivery-id"] as const;

/** A request to be signed. */
export type LocalRequest = {
  readonly method: string;
  readonly url: URL;
  readonly body: string;
  readonly deliveryId: string;
};

/**
 * @param key 32 bytes
 * @param nowMs milliseconds since 1970
 * @returns the headers that prove where a request comes from: `Content-Digest` (RFC 9530), `Signature-Input`, `Signature`, and the
 *          latter again as `Sallyport-Signature`, which nothing in between writes anew
 */
export function localSignature(key: Uint8Array, request: LocalRequest, nowMs: number): Record<string, string> {
  const digest = `sha-256=:${createHash("sha256").update(request.body).digest("base64")}:`;
  const covered = COMPONENTS.map((name) => `"${name}"`).join(" ");
  const parameters = `(${covered});created=${Math.floor(nowMs / 1_000)};alg="hmac-sha256";tag="${LOCAL_SIGNATURE_TAG}"`;
  const values: Record<(typeof COMPONENTS)[number], string> = {
    "@method": request.method,
    "@path": request.url.pathname,
    "content-digest": digest,
    "sallyport-delivery-id": request.deliveryId,
  };
  const base = [...COMPONENTS.map((name) => `"${name}": ${values[name]}`), `"@signature-params": ${parameters}`].join(
    "\n",
  );
  const signature = `sallyport=:${createHmac("sha256", key).update(base).digest("base64")}:`;
  return {
    "Content-Digest": digest,
    "Signature-Input": `sallyport=${parameters}`,
    Signature: signature,
    "Sallyport-Signature": signature,
    "Sallyport-Delivery-Id": request.deliveryId,
  };
}
