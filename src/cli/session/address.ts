/** Addresses of an installation, and the secrets that are bound to them. */
import { authorityOf } from "../../wire/proof-v2.ts";
import { CliError, EXIT, usage } from "../terminal/errors.ts";
import { parseUrl } from "../../wire/url.ts";

/**
 * @param text an address as a person gives it
 * @returns the address in one spelling, without a slash at its end
 * @throws CliError `USAGE` when requests cannot be made from it
 */
export function parseAddress(text: string): string {
  const url = parseUrl(text);
  const isHttp = url?.protocol === "https:" || url?.protocol === "http:";
  if (url === null || !isHttp) throw usage(`${text} is no http(s) address`);
  if (url.username !== "" || url.password !== "") throw usage("an address has no user name and no password in it");
  if (url.search !== "" || url.hash !== "") throw usage(`${text}: an address has no query and no fragment`);
  return url.href.replace(/\/+$/, "");
}

/** @returns whether two addresses are of one origin (RFC 6454 §4) */
export function isSameOrigin(one: string, other: string): boolean {
  return parseUrl(one)?.origin === parseUrl(other)?.origin;
}

/**
 * Whether what is signed for an address is accepted behind it: a proxy in front may give the server another host name.
 *
 * @param authorities the hosts that a proof may name, as the server says; undefined where it does not
 * @throws CliError `OTHER_HOST`
 */
export function mustBeHostOf(baseUrl: string, authorities: readonly string[] | undefined): void {
  const authority = authorityOf(new URL(baseUrl));
  if (authorities === undefined || authorities.includes(authority)) return;
  const called = authorities[0] ?? "";
  throw new CliError(
    "OTHER_HOST",
    `the server behind ${baseUrl} is called ${called}: what is signed for ${authority} is refused`,
    {
      exitCode: EXIT.setup,
      advice: `Let the proxy in front pass the Host header on, or add ${authority} to the server's PUBLIC_AUTHORITIES.`,
    },
  );
}

/** A secret of this machine, and the address that it was given for. */
export type Bound = {
  /** As a person would name it, e.g. `the operator token`. */
  readonly what: string;
  readonly baseUrl: string;
};

/**
 * Where a secret may be sent in this run. An address that was given for this run alone must be of the same origin: the server
 * at another one would learn the secret, or get signatures that the first one accepts.
 *
 * @param given `--url` or `SALLYPORT_URL`
 * @returns the address to use
 * @throws CliError `OTHER_ORIGIN`
 */
export function addressFor({ what, baseUrl }: Bound, given: string | undefined): string {
  if (given === undefined) return baseUrl;
  const wanted = parseAddress(given);
  if (isSameOrigin(wanted, baseUrl)) return wanted;
  throw new CliError("OTHER_ORIGIN", `${what} was given for ${baseUrl}, and is not sent to ${wanted}`, {
    exitCode: EXIT.setup,
    advice: `If the installation has moved there: \`sallyport init --url ${wanted} --moved-from ${baseUrl}\`.`,
  });
}
