/** The form of a compact JWS (RFC 7515 §7.1), read without judging its signature. */
import { decodeBase64Url } from "./base64url.ts";
import { err, ok, type Result } from "./result.ts";

/** What stands in a compact JWS. Nothing here is verified. */
export type UnverifiedJws = {
  readonly header: unknown;
  readonly claims: unknown;
  /** The first two parts with the dot between: what the signature covers. */
  readonly signingInput: string;
  readonly signature: Uint8Array<ArrayBuffer>;
};

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * @param token three base64url parts, joined by dots
 * @returns its parts, or what is wrong with its form in words that hold nothing of the token
 */
export function decodeUnverifiedJws(token: string): Result<UnverifiedJws, string> {
  const parts = token.split(".", 4);
  const [headerPart, claimsPart, signaturePart] = parts;
  if (parts.length !== 3 || headerPart === undefined || claimsPart === undefined || signaturePart === undefined) {
    return err("a compact JWS has three parts");
  }
  const header = decodeJsonPart(headerPart);
  if (header === null) return err("the header is not base64url of JSON");
  const claims = decodeJsonPart(claimsPart);
  if (claims === null) return err("the claims are not base64url of JSON");
  const signature = decodeBase64Url(signaturePart);
  if (signature === null) return err("the signature is not base64url");
  return ok({ header: header.value, claims: claims.value, signingInput: `${headerPart}.${claimsPart}`, signature });
}

function decodeJsonPart(part: string): { readonly value: unknown } | null {
  const bytes = decodeBase64Url(part);
  if (bytes === null) return null;
  try {
    return { value: JSON.parse(strictUtf8.decode(bytes)) as unknown };
  } catch (error) {
    // TextDecoder says TypeError, JSON.parse SyntaxError; anything else is not about this text.
    if (error instanceof TypeError || error instanceof SyntaxError) return null;
    throw error;
  }
}
