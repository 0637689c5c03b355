/** What `doctor` says of the way to the server: its address, and the proxy between. */
import { mustBeHostOf } from "../session/address.ts";
import { isLoopback, proxySettings } from "../session/network.ts";
import { failed, type Finding, finding, ok } from "./finding.ts";
import { parseUrl } from "../../wire/url.ts";

/** @param baseUrl the stored address, or the one of this run */
export function addressFinding(baseUrl: string): Finding {
  const url = parseUrl(baseUrl);
  if (url === null)
    return finding("address", "fail", `${baseUrl} is no address`, "Run `sallyport init --url https://…`.");
  if (url.protocol === "http:" && !isLoopback(url.hostname)) {
    return finding("address", "warn", `${baseUrl} is not encrypted: tokens can be read on the way`, "Use https.");
  }
  return ok("address", baseUrl);
}

/**
 * @param environment where the proxy variables are
 * @returns the proxy on the way, never with its password; null where there is none
 */
export function proxyFinding(environment: NodeJS.ProcessEnv, baseUrl: string): Finding | null {
  try {
    const { protocol, hostname, href } = new URL(baseUrl);
    const settings = proxySettings(environment, new URL(href));
    const proxy = parseUrl((protocol === "https:" ? settings?.HTTPS_PROXY : settings?.HTTP_PROXY) ?? "");
    if (proxy === null || isLoopback(hostname)) return null;
    return ok("proxy", `${proxy.origin}, unless NO_PROXY names ${hostname}`);
  } catch (error) {
    return failed("proxy", error);
  }
}

/** @param authorities the hosts that a proof may name, as the server says; undefined where it does not */
export function hostFinding(baseUrl: string, authorities: readonly string[] | undefined): Finding {
  try {
    mustBeHostOf(baseUrl, authorities);
    return ok("host", new URL(baseUrl).host);
  } catch (error) {
    return failed("host", error);
  }
}
