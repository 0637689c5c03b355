/**
 * One keep-alive connection that sends requests made beforehand and reads answers with as little work as possible: on a small
 * machine the client shares the processor with what it measures.
 */
import { connect, type Socket } from "node:net";

export type HttpAnswer = { status: number; body: string };

export type HttpConnection = {
  /** One request at a time. */
  send(request: Buffer): Promise<HttpAnswer>;
  close(): void;
};

export async function openHttpConnection(url: string): Promise<HttpConnection> {
  const { hostname, port } = new URL(url);
  const socket: Socket = connect({ host: hostname, port: Number(port), noDelay: true });
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  let waiting: { resolve: (answer: HttpAnswer) => void; reject: (error: Error) => void } | null = null;
  let received = "";

  const settle = (): void => {
    const answer = parse(received);
    if (answer === null || waiting === null) return;
    const { resolve } = waiting;
    waiting = null;
    received = "";
    resolve(answer);
  };
  const fail = (error: Error): void => {
    waiting?.reject(error);
    waiting = null;
  };
  socket.on("data", (chunk: Buffer) => {
    received += chunk.toString("latin1");
    settle();
  });
  socket.on("error", fail);
  socket.on("close", () => fail(new Error("the connection was closed")));

  return {
    send: (request) =>
      new Promise((resolve, reject) => {
        if (socket.destroyed) reject(new Error("the connection is closed"));
        waiting = { resolve, reject };
        socket.write(request);
      }),
    close: () => socket.destroy(),
  };
}

/** @returns null while the answer is not complete */
function parse(received: string): HttpAnswer | null {
  const end = received.indexOf("\r\n\r\n");
  if (end < 0) return null;
  const head = received.slice(0, end).toLowerCase();
  const status = Number(head.slice(9, 12));
  const body = received.slice(end + 4);
  const length = /\r\ncontent-length: *(\d+)/.exec(head)?.[1];
  if (length !== undefined) return body.length < Number(length) ? null : { status, body };
  if (!head.includes("\r\ntransfer-encoding: chunked")) return { status, body };
  return body.endsWith("0\r\n\r\n") ? { status, body } : null;
}
