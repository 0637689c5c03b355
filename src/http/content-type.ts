/** `Content-Type` of what comes in: JSON, in UTF-8, which is its one encoding between systems (RFC 8259 §8.1). */
import { ProxyError } from "../wire/problem.ts";

const JSON_TYPE = /^application\/(?:[a-z0-9.+-]+\+)?json\s*(?:;|$)/i;
/** RFC 9110 §5.6.6: a parameter, its value a token or quoted. */
const CHARSET = /;\s*charset\s*=\s*(?:"([^"]*)"|([^\s;"]*))/gi;

/** @throws ProxyError PROXY_UNSUPPORTED_MEDIA_TYPE for a charset other than UTF-8; for no header and no charset nothing */
export function refuseOtherCharset(contentType: string | undefined): void {
  for (const [, quoted, token] of (contentType ?? "").matchAll(CHARSET)) {
    if (!/^utf-?8$/i.test(quoted ?? token ?? "")) {
      throw new ProxyError("PROXY_UNSUPPORTED_MEDIA_TYPE", { detail: "Send JSON in UTF-8; no other charset is read." });
    }
  }
}

/** @throws ProxyError PROXY_UNSUPPORTED_MEDIA_TYPE for a media type that is no JSON, or JSON in another charset */
export function refuseOtherThanJson(contentType: string | undefined): void {
  if (contentType === undefined) return;
  if (!JSON_TYPE.test(contentType) || /[^\x20-\x7e]/.test(contentType)) {
    throw new ProxyError("PROXY_UNSUPPORTED_MEDIA_TYPE");
  }
  refuseOtherCharset(contentType);
}
