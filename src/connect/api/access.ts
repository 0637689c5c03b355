/** Who may call the local API: programs of this user on this machine that have read the token, and no web page. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";

/** Why a request is refused: its status and what it is told. */
export type AccessRefusal = { readonly status: 401 | 403 | 421; readonly detail: string };

const NAMES = new Set(["127.0.0.1", "localhost", "[::1]"]);

/**
 * @param request before anything of its body is read
 * @param expected the token, and the port that is listened on
 * @returns null where it may go on
 */
export function refusalOf(
  { headers }: Pick<IncomingMessage, "headers">,
  expected: { readonly token: string; readonly port: number },
): AccessRefusal | null {
  // A page may have its own name resolve to this machine: its requests come with that name.
  if (!isOwnHost(headers.host, expected.port)) return { status: 421, detail: "the Host is not this machine" };
  // Browsers say where a request comes from; no page has business here.
  if (headers.origin !== undefined) return { status: 403, detail: "web pages may not call this" };
  const given = /^Bearer ([\x21-\x7e]{1,256})$/i.exec(headers.authorization ?? "")?.[1];
  if (given === undefined) return { status: 401, detail: "send the token as Authorization: Bearer" };
  return isSame(given, expected.token) ? null : { status: 401, detail: "the token is not this connector's" };
}

function isOwnHost(host: string | undefined, port: number): boolean {
  const [, name = "", given] = /^(.*?)(?::(\d+))?$/.exec(host ?? "") ?? [];
  return NAMES.has(name.toLowerCase()) && (given === undefined ? port === 80 : Number(given) === port);
}

/** By their hashes, so that neither length nor content shows in the time it takes. */
function isSame(given: string, expected: string): boolean {
  return timingSafeEqual(sha256(given), sha256(expected));
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
