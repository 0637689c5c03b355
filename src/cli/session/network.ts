/**
 * The way out of this machine: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either case, as curl reads them.
 * undici does the work, for requests and WebSockets alike, where Node itself has no WebSocket (20) or a proxy is set.
 */
import { isIPv4 } from "node:net";
import type { Dispatcher } from "undici";
import type { Fetch, Socket, SocketConstructor } from "../../client/index.ts";
import { CliError, EXIT } from "../terminal/errors.ts";

/** What is set. */
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
 * @returns the settings, or null where no variable is set
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

/** What a client is given in place of the platform's own; nothing where that serves. */
export type Network = { readonly fetch?: Fetch; readonly WebSocket?: SocketConstructor };

/**
 * The way to one address, by the proxies of an environment.
 *
 * @param environment where the variables are
 * @param address where requests and sockets will go; `NO_PROXY` is looked at for it alone
 * @returns what a client of that address is made with
 * @throws CliError `PROXY_SETTING`
 */
export function networkTo(environment: NodeJS.ProcessEnv, address: URL): Network {
  const settings = proxySettings(environment, address);
  const proxy = address.protocol === "https:" ? settings?.HTTPS_PROXY : settings?.HTTP_PROXY;
  const isDirect = proxy === undefined || settings === null || isLoopback(address.hostname);
  if (isDirect && "WebSocket" in globalThis) return {};
  return throughUndici(isDirect ? null : { uri: proxy, never: settings.NO_PROXY });
}

/** @param proxy null: directly */
function throughUndici(proxy: { readonly uri: string; readonly never: string } | null): Network {
  type Undici = typeof import("undici");
  let loaded: { readonly undici: Undici; readonly dispatcher: Dispatcher } | null = null;
  // Loaded at the first request: most runs of the command need none of it.
  const load = async (): Promise<{ undici: Undici; dispatcher: Dispatcher }> => {
    const undici = await import("undici");
    loaded ??= { undici, dispatcher: dispatcherOf(undici, proxy) };
    return loaded;
  };
  function ProxiedSocket(url: string, protocols: string[]): Socket {
    // A relay's ticket has been requested before its socket opens.
    if (loaded === null) throw new Error("a socket is opened after its ticket was requested");
    return new loaded.undici.WebSocket(url, { protocols, dispatcher: loaded.dispatcher });
  }
  return {
    async fetch(url, init) {
      const { undici, dispatcher } = await load();
      // The same interface: undici is what Node's own `fetch` is made of.
      return (await undici.fetch(url, { ...init, dispatcher })) as unknown as Response;
    },
    WebSocket: ProxiedSocket as unknown as SocketConstructor,
  };
}

function dispatcherOf(
  undici: typeof import("undici"),
  proxy: { readonly uri: string; readonly never: string } | null,
): Dispatcher {
  if (proxy === null) return new undici.Agent();
  return new undici.EnvHttpProxyAgent({ httpProxy: proxy.uri, httpsProxy: proxy.uri, noProxy: proxy.never });
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
