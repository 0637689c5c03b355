/** A proxy between a client and the program that can be cut, go dead or go slow, as networks do. */
import { connect, createServer, type Socket } from "node:net";

export type TcpProxy = {
  readonly url: string;
  /** Ends every connection at once, without a word of either side: a reset, no close frame. */
  cut(): void;
  /** Neither side hears the other any more, and both keep their connections. New connections work. */
  goDead(): void;
  /** Half-open: the client's side of what is dead has ended, and the program is never told. Says how many there were. */
  forget(): number;
  /** The client reads nothing for this long; what the program writes piles up. */
  stall(forMs: number): void;
  close(): void;
};

export async function startTcpProxy(targetPort: number): Promise<TcpProxy> {
  const pairs = new Set<{ client: Socket; target: Socket; isDead: boolean }>();
  const forgotten = new Set<Socket>();
  const server = createServer((client) => {
    const target = connect(targetPort, "127.0.0.1");
    const pair = { client, target, isDead: false };
    pairs.add(pair);
    const end = (): void => {
      // A dead proxy carries no end either.
      if (pair.isDead) return;
      client.destroy();
      target.destroy();
      pairs.delete(pair);
    };
    for (const socket of [client, target]) {
      socket.on("error", end);
      socket.on("close", end);
    }
    client.on("data", (chunk: Buffer) => void (pair.isDead || target.write(chunk)));
    target.on("data", (chunk: Buffer) => void (pair.isDead || client.write(chunk)));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the proxy has no port");

  return {
    url: `http://127.0.0.1:${address.port}`,
    cut() {
      for (const pair of pairs) {
        pair.isDead = false;
        pair.client.resetAndDestroy();
        pair.target.resetAndDestroy();
      }
      pairs.clear();
    },
    goDead() {
      for (const pair of pairs) pair.isDead = true;
    },
    forget() {
      const before = forgotten.size;
      for (const pair of pairs) {
        if (!pair.isDead) continue;
        pairs.delete(pair);
        forgotten.add(pair.target);
        pair.client.resetAndDestroy();
        // What the program still writes goes nowhere, as on a line that somebody has pulled.
        pair.target.pause();
      }
      return forgotten.size - before;
    },
    stall(forMs) {
      for (const { target } of pairs) {
        target.pause();
        setTimeout(() => target.resume(), forMs).unref();
      }
    },
    close() {
      for (const { client, target } of pairs) {
        client.destroy();
        target.destroy();
      }
      for (const target of forgotten) target.destroy();
      server.close();
    },
  };
}
