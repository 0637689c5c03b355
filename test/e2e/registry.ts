/** A registry of the tests' own: a real HTTP server with a key of its own, which issues identity tokens and fails on cue. */
import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { type Agent, b64url, newKey } from "../support/program/agents.ts";

export type Document = "keys" | "crl" | "access";

/**
 * How a document is answered. `lying` documents are well-formed and wrong: a keys document without a key, a list signed by
 * nobody, a verdict that is none.
 */
export type Mode =
  | "up"
  | "500"
  | "429"
  | "hanging"
  | "trickling"
  | "resetting"
  | "endless"
  | "lying"
  | { afterMs: number };

export const ISSUER = "https://registry.tests.example";
const AUTHORITY = "registry.tests.example";
const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

export type TestRegistry = Awaited<ReturnType<typeof startRegistry>>;

export async function startRegistry() {
  const { privateKey } = generateKeyPairSync("ed25519");
  const kid = "tests-key-1";
  const modes: Record<Document, Mode> = { keys: "up", crl: "up", access: "up" };
  const calls: Record<Document, number> = { keys: 0, crl: 0, access: 0 };
  const inFlight: Record<Document, number> = { keys: 0, crl: 0, access: 0 };
  const mostInFlight: Record<Document, number> = { keys: 0, crl: 0, access: 0 };
  const abandoned: Record<Document, number> = { keys: 0, crl: 0, access: 0 };
  const revoked: { jti: string; agentDid: string; revokedAt: number }[] = [];
  const sockets = new Set<Socket>();
  const timers = new Set<NodeJS.Timeout>();
  let server: Server | null = null;
  let port = 0;

  const right = (document: Document): { status: number; body: string } => {
    switch (document) {
      case "keys": {
        const x = createPublicKey(privateKey).export({ format: "jwk" }).x;
        return {
          status: 200,
          body: JSON.stringify({ keys: [{ kid, alg: "EdDSA", crv: "Ed25519", x, status: "active" }] }),
        };
      }
      case "crl": {
        const iat = nowSeconds();
        const claims = { iss: ISSUER, jti: newUlid(), iat, exp: iat + 86_400, revocations: revoked };
        return {
          status: 200,
          body: JSON.stringify({ crl: signJws({ alg: "EdDSA", typ: "CRL", kid }, claims, privateKey) }),
        };
      }
      case "access":
        return { status: 204, body: "" };
    }
  };

  const later = (work: () => void, ms: number): void => {
    const timer = setTimeout(() => {
      timers.delete(timer);
      work();
    }, ms);
    timers.add(timer);
  };

  const answer = (document: Document, response: ServerResponse): void => {
    const mode = modes[document];
    const { status, body } = right(document);
    if (typeof mode === "object") {
      later(() => response.writeHead(status).end(body), mode.afterMs);
      return;
    }
    switch (mode) {
      case "up":
        response.writeHead(status, { "Content-Type": "application/json" }).end(body);
        return;
      case "500":
        response.writeHead(500).end("broken");
        return;
      case "429":
        response.writeHead(429, { "Retry-After": "2" }).end();
        return;
      case "hanging":
        return;
      case "resetting":
        response.socket?.resetAndDestroy();
        return;
      case "trickling": {
        // A byte in 300 ms: each arrives in time, the document never does.
        response.writeHead(status === 204 ? 200 : status);
        let sent = 0;
        const drip = (): void => {
          response.write(body.charAt(sent) || " ");
          sent += 1;
          if (!response.destroyed) later(drip, 300);
        };
        drip();
        return;
      }
      case "endless": {
        response.writeHead(200);
        const block = " ".repeat(65_536);
        const pour = (): void => {
          while (!response.destroyed && response.write(block)) {
            // Until the connection is full or gone.
          }
          if (!response.destroyed) response.once("drain", pour);
        };
        pour();
        return;
      }
      case "lying":
        if (document === "keys") response.writeHead(200).end(JSON.stringify({ keys: [] }));
        else if (document === "crl")
          response.writeHead(200).end(JSON.stringify({ crl: `${body.slice(8, -12)}AAAAAAAAAA` }));
        else response.writeHead(200).end(JSON.stringify({ valid: true }));
        return;
    }
  };

  const serve = (request: IncomingMessage, response: ServerResponse): void => {
    const path = request.url ?? "";
    const document: Document = path.endsWith("claw-keys.json") ? "keys" : path.endsWith("/crl") ? "crl" : "access";
    calls[document] += 1;
    inFlight[document] += 1;
    mostInFlight[document] = Math.max(mostInFlight[document], inFlight[document]);
    response.on("close", () => {
      inFlight[document] -= 1;
      if (!response.writableFinished) abandoned[document] += 1;
    });
    request.resume();
    request.on("end", () => answer(document, response));
  };

  const listen = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const listening = createServer(serve);
      listening.on("error", reject);
      listening.on("connection", (socket) => {
        sockets.add(socket);
        socket.on("error", () => socket.destroy());
        socket.on("close", () => sockets.delete(socket));
      });
      listening.listen(port, "127.0.0.1", () => {
        port = (listening.address() as AddressInfo).port;
        server = listening;
        resolve();
      });
    });

  const down = async (): Promise<void> => {
    const listening = server;
    server = null;
    if (listening === null) return;
    const closed = new Promise((resolve) => listening.close(resolve));
    for (const socket of sockets) socket.destroy();
    for (const timer of timers) clearTimeout(timer);
    await closed;
  };

  await listen();
  return {
    url: `http://127.0.0.1:${port}`,
    calls,
    mostInFlight,
    /** Calls that ended before they were answered in full: the caller hung up, or this registry did. */
    abandoned,
    revoked,
    set(mode: Mode, documents: Document[] = ["keys", "crl", "access"]): void {
      for (const document of documents) modes[document] = mode;
    },
    forgetCalls(): void {
      for (const document of ["keys", "crl", "access"] as const)
        calls[document] = mostInFlight[document] = abandoned[document] = 0;
    },
    /** Nothing listens any more, and what was connected is cut. */
    down,
    /** Listens again on the same port. */
    up: listen,
    issue: (): Agent => issue(kid, privateKey),
  };
}

const nowSeconds = (): number => Math.floor(Date.now() / 1_000);
const jwsPart = (value: unknown): string => b64url(Buffer.from(JSON.stringify(value)));

/** An agent with an identity token of this registry; nothing else knows it. */
function issue(kid: string, registryKey: KeyObject): Agent {
  const { privateKey, x } = newKey();
  const did = `did:cdi:${AUTHORITY}:agent:${newUlid()}`;
  const ownerDid = `did:cdi:${AUTHORITY}:human:${newUlid()}`;
  const now = nowSeconds();
  const times = { iat: now - 600, nbf: now - 600, exp: now + 86_400, jti: newUlid() };
  const cnf = { jwk: { kty: "OKP", crv: "Ed25519", x } };
  const claims = { iss: ISSUER, sub: did, ownerDid, name: "tester", framework: "tests", cnf, ...times };
  const ait = signJws({ alg: "EdDSA", typ: "AIT", kid }, claims, registryKey);
  return {
    did,
    ownerDid,
    ait,
    accessToken: `spa_${b64url(randomBytes(24))}`,
    refreshToken: "",
    privateKey,
    publicX: x,
  };
}

function signJws(header: unknown, claims: unknown, key: KeyObject): string {
  const input = `${jwsPart(header)}.${jwsPart(claims)}`;
  return `${input}.${b64url(sign(null, Buffer.from(input), key))}`;
}

function newUlid(): string {
  let text = "";
  let time = Date.now();
  for (let index = 0; index < 10; index++) {
    text = ALPHABET.charAt(time % 32) + text;
    time = Math.floor(time / 32);
  }
  return text + Array.from(randomBytes(16), (byte) => ALPHABET.charAt(byte % 32)).join("");
}
