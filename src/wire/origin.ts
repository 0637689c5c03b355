/** Origins of pages and programs, as a browser writes them into `Origin`. */
import { parseUrl } from "./url.ts";

const MAX_LENGTH = 512;
/** RFC 6454 §6.2: scheme, `://`, host, port; no path, no query, no user. */
const SERIALIZED_ORIGIN = /^([a-z][a-z0-9+.-]*):\/\/[^\s/?#@*\\\p{Cc}\p{Cf}]+$/u;
/** Schemes whose hosts and ports a URL parser brings into one form. */
const SPECIAL_SCHEMES: ReadonlySet<string> = new Set(["http", "https", "ws", "wss", "ftp"]);

/**
 * Whether the text is one exact origin of any scheme: `https://app.example.com:8443`, `tauri://localhost`,
 * `chrome-extension://abcdef`. `URL.origin` does not help: for a scheme it does not know it is `null`. An origin has to be in
 * the form in which it is sent, lower case and without its scheme's own port, since it is compared letter by letter; `null`
 * and `*` are none.
 */
export function isOrigin(text: string): boolean {
  const scheme = text.length <= MAX_LENGTH ? SERIALIZED_ORIGIN.exec(text)?.[1] : undefined;
  if (scheme === undefined) return false;
  const url = parseUrl(text);
  if (url === null || url.host === "") return false;
  if (SPECIAL_SCHEMES.has(scheme)) return url.origin === text;
  return `${url.protocol}//${url.host}` === text && text === text.toLowerCase();
}
