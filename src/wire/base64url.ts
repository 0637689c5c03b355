/**
 * Base64url without padding (RFC 4648 §5), canonical only: a text that does not re-encode to itself is
 * refused, so one value has one spelling and a signature or hash cannot be re-spelled past a comparison.
 */

type NativeCodec = {
  fromBase64(text: string, options: { alphabet: "base64url"; lastChunkHandling: "loose" }): Uint8Array<ArrayBuffer>;
};
type NativeBytes = { toBase64(options: { alphabet: "base64url"; omitPadding: true }): string };

const BASE64URL_PATTERN = /^[A-Za-z0-9_-]*$/;
const CHUNK_BYTES = 0x8000;

// Workers and new browsers have the codec natively; Node 22 and 24 do not.
const native = "fromBase64" in Uint8Array ? (Uint8Array as unknown as NativeCodec) : null;

/**
 * @param bytes any bytes, none included
 * @returns their base64url text without padding
 */
export function encodeBase64Url(bytes: Uint8Array): string {
  if (native !== null) {
    return (bytes as unknown as NativeBytes).toBase64({ alphabet: "base64url", omitPadding: true });
  }
  let binary = "";
  for (let start = 0; start < bytes.length; start += CHUNK_BYTES) {
    binary += String.fromCharCode(...bytes.subarray(start, start + CHUNK_BYTES));
  }
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/**
 * @param text base64url without padding
 * @returns the bytes, or null for padding, another alphabet, white space, or a tail that is not canonical
 */
export function decodeBase64Url(text: string): Uint8Array<ArrayBuffer> | null {
  // A rest of one character carries six bits: no byte ends there.
  if (text.length % 4 === 1 || !BASE64URL_PATTERN.test(text)) return null;
  const bytes =
    native === null
      ? decodeByAtob(text)
      : native.fromBase64(text, { alphabet: "base64url", lastChunkHandling: "loose" });
  return encodeBase64Url(bytes) === text ? bytes : null;
}

function decodeByAtob(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index += 1) bytes[index] = binary.charCodeAt(index);
  return bytes;
}
