/** Ports of this machine. */
import { randomInt } from "node:crypto";
import { createServer } from "node:net";

/**
 * Below the ports that systems give to outgoing connections (from 32,768 on in Linux, from 49,152 by RFC 6335 §6): what is killed and
 * started again finds its port as it left it, whatever connects meanwhile.
 */
const [FIRST, BEHIND_LAST] = [10_000, 32_000];
const TRIES = 100;

/** A port of the loopback interface that nobody listens on at the moment. */
export async function freePort(): Promise<number> {
  for (let tried = 0; tried < TRIES; tried += 1) {
    const port = randomInt(FIRST, BEHIND_LAST);
    // oxlint-disable-next-line no-await-in-loop -- the next is tried when this one is taken
    if (await isFree(port)) return port;
  }
  throw new Error("no port is free");
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.on("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
