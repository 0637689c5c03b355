/** A proxy in front of the program: lets everything through, and ends the sockets behind it as a restart or a policy would. */
import { connect, createServer, type Socket } from "node:net";
import type { AddressInfo } from "node:net";

export type WebSocketProxy = {
  readonly url: string;
  /** Ends every WebSocket: with a close frame, or without one where the code is null. */
  endSockets(code: number | null, reason?: string): void;
  close(): void;
};

type Passage = { readonly client: Socket; readonly server: Socket };

/** @param url where the program is */
export async function startWebSocketProxy(url: string): Promise<WebSocketProxy> {
  const { hostname, port } = new URL(url);
  const passages = new Set<Passage>();
  const webSockets = new Set<Passage>();
  const listener = createServer((client) => {
    const passage = { client, server: connect(Number(port), hostname) };
    passages.add(passage);
    // A connection that has carried requests may be turned into a WebSocket: each of its heads is looked at.
    client.on("data", (head: Buffer) => {
      if (!webSockets.has(passage) && /^upgrade: websocket/im.test(head.toString("latin1"))) webSockets.add(passage);
    });
    client.pipe(passage.server);
    passage.server.pipe(client);
    const end = (): void => {
      passages.delete(passage);
      webSockets.delete(passage);
      client.destroy();
      passage.server.destroy();
    };
    // Whichever side goes, the other goes with it; a reset is how a killed program looks.
    for (const socket of [client, passage.server]) socket.on("error", end).on("close", end);
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(listener.address() as AddressInfo).port}`,
    endSockets(code, reason = "") {
      for (const { client, server } of webSockets) {
        server.unpipe(client);
        if (code === null) client.destroy();
        else client.end(closeFrame(code, reason));
      }
      webSockets.clear();
    },
    close() {
      for (const { client } of passages) client.destroy();
      listener.close();
    },
  };
}

/** A close frame of a server, RFC 6455 §5.5.1. */
function closeFrame(code: number, reason: string): Buffer {
  const text = Buffer.from(reason);
  return Buffer.concat([Buffer.from([0x88, text.length + 2, code >> 8, code & 0xff]), text]);
}
