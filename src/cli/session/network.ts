/**
 * The way out of this machine: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either case, as curl reads them.
 * Node's own support does the work, for requests and WebSockets alike.
 */
import { setGlobalProxyFromEnv } from "node:http";
import { isIPv4 } from "node:net";
import { CliError, EXIT } from "../terminal/errors.ts";

/** What Node is given. */
type ProxySettings = {
  readonly HTTP_PROXY?: string;
  readonly HTTPS_PROXY?: string;
  readonly NO_PROXY: string;
};

/** Never by a proxy: what is on this machine is not on the proxy's. */
const LOOPBACK = ["localhost", ".localhost", "127.0.0.1", "[::1]"];

/** @returns whether a host is this machine itself: RFC 6761 §6.3, RFC 1122 §3.2.1.3, RFC 4291 §2.5.3 */
export function isLoopback(hostname: string): boolean {
  if (hostname === "localhost" || hostname.endsWith(".localhost") || hostname === "[::1]") return true;
  return isIPv4(hostname) && hostname.startsWith("127.");
}

/**
 * @param environment where the variables are
 * @param address where requests will go
 * @returns the settings for Node, or null where no variable is set
 * @throws CliError `PROXY_SETTING` naming the variable that is no address of an HTTP proxy
 */
export function proxySettings(environment: NodeJS.ProcessEnv, address: URL): ProxySettings | null {
  const all = given(environment, "ALL_PROXY");
  const [http, https] = [given(environment, "HTTP_PROXY") ?? all, given(environment, "HTTPS_PROXY") ?? all];
  if (http === null && https === null) return null;
  const never = [given(environment, "NO_PROXY")?.value ?? "", ...LOOPBACK];
  // Every other address of 127.0.0.0/8.
  if (isLoopback(address.hostname)) never.push(address.hostname);
  return {
    ...(http === null ? {} : { HTTP_PROXY: proxyUrl(http) }),
    ...(https === null ? {} : { HTTPS_PROXY: proxyUrl(https) }),
    NO_PROXY: never.filter((entry) => entry !== "").join(","),
  };
}

/**
 * Sends what this process requests from now on by the proxies of its environment.
 *
 * @throws CliError `PROXY_SETTING`
 */
export function useProxies(environment: NodeJS.ProcessEnv, address: URL): void {
  const settings = proxySettings(environment, address);
  if (settings !== null) setGlobalProxyFromEnv(settings);
}

type Given = { readonly name: string; readonly value: string };

/** A variable in either case; the lower one first, as everywhere. Empty is not set. */
function given(environment: NodeJS.ProcessEnv, upper: string): Given | null {
  for (const name of [upper.toLowerCase(), upper]) {
    const value = environment[name]?.trim();
    if (value !== undefined && value !== "") return { name, value };
  }
  return null;
}

function proxyUrl({ name, value }: Given): string {
  // Without a scheme it is an HTTP proxy.
  const url = URL.parse(/^[a-z][a-z0-9+.-]*:\/\//i.test(value) ? value : `http://${value}`);
  if (url?.protocol === "http:" || url?.protocol === "https:") return url.href;
  // Never its value: there may be a password in it.
  throw new CliError("PROXY_SETTING", `${name} is not the address of an HTTP proxy`, {
    exitCode: EXIT.setup,
    advice: "Set it to http://HOST:PORT or https://HOST:PORT, or unset it; SOCKS is not supported.",
  });
}
