/** The local API's HTTP: on loopback alone, each request bounded in size and time before anything of it is believed. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { parseUrl } from "../../wire/url.ts";
import { refusalOf } from "./access.ts";
import { type ApiAnswer, type ApiDeps, ApiProblem, API_ROUTES, problemOf } from "./routes.ts";

/** A body: a payload of 1 MiB and what goes with it. */
const BODY_MAX_BYTES = 1_048_576 + 16_384;
const REQUEST_WITHIN_MS = 30_000;
const CONNECTIONS_MAX = 64;

/** What the server is started with. */
export type ApiOptions = {
  readonly port: number;
  readonly token: string;
  readonly deps: ApiDeps;
  /** Called with what nobody foresaw. */
  readonly onDefect: (error: unknown) => void;
};

/** A server that listens. */
export type ApiServer = { readonly port: number; close(): Promise<void> };

/** Listens on 127.0.0.1. @throws Error when the port is taken */
export async function startApi({ port, token, deps, onDefect }: ApiOptions): Promise<ApiServer> {
  let listening = port;
  const server = createServer((request, response) => {
    serve(request, response, { token, port: listening, deps }).catch((error: unknown) => {
      onDefect(error);
      if (!response.headersSent) problem(response, { status: 500, detail: "a defect of the connector" });
      response.end();
    });
  });
  server.headersTimeout = REQUEST_WITHIN_MS;
  server.requestTimeout = REQUEST_WITHIN_MS;
  server.maxConnections = CONNECTIONS_MAX;
  await listen(server, port);
  listening = (server.address() as AddressInfo).port;
  return {
    port: listening,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  { token, port, deps }: { token: string; port: number; deps: ApiDeps },
): Promise<void> {
  const refusal = refusalOf(request, { token, port });
  if (refusal !== null) {
    problem(response, refusal);
    return;
  }
  const url = parseUrl(request.url ?? "/", "http://127.0.0.1");
  const route = url === null ? undefined : API_ROUTES[`${request.method} ${url.pathname}`];
  if (url === null || route === undefined) {
    problem(response, { status: 404, detail: "no such route" });
    return;
  }
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  try {
    const text = request.method === "POST" ? await bodyOf(request) : "";
    write(response, await route(deps, { query: url.searchParams, text, signal: gone.signal }));
  } catch (error) {
    const known = problemOf(error);
    if (known === null) throw error;
    problem(response, known);
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  if (!/^application\/(?:[\w.+-]*\+)?json\s*(?:;|$)/i.test(request.headers["content-type"] ?? ""))
    throw new ApiProblem(415, "send JSON, as Content-Type: application/json");
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.byteLength;
    if (bytes > BODY_MAX_BYTES) throw new ApiProblem(413, "the body is too large");
    chunks.push(chunk);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks));
  } catch (error) {
    throw new ApiProblem(400, "the body is no UTF-8", error);
  }
}

function write(response: ServerResponse, { status, json, text, type }: ApiAnswer): void {
  response.writeHead(status, { "Content-Type": type ?? "application/json", "Cache-Control": "no-store" });
  response.end(text ?? JSON.stringify(json));
}

function problem(
  response: ServerResponse,
  { status, detail, code, retryAfterMs }: { status: number; detail: string; code?: string; retryAfterMs?: number },
): void {
  response.writeHead(status, {
    "Content-Type": "application/problem+json",
    ...(status === 401 ? { "WWW-Authenticate": "Bearer" } : {}),
    ...(retryAfterMs === undefined ? {} : { "Retry-After": String(Math.ceil(retryAfterMs / 1_000)) }),
    // What is left of a body that was not read would be taken for the next request.
    ...(status === 413 ? { Connection: "close" } : {}),
  });
  response.end(JSON.stringify({ type: "about:blank", status, detail, ...(code === undefined ? {} : { code }) }));
}
