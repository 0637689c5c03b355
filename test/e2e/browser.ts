/** A real browser, and web pages of an origin of their own to open in it. */
import { spawnSync } from "node:child_process";
import { type ClientRequest, createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { join } from "node:path";
import { build } from "esbuild";
import { type Browser, chromium } from "playwright-core";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** @returns where the machine's Chromium is; null where it has none */
export function findChromium(): string | null {
  const { stdout, error } = spawnSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" });
  return error !== undefined || stdout.trim() === "" ? null : stdout.trim();
}

/** Starts it without a window and with a profile that is thrown away. */
export function startBrowser(executablePath: string): Promise<Browser> {
  return chromium.launch({ executablePath, args: FLAGS });
}

/** @returns the page's script with everything that it imports, for browsers and nothing else */
export async function bundlePage(): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, "page/main.ts")],
    bundle: true,
    format: "esm",
    platform: "browser",
    target: "chrome137",
    write: false,
    logLevel: "silent",
  });
  const [file] = outputFiles;
  if (file === undefined) throw new Error("the page's script was not built");
  return file.text;
}

/** A web site of the test's own: a page, its backend, and whatever else is asked of it passed on to the installation. */
export type Site = {
  readonly origin: string;
  /** The installation: where the page may connect to, and what stands behind the site. */
  gateUrl: string;
  /** What `POST /ticket` answers with; null for 403. */
  ticket: () => Promise<string | null>;
  /** How often it was asked for one. */
  ticketsAsked(): number;
  close(): void;
};

const PAGE =
  '<!doctype html><title>page</title><link rel="icon" href="data:,"><script type="module" src="/page.js"></script>';

/** @param script what the page runs */
export async function openSite(script: string): Promise<Site> {
  let asked = 0;
  const sockets = new Set<Socket>();

  const serve = (response: ServerResponse, type: string, body: string): void => {
    // As strict as a careful site is: no inline script, no eval.
    const to = `'self' ${site.gateUrl} ${site.gateUrl.replace("http", "ws")}`;
    const policy = `default-src 'none'; script-src 'self'; img-src data:; connect-src ${to}`;
    response.writeHead(200, { "Content-Type": `${type}; charset=utf-8`, "Content-Security-Policy": policy }).end(body);
  };
  const giveTicket = (response: ServerResponse): void => {
    asked += 1;
    site.ticket().then(
      (ticket) => response.writeHead(ticket === null ? 403 : 200).end(ticket ?? ""),
      (error: unknown) => response.writeHead(500).end(String(error)),
    );
  };
  /** To the installation, unchanged but for the host, as a reverse proxy passes it on. */
  const passOn = (asking: IncomingMessage): ClientRequest => {
    const gate = new URL(site.gateUrl);
    const headers = { ...asking.headers, host: gate.host };
    return request({ host: gate.hostname, port: gate.port, method: asking.method, path: asking.url, headers });
  };

  const server = createServer((asking, response) => {
    if (asking.url === "/page") serve(response, "text/html", PAGE);
    else if (asking.url === "/page.js") serve(response, "text/javascript", script);
    else if (asking.url === "/ticket" && asking.method === "POST") giveTicket(response);
    else {
      const passed = passOn(asking);
      passed.on("response", (answer) => {
        answer.pipe(response.writeHead(answer.statusCode ?? 502, answer.headers));
      });
      passed.on("error", () => response.destroy());
      asking.pipe(passed);
    }
  });
  server.on("upgrade", (asking, socket: Socket) => {
    const passed = passOn(asking);
    passed.on("upgrade", (answer, behind: Socket) => {
      const head = answer.rawHeaders.map((text, index) => (index % 2 === 0 ? `\r\n${text}: ` : text)).join("");
      socket.write(`HTTP/1.1 101 Switching Protocols${head}\r\n\r\n`);
      socket.pipe(behind).pipe(socket);
      for (const each of [socket, behind]) each.on("error", () => each.destroy());
    });
    passed.on("response", (answer) => socket.end(`HTTP/1.1 ${answer.statusCode} Refused\r\n\r\n`));
    passed.on("error", () => socket.destroy());
    passed.end();
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.on("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const site: Site = {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    gateUrl: "",
    ticket: () => Promise.resolve(null),
    ticketsAsked: () => asked,
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
  return site;
}
