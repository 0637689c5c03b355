/** HTTP/1.1 by hand, for what a well-behaved client would never send. */
import { connect } from "node:net";

export type RawAnswer = { status: number; headers: Map<string, string>; body: string };

/**
 * Sends the pieces as they are and reads until the other side has said everything.
 *
 * @param pieces the request, head first; `Connection: close` belongs into it
 */
export function rawHttp(url: string, pieces: readonly (string | Uint8Array)[], withinMs = 20_000): Promise<RawAnswer> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname);
    const chunks: Buffer[] = [];
    const timer = setTimeout(() => socket.destroy(new Error("no answer in time")), withinMs);
    const done = (): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(parse(Buffer.concat(chunks)));
    };
    socket.on("connect", () => {
      for (const piece of pieces) socket.write(piece);
    });
    socket.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      if (isWhole(Buffer.concat(chunks))) done();
    });
    socket.on("end", done);
    socket.on("error", (error) => {
      clearTimeout(timer);
      if (chunks.length > 0 && isWhole(Buffer.concat(chunks))) done();
      else reject(error);
    });
  });
}

/** The head of a request. */
export function head(method: string, path: string, headers: readonly (readonly [string, string])[]): string {
  return `${method} ${path} HTTP/1.1\r\n${headers.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`;
}

function isWhole(bytes: Buffer): boolean {
  const text = bytes.toString("latin1");
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) return false;
  const length = /\r\ncontent-length: *(\d+)/i.exec(text.slice(0, end + 2))?.[1];
  if (length !== undefined) return bytes.length >= end + 4 + Number(length);
  return /\r\ntransfer-encoding: *chunked/i.test(text.slice(0, end + 2)) ? text.endsWith("\r\n0\r\n\r\n") : false;
}

function parse(bytes: Buffer): RawAnswer {
  const text = bytes.toString("latin1");
  const end = text.indexOf("\r\n\r\n");
  const [statusLine = "", ...lines] = text.slice(0, end).split("\r\n");
  const headers = new Map(
    lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
  );
  const rest = text.slice(end + 4);
  const body = headers.get("transfer-encoding") === "chunked" ? unchunk(rest) : rest;
  return { status: Number(statusLine.split(" ")[1] ?? 0), headers, body };
}

function unchunk(text: string): string {
  let rest = text;
  let body = "";
  for (;;) {
    const at = rest.indexOf("\r\n");
    const length = at < 0 ? 0 : Number.parseInt(rest.slice(0, at), 16);
    if (!(length > 0)) return body;
    body += rest.slice(at + 2, at + 2 + length);
    rest = rest.slice(at + 4 + length);
  }
}
